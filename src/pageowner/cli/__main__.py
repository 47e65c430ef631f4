"""``python -m pageowner.cli``."""

import sys

from pageowner.start import pageowner

sys.exit(pageowner())
