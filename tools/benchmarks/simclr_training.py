"""SimCLR, training images per second: our Runner, data and views against lightly's SimCLR.

    python tools/benchmarks/simclr_training.py --peer-python PEERS/bin/python [--workers N] [--amp] [--markdown FILE]

Without --data-root phantom tiles are drawn for it. Both sides have the same backbone (timm's, random weights), a
projection head of the same widths, SGD, and the same PNG files. lightly makes views by its own SimCLRTransform, in a
plain loop as its documentation has it, with no logging or checkpoints; ours by HistologyViews, under the Runner with
its hooks. So the views differ: each side has those that its user gets. Every arm is a process of its own that stays;
they take turns:

    bare step    forward, backward and optimizer on one batch of two views in memory: the ceiling
    folder       tiles decoded from their PNG files
    packed       ours from the packed store that tools/dataset_converters/pack_tiles.py makes of them
    device       ours from the packed store, views made on the model's device (with a GPU, or --device-views)

One less the share of the ceiling is the share of time spent waiting for data and hooks. The data sets with their views
alone are measured in one thread, in tiles (two views each) per second of CPU time. The peer runs where `--peer-python`
names an interpreter that has lightly 1.6, with the torch and timm of this one:

    uv venv peers && uv pip install --python peers/bin/python lightly==1.6.0 torch==TORCH torchvision timm==TIMM
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import timm
import torch
from arms import Arm
from measuring import Table, in_turns, machine, publish, ratio, spread

from pathzoo.errors import ConfigError, DataError, PathzooError

_BARE = "bare step (ceiling)"
_OURS = {"bare": _BARE, "folder": "ours, PNG files", "packed": "ours, packed store", "device": "ours, views on device"}
_PEER = {"bare": "lightly: bare step", "folder": "lightly, PNG files"}
_SCRIPTS = {"ours": "simclr_arms.py", "peer": "peer_lightly.py"}
#: Images/s against the peer's, where views bound the run.
_AIM = "1.5"
#: What every arm is told.
_OPTIONS = ("backbone", "size", "batch_size", "iterations", "workers", "rounds", "amp", "channels_last", "compile")
_ENVIRONMENT = os.environ | {"NO_ALBUMENTATIONS_UPDATE": "1"}
_TOOLS = Path(__file__).parents[1]


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns 0, or 2 for bad input."""
    arguments = _parser().parse_args(argv)
    try:
        _check(arguments)
        with tempfile.TemporaryDirectory(prefix="pathzoo-benchmark-") as folder:
            _run(arguments, Path(folder))
    except PathzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _run(arguments: argparse.Namespace, root: Path) -> None:
    cuda = torch.cuda.is_available()
    where = machine(device="cuda" if cuda else "cpu")  # first: it tells the load at the start
    _lay_out(arguments, root)
    ours = [name for name in _OURS if name != "device" or cuda or arguments.device_views]
    with contextlib.ExitStack() as stack:

        def start(side: str, name: str) -> Arm:
            arm = _arm(arguments, root, side, name)
            stack.callback(arm.end)
            return arm

        arms: dict[str, Arm] = {}
        for name in ours:
            arms[_OURS[name]] = start("ours", name)
            if arguments.peer_python and name in _PEER:
                arms[_PEER[name]] = start("peer", name)
        trained = in_turns({text: arm.asks("train") for text, arm in arms.items()}, arguments.rounds)
        readers = {_OURS["packed"]: start("ours", "read")}
        readers |= {text: arms[text] for text in (_PEER["folder"],) if text in arms}
        read = in_turns({text: arm.asks("read") for text, arm in readers.items()}, arguments.rounds)
    about = {"ours": arms[_BARE].about} | ({"lightly": arms[_PEER["bare"]].about} if arguments.peer_python else {})
    counts = ", ".join(f"{side} {own['parameters']:,}" for side, own in about.items())
    note = (
        f"{arguments.backbone}, parameters: {counts}"
        f"; views of {arguments.size} px, batches of {arguments.batch_size}, {arguments.iterations} a round, "
        f"{arguments.workers} workers; AMP {arguments.amp}, channels_last {arguments.channels_last}, compile "
        f"{arguments.compile}; {arguments.rounds} rounds in turns after one to warm up; medians (range). Peer: "
        f"{about.get('lightly', {}).get('version', 'not run')}. {where}."
    )
    publish([*_training_tables(trained), _reading_table(read)], note, arguments.markdown)


def _arm(arguments: argparse.Namespace, root: Path, side: str, name: str) -> Arm:
    interpreter = arguments.peer_python if side == "peer" else sys.executable
    command = [interpreter, Path(__file__).with_name(_SCRIPTS[side]), "--arm", name, "--root", root]
    for option in (
        "backbone",
        "size",
        "batch_size",
        "iterations",
        "workers",
        "rounds",
        "amp",
        "channels_last",
        "compile",
    ):
        value = getattr(arguments, option)
        command += [f"--{option.replace('_', '-')}", str(int(value) if isinstance(value, bool) else value)]
    return Arm(f"{side}, {name}", command, _ENVIRONMENT)


def _check(arguments: argparse.Namespace) -> None:
    """Refuses what would fail after minutes: too few tiles, a peer's interpreter without the peer.

    Raises:
        DataError, ConfigError: with the remedy.
    """
    wanted = arguments.batch_size * arguments.iterations
    if arguments.data_root and len(_files(arguments.data_root)) < wanted:
        raise DataError(
            f"--data-root {arguments.data_root}: fewer than the {wanted} PNG files of a round; give fewer --iterations"
        )
    if not arguments.peer_python:
        print("no --peer-python: ours alone is measured, and no ratio to the peer", file=sys.stderr)
        return
    try:
        words = [arguments.peer_python, "-c", "import lightly, timm"]
        done = subprocess.run(words, capture_output=True, text=True)
        problem = (done.stderr.strip().splitlines() or ["it fails"])[-1] if done.returncode else ""
    except OSError as error:
        problem = str(error.strerror)
    if problem:
        same = f"torch=={torch.__version__.partition('+')[0]} torchvision timm=={timm.__version__}"
        raise ConfigError(
            f"--peer-python {arguments.peer_python}: {problem}; make an environment for the peer: uv venv peers && uv "
            f"pip install --python peers/bin/python lightly==1.6.0 {same}"
        )


def _files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.png"))


def _lay_out(arguments: argparse.Namespace, root: Path) -> None:
    """Puts the tiles of a round into root/tiles, and packs them into root/tiles.safetensors."""
    wanted = arguments.batch_size * arguments.iterations
    (root / "tiles").mkdir()
    if arguments.data_root:
        for number, path in enumerate(_files(arguments.data_root)[:wanted]):
            (root / "tiles" / f"{number:06}.png").symlink_to(path.resolve())
        side = min(cv2.imread(str(path)).shape[:2] for path in (root / "tiles").iterdir())
    else:
        from views import draw_tiles

        print(f"drawing {wanted} phantom tiles ...", file=sys.stderr)
        tiles = draw_tiles(wanted, arguments.size)
        for number, tile in enumerate(tiles):
            cv2.imwrite(str(root / "tiles" / f"{number:06}.png"), tile[..., ::-1])
        side = tiles[0].shape[0]
    command = [sys.executable, str(_TOOLS / "dataset_converters" / "pack_tiles.py"), str(root / "tiles")]
    command += ["-o", str(root / "tiles.safetensors"), "--size", str(side), "--keep-pixels"]
    done = subprocess.run(command, capture_output=True, text=True, env=_ENVIRONMENT)
    if done.returncode:
        raise DataError(f"pack_tiles.py: {(done.stderr.strip().splitlines() or ['it fails'])[-1]}")


def _training_tables(values: dict[str, list[float]]) -> list[Table]:
    rows = [(name, spread(found).show(), ratio(found, values[_BARE]).show()) for name, found in values.items()]
    tables = [Table("Training, images/s", ("", "images/s", "of our ceiling"), rows)]
    pairs = [("bare", "bare", ""), *((name, "folder", _AIM) for name in ("folder", "packed", "device"))]
    compared = [
        (f"{_OURS[one]} / {_PEER[other]}", ratio(values[_OURS[one]], values[_PEER[other]]).show(), aim)
        for one, other, aim in pairs
        if _OURS[one] in values and _PEER[other] in values
    ]
    return tables + ([Table("Training, ratios", ("", "ratio (range)", "aim"), compared)] if compared else [])


def _reading_table(values: dict[str, list[float]]) -> Table:
    ours = values[_OURS["packed"]]
    rows = [(name, spread(found).show(), ratio(ours, found).show()) for name, found in values.items()]
    return Table("Tiles and views alone, one thread", ("", "tiles per CPU-second", "ours / this"), rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, help="a folder of PNG tiles; drawn where not given")
    parser.add_argument("--backbone", default="resnet18", help="timm's name")
    parser.add_argument("--size", type=int, default=224, help="of a view, pixels")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--iterations", type=int, default=4, help="per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0, help="loader processes of every loop")
    parser.add_argument("--amp", action="store_true", help="automatic mixed precision, on both sides")
    parser.add_argument("--channels-last", action="store_true", help="on both sides")
    parser.add_argument("--compile", action="store_true", help="torch.compile of the backbone, on both sides")
    parser.add_argument("--device-views", action="store_true", help="measure BatchedViews without a GPU too")
    parser.add_argument("--peer-python", help="an interpreter that has lightly")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
