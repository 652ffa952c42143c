"""``python -m hear_tune``."""

import sys

from .cli import main

sys.exit(main())
