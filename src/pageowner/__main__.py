"""``python -m pageowner``."""

import sys

from pageowner.start import pageowner

sys.exit(pageowner())
