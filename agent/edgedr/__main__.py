"""``python -m edgedr``."""

import sys

from edgedr.cli.main import main

sys.exit(main())
