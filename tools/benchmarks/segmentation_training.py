"""Training a U-Net over timm's ResNeSt on patches of regions, against segmentation-models-pytorch's U-Net.

    python tools/benchmarks/segmentation_training.py --peer-python PEERS/bin/python [--workers N] [--markdown FILE]

Without --data-root phantom regions are drawn for it. Both sides have the same encoder (timm's, random weights), the
same widths of the decoder, AdamW, cross-entropy + Dice, the same augmentation (a crop at a drawn place, the eight
symmetries, brightness and contrast). Every arm is a process of its own that stays; they take turns:

    bare step    forward, backward and optimizer on one batch in memory: the ceiling; in both memory layouts first
                 (channels_last helps some networks and slows others), of which each side then takes its faster one
    peer, regions    a plain PyTorch loop whose data set decodes a region's PNG and crops a patch
    peer, patches    the same over patches that were cut and written as files beforehand (their places are fixed)
    ours, plain loop    the same loop with RegionSegmentation, which keeps decoded regions, and our model
    ours, Runner    mmengine's Runner with its hooks; validation and checkpoints are not timed

The aim is held against both ways to feed the peer. The data sets alone are measured in one thread, in patches per
second of CPU time. The peer runs where `--peer-python` names an interpreter that has segmentation-models-pytorch 0.6,
with the torch and timm of this one:

    uv venv peers && uv pip install --python peers/bin/python segmentation-models-pytorch==0.6.0 albumentations==2.0.8 \
        torch==TORCH torchvision timm==TIMM
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import timm
import torch
from arms import Arm
from measuring import Table, in_turns, machine, publish, ratio, spread
from peer_segmentation_models import cut_patches

from pathzoo.errors import ConfigError, DataError, PathzooError

_BARE = "bare step (ceiling)"
_OURS = {"bare": _BARE, "plain": "ours, plain loop", "runner": "ours, Runner"}
_PEER = {"bare": "peer: bare step", "regions": "peer: PNG regions", "patches": "peer: PNG patches cut before"}

#: Those of the peer that read.
_PEER_READERS = (_PEER["regions"], _PEER["patches"])

#: What runs an arm of each side.
_SCRIPTS = {"ours": "segmentation_arms.py", "peer": "peer_segmentation_models.py"}
#: Patches/s against the peer's.
_AIM = "1.2"
#: Of the processes: albumentations would ask its registry for updates.
_ENVIRONMENT = os.environ | {"NO_ALBUMENTATIONS_UPDATE": "1"}


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


def _run(arguments: argparse.Namespace, folder: Path) -> None:
    where = machine(device=_device())  # first: it tells the load at the start
    root = folder / "data"
    root.mkdir()
    _lay_out(arguments, root)
    sides = {"ours": _OURS} | ({"peer": _PEER} if arguments.peer_python else {})
    layouts = {}
    arms: dict[str, Arm] = {}
    try:
        for side in sides:
            for last in (0, 1):
                layouts[side, last] = _arm(arguments, root, side, "bare", last)
        bare = in_turns({name: arm.asks("train") for name, arm in layouts.items()}, arguments.rounds)
        fastest = {side: max((0, 1), key=lambda last: spread(bare[side, last]).median) for side in sides}
        for side, names in sides.items():
            layouts[side, 1 - fastest[side]].end()
            for arm, text in names.items():
                last = fastest[side]
                arms[text] = layouts[side, last] if arm == "bare" else _arm(arguments, root, side, arm, last)
        trained = in_turns({text: arm.asks("train") for text, arm in arms.items()}, arguments.rounds)
        readers = {text: arms[text].asks("read") for text in (_OURS["plain"], *_PEER_READERS) if text in arms}
        read = in_turns(readers, arguments.rounds)
    finally:
        for arm in (*layouts.values(), *arms.values()):
            arm.end()
    counts = {side: layouts[side, 0].about["parameters"] for side in sides}
    note = (
        f"{arguments.encoder}, decoder {' '.join(map(str, arguments.decoder_channels))}, parameters: "
        f"{', '.join(f'{side} {count:,}' for side, count in counts.items())}; patches of {arguments.size} px, batches "
        f"of {arguments.batch_size}, {arguments.iterations} a round, {arguments.workers} workers; channels_last: "
        f"{', '.join(f'{side} {bool(last)}' for side, last in fastest.items())}; {arguments.rounds} rounds in turns "
        f"after one to warm up; medians (range). Peer: {_version(layouts)}. {where}."
    )
    tables = [_layout_table(bare, sides), *_training_tables(trained), _reading_table(read)]
    publish(tables, note, arguments.markdown)


def _arm(arguments: argparse.Namespace, root: Path, side: str, name: str, last: int) -> Arm:
    """Starts what measures one arm of one side, in the memory layout `last` (channels_last)."""
    script = Path(__file__).with_name(_SCRIPTS[side])
    interpreter = arguments.peer_python if side == "peer" else sys.executable
    command = [interpreter, script, "--arm", name, "--root", root, "--channels-last", str(last)]
    for option in ("encoder", "size", "batch_size", "iterations", "workers"):
        command += [f"--{option.replace('_', '-')}", str(getattr(arguments, option))]
    if side == "ours":
        command += ["--rounds", str(arguments.rounds)]
    command += ["--decoder-channels", *map(str, arguments.decoder_channels)]
    return Arm(f"{side}, {name}", command, _ENVIRONMENT)


def _check(arguments: argparse.Namespace) -> None:
    """Refuses what would fail after minutes: data that is none, a peer's interpreter without the peer.

    Raises:
        DataError, ConfigError: with the remedy.
    """
    if arguments.data_root and not (arguments.data_root / "regions.csv").is_file():
        raise DataError(f"--data-root {arguments.data_root}: no regions.csv in it; give a folder of regions, or none")
    if not arguments.peer_python:
        print("no --peer-python: ours alone is measured, and no ratio to the peer", file=sys.stderr)
        return
    try:
        words = [arguments.peer_python, "-c", "import segmentation_models_pytorch, albumentations, cv2, PIL"]
        done = subprocess.run(words, capture_output=True, text=True, env=_ENVIRONMENT)
        problem = (done.stderr.strip().splitlines() or ["it fails"])[-1] if done.returncode else ""
    except OSError as error:
        problem = str(error.strerror)
    if problem:
        same = f"torch=={torch.__version__.partition('+')[0]} torchvision timm=={timm.__version__}"
        raise ConfigError(
            f"--peer-python {arguments.peer_python}: {problem}; make an environment for the peer: uv venv peers && uv "
            f"pip install --python peers/bin/python segmentation-models-pytorch==0.6.0 albumentations==2.0.8 {same}"
        )


def _lay_out(arguments: argparse.Namespace, root: Path) -> None:
    """Links or draws the regions, and cuts the patches for the peer that wants them cut."""
    if arguments.data_root:
        for path in arguments.data_root.iterdir():
            (root / path.name).symlink_to(path.resolve())
    else:
        from pathzoo.datasets.phantom import write_regions

        print(f"drawing {arguments.regions} phantom regions ...", file=sys.stderr)
        size = tuple(arguments.region_size)
        write_regions(root, patients=arguments.regions, regions_per_patient=1, size=size, mpp=0.5)
    if arguments.peer_python:
        cut_patches(root, arguments.size)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _version(layouts: dict) -> str:
    found = [arm.about["version"] for (side, _), arm in layouts.items() if side == "peer"]
    return found[0] if found else "not run"


def _layout_table(bare: dict, sides: dict) -> Table:
    rows = []
    for side in sides:
        usual, last = bare[side, 0], bare[side, 1]
        rows.append((side, spread(usual).show(), spread(last).show(), ratio(last, usual).show()))
    columns = ("bare step", "as usual, patches/s", "channels_last, patches/s", "ratio (range)")
    return Table("The network alone, by memory layout", columns, rows)


def _training_tables(values: dict[str, list[float]]) -> list[Table]:
    rows = [(name, spread(found).show(), ratio(found, values[_BARE]).show()) for name, found in values.items()]
    pairs = [
        (f"{_OURS[ours]} / {_PEER[peer]}", _OURS[ours], _PEER[peer], aim)
        for ours, peer, aim in (
            ("bare", "bare", ""),
            ("plain", "regions", _AIM),
            ("plain", "patches", _AIM),
            ("runner", "regions", _AIM),
            ("runner", "patches", _AIM),
        )
        if _PEER[peer] in values
    ]
    pairs.append((f"{_OURS['runner']} / {_OURS['plain']}", _OURS["runner"], _OURS["plain"], ""))
    compared = [(title, ratio(values[one], values[other]).show(), aim) for title, one, other, aim in pairs]
    return [
        Table("Training, patches/s", ("", "patches/s", "of the ceiling"), rows),
        Table("Training, ratios", ("", "ratio (range)", "aim"), compared),
    ]


def _reading_table(values: dict[str, list[float]]) -> Table:
    ours = values[_OURS["plain"]]
    rows = [(name, spread(found).show(), ratio(ours, found).show()) for name, found in values.items()]
    return Table("Reading alone, one thread", ("", "patches per CPU-second", "ours / this"), rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, help="regions.csv and its files; drawn where not given")
    parser.add_argument("--regions", type=int, default=8, help="phantom regions to draw")
    parser.add_argument("--region-size", type=int, nargs=2, default=(2560, 1920), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--encoder", default="resnest14d", help="timm's name")
    parser.add_argument("--decoder-channels", type=int, nargs="+", default=[256, 128, 64, 32, 16])
    parser.add_argument("--size", type=int, default=256, help="of a patch, pixels")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--iterations", type=int, default=4, help="per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0, help="loader processes of every loop")
    parser.add_argument("--peer-python", help="an interpreter that has segmentation-models-pytorch")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
