"""``python -m pageowner``."""

import sys

from pageowner.cli import main

sys.exit(main())
