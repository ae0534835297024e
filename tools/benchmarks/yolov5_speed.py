"""Images per second of our YOLOv5 against the package yolov5 (release 7.0): the same weights, pictures and threads.

    python tools/benchmarks/yolov5_speed.py --peer-python PEERS/bin/python [--device cuda --amp] [--markdown FILE]

Inference is from uint8 pictures in memory to boxes after suppression, each as it is meant to be used: the package's
network fused, then its own suppression; ours as `pathzoo predict` asks a loaded model. Training is forward, loss,
backward and a step of SGD on one batch in memory. Boxes and the first loss are compared before anything is timed, so
that both sides are known to do the same work; where they differ the exit status is 1. Ours are compared as they are
before they are cut at the picture's edges: the package cuts them after suppression and we before, so that of objects at
the edges we answer fewer. Both sides are processes of their own that take turns. `--amp` is for training; inference is
in float32, as models are loaded. The package is called, never read. It runs where `--peer-python` names an interpreter
that has it, with the torch of this one:

    uv venv peers && uv pip install --python peers/bin/python yolov5==7.0.14 "setuptools<81" torch==TORCH torchvision
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from arms import Arm
from measuring import Table, in_turns, machine, publish, ratio, spread

from pathzoo.errors import ConfigError, PathzooError

#: Ours / the package's, on a CPU.
_AIMS = {"train": "at least 1", "infer": "1.2"}
_WORDS = {"train": "training", "infer": "inference"}
_SCRIPTS = {"ours": "yolov5_speed_arms.py", "peer": "peer_yolov5_speed.py"}
#: Corners in pixels, scores and the loss's share by which the two may differ.
_TOLERANCE = {"corners, px": 0.1, "scores": 1e-3, "loss, of its size": 1e-3}


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns 0, 1 where the two sides differ, or 2 for bad input."""
    arguments = _parser().parse_args(argv)
    try:
        _check(arguments)
        return _run(arguments)
    except PathzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _check(arguments: argparse.Namespace) -> None:
    """Refuses what would fail after minutes.

    Raises:
        ConfigError: with the remedy.
    """
    if any(side % 32 or side < 32 for side in arguments.side):
        raise ConfigError(f"--side {arguments.side[0]} {arguments.side[1]}: give multiples of 32")
    if arguments.amp and arguments.device == "cpu":
        print("--amp on a CPU trains in bfloat16 on both sides", file=sys.stderr)
    try:
        words = [arguments.peer_python, "-c", "import yolov5"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        problem = (done.stderr.strip().splitlines() or ["it fails"])[-1] if done.returncode else ""
    except OSError as error:
        problem = f"cannot be run ({error.strerror})"
    if problem:
        raise ConfigError(
            f"--peer-python {arguments.peer_python}: {problem}; it has to have yolov5==7.0.14 and setuptools<81"
        )


def _run(arguments: argparse.Namespace) -> int:
    where = machine(arguments.threads, arguments.device)  # first: it tells the load at the start
    speeds, checks, same, version = [], [], True, ""
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory(prefix="pathzoo-benchmark-") as folder:
            about, values = measure(size, Path(folder), arguments)
        differences = compare(about["ours"], about["peer"])
        counts = [str(about["ours"]["count"]), str(sum(map(len, about["peer"]["boxes"])))]
        checks.append((f"YOLOv5{size}", *counts, *(f"{value:.2g}" for value in differences.values())))
        same &= all(differences[name] <= most for name, most in _TOLERANCE.items())
        version = about["peer"]["version"]
        speeds += rows(size, values)
    tables = [
        Table("Images/s", ("", "ours", "the package", "ours / the package", "aim"), speeds),
        Table("The same work: largest differences", ("", "boxes of ours", "of the package", *_TOLERANCE), checks),
    ]
    note = (
        f"Pictures of {arguments.side[0]} x {arguments.side[1]} px, batches of {arguments.batch_size}, "
        f"{arguments.iterations} a round; {arguments.rounds} rounds in turns after one to warm up; medians (range). "
        f"AMP in training {arguments.amp}. Peer: {version}. {where}."
    )
    publish(tables, note, arguments.markdown)
    return int(not same)


def measure(size: str, root: Path, arguments: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """What both sides answer, and their images/s: question -> side -> a value for each round."""
    environment = os.environ | {
        "YOLO_CONFIG_DIR": str(root),
        "OMP_NUM_THREADS": str(arguments.threads),
        "NO_ALBUMENTATIONS_UPDATE": "1",
    }
    commands = {side: _command(side, size, root, arguments) for side in _SCRIPTS}
    made = subprocess.run([*commands["peer"], "--make"], capture_output=True, text=True, env=environment, check=False)
    if made.returncode:
        last = (made.stderr.strip().splitlines() or ["no message"])[-1]
        raise ConfigError(f"--peer-python {arguments.peer_python}: {last}")
    with contextlib.ExitStack() as stack:
        arms = {}
        for side, command in commands.items():
            arms[side] = Arm(f"YOLOv5{size}, {side}", command, environment)
            stack.callback(arms[side].end)
        values = {}
        for word in arguments.only or _AIMS:
            asked: dict[str, Callable[[], float]] = {side: arm.asks(word) for side, arm in arms.items()}
            values[word] = in_turns(asked, arguments.rounds)
    return {side: arm.about for side, arm in arms.items()}, values


def compare(ours: dict[str, Any], peer: dict[str, Any]) -> dict[str, float]:
    """The largest differences, by the names of `_TOLERANCE`; infinite where one side has a box that the other lacks."""
    corners, scores = 0.0, 0.0
    for one, other in zip(ours["boxes"], peer["boxes"], strict=True):
        first, second = (np.array(boxes, float).reshape(-1, 6) for boxes in (one, other))
        if len(first) != len(second):
            corners = np.inf
        elif len(first):
            apart = np.abs(first[:, None] - second[None])  # (n, n, 6)
            apart[..., 5] *= 1e6  # boxes of another class are no match
            nearest = apart.max(axis=-1).argmin(axis=1)
            found = apart[np.arange(len(first)), nearest]
            alone = len(np.unique(nearest)) < len(nearest)
            corners = np.inf if alone else max(corners, float(found[:, :4].max()))
            scores = max(scores, float(found[:, 4:].max()))
    loss = abs(ours["loss"] - peer["loss"]) / abs(peer["loss"])
    return dict(zip(_TOLERANCE, (corners, scores, loss), strict=True))


def rows(size: str, values: dict[str, dict[str, list[float]]]) -> list[tuple[str, ...]]:
    """The table's rows of a network."""
    return [
        (
            f"YOLOv5{size}, {_WORDS[word]}",
            spread(found["ours"]).show(),
            spread(found["peer"]).show(),
            ratio(found["ours"], found["peer"]).show(),
            _AIMS[word],
        )
        for word, found in values.items()
    ]


def _command(side: str, size: str, root: Path, arguments: argparse.Namespace) -> list[str]:
    interpreter = arguments.peer_python if side == "peer" else sys.executable
    command = [interpreter, str(Path(__file__).with_name(_SCRIPTS[side])), "--root", str(root), "--size", size]
    command += ["--side", *map(str, arguments.side), "--device", arguments.device, "--amp", str(int(arguments.amp))]
    for name in ("batch_size", "iterations", "threads"):
        command += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    return command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", required=True, help="an interpreter that has the package yolov5 7.0.14")
    parser.add_argument("--sizes", nargs="+", choices=("n", "s", "m", "l", "x"), default=["s", "l"])
    parser.add_argument("--side", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"), default=(640, 640))
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=1, help="batches a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=tuple(_AIMS), help="train or infer; by default both")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of torch, on both sides")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--amp", action="store_true", help="automatic mixed precision in training, on both sides")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the tables to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
