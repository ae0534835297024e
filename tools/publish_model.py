"""Publishes a checkpoint: `python tools/publish_model.py WORK_DIR/epoch_10.pth --name NAME --card CARD.json ...`."""

import sys

from pathzoo.zoo.publish_command import main

if __name__ == "__main__":
    sys.exit(main())
