"""Tests a model by a config: `python tools/test.py CONFIG [options]`; see `--help`. The same as `pathzoo test`."""

import sys

from pathzoo.cli import main

if __name__ == "__main__":
    sys.exit(main(["test", *sys.argv[1:]]))
