"""``python -m pageowner.cli``."""

import sys

from pageowner.cli import main

sys.exit(main())
