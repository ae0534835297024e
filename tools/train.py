"""Trains a model by a config: `python tools/train.py CONFIG [options]`; see `--help`. The same as `pathzoo train`."""

import sys

from pathzoo.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
