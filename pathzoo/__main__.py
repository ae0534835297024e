"""`python -m pathzoo` is the `pathzoo` command."""

import sys

from pathzoo.cli import main

sys.exit(main())
