"""The command line of publishing: tools/publish_model.py, or `python -m pathzoo.zoo.publish_command` from a wheel."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pathzoo.errors import PathzooError
from pathzoo.zoo.publish import publish_model

_EPILOG = """\
The card file (JSON or YAML) holds description, licence (SPDX) and commercial_use, and by choice organ, stain, tissue,
scanner, attributions (title, authors, licence, reference), intended_use, limits, initial_weights (source, licence,
sha256), mpp_tolerance, and of a detector score_threshold, from which on `pathzoo predict` gives objects. Everything
else comes from the run's train_run.json, metrics.json and splits.json.

A chain of runs is published from its first run on: where training began with the checkpoint of another run
(`--cfg-options parent=...`), `--parent FOLDER` names that run's published folder, whose tensors are compared with those
that training began with. A parent that was published already is named by the record.
"""


def parser() -> argparse.ArgumentParser:
    """The options; each is an argument of `publish_model`."""
    options = argparse.ArgumentParser(prog="publish_model.py", description=__doc__, epilog=_EPILOG)
    options.add_argument("checkpoint", type=Path, help=".pth of a training run")
    options.add_argument("--name", required=True, help="lower-case letters and digits, joined by - or _")
    options.add_argument("--version", default="1.0.0", help="MAJOR.MINOR.PATCH (default: %(default)s)")
    options.add_argument("--card", required=True, type=Path, help="card file, see below")
    options.add_argument("--out", type=Path, default=Path("work_dirs/zoo"), help="zoo folder (default: %(default)s)")
    options.add_argument("--run", type=Path, help="the run's folder (default: the checkpoint's)")
    options.add_argument("--metrics", type=Path, nargs="+", help="metrics.json files to publish (default: the run's)")
    options.add_argument("--half", action="store_true", help="store the weights as float16")
    options.add_argument("--hash-key", type=Path, help="file with a secret; publishes keyed hashes of the patients")
    options.add_argument(
        "--parent",
        type=Path,
        action="append",
        default=[],
        help="folder of a model this was made from; needed where training began with another run's checkpoint",
    )
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Publishes; prints the new folder. Returns 0, or 2 with one line on stderr."""
    given = vars(parser().parse_args(arguments))
    parents = given.pop("parent")
    try:
        print(publish_model(**given, parents=parents))
    except PathzooError as error:
        print(f"publish_model.py: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
