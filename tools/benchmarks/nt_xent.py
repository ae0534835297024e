"""NT-Xent's memory and time by batch: ours in tiles, the plain formula, and lightly's NTXentLoss.

    python tools/benchmarks/nt_xent.py [--peer-python PEERS/bin/python] [--pairs 256 1024 ...] [--markdown FILE]

A step is the loss and its gradient by both views, float32. Every arm is a process of its own for each batch; they take
turns. Memory is what a step needs beyond its inputs at its peak: on a CPU of the process's resident set, on a GPU of
what torch has allocated. A batch that would not fit is not run, and the table says what it would need. The losses of
the arms must agree. lightly runs where `--peer-python` names an interpreter that has it, with the torch of this one:

    uv venv peers && uv pip install --python peers/bin/python lightly==1.6.0 torch==TORCH torchvision
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from measuring import Table, in_turns, machine, publish, ratio, spread
from nt_xent_arms import MARK

from pathzoo.errors import ConfigError, PathzooError

#: Matrices (2N x 2N) of float32 that an arm holds at its peak, a little more than measured: what it is refused by.
_MATRICES = {"ours": 0.0, "plain": 3.2, "peer": 4.5}
#: Losses of the arms may differ by rounding.
_TOLERANCE = 1e-4


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns 0, 1 where the losses differ, or 2 for bad input."""
    arguments = _parser().parse_args(argv)
    try:
        _check(arguments)
    except PathzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    where = machine(arguments.threads, _device())
    found = {pairs: _at(pairs, arguments) for pairs in arguments.pairs}
    note = (
        f"Pairs of {arguments.dimensions} dimensions, temperature {arguments.temperature:g}, tiles of "
        f"{arguments.chunk}; {arguments.rounds} rounds in turns after one to warm up; medians (range). {where}."
    )
    publish([_memory_table(found), _time_table(found)], note, arguments.markdown)
    return int(any(_disagree(of) for of in found.values()))


class _Arm:
    """A process that takes a step when it is asked to, and sleeps otherwise."""

    def __init__(self, name: str, pairs: int, arguments: argparse.Namespace) -> None:
        interpreter = arguments.peer_python if name == "peer" else sys.executable
        command = [interpreter, str(Path(__file__).with_name("nt_xent_arms.py")), "--arm", name, "--pairs", str(pairs)]
        for option in ("dimensions", "chunk", "threads", "temperature"):
            command += [f"--{option}", str(getattr(arguments, option))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.version = self._answer()
        self.steps: list[dict[str, float]] = []

    def ask(self) -> float:
        """Seconds of a step; all that it tells is kept in `steps`."""
        assert self._process.stdin is not None
        self._process.stdin.write("time\n")
        self._process.stdin.flush()
        self.steps.append(self._answer())
        return self.steps[-1]["seconds"]

    def end(self) -> None:
        """Closes its input, upon which it ends."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        raise SystemExit(f"{' '.join(map(str, self._process.args))}\nended with {self._process.wait()}")


def _at(pairs: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Arm -> its seconds, MiB and loss, or the GiB that it would need."""
    names = ["ours", "plain", *(["peer"] if arguments.peer_python else [])]
    needs = {name: _MATRICES[name] * 4 * (2 * pairs) ** 2 / 2**30 for name in names}
    limit = arguments.limit_gib or 0.7 * _free_gib()
    found: dict[str, Any] = {name: needs[name] for name in names if needs[name] > limit}
    arms: dict[str, _Arm] = {}
    try:
        for name in names:
            if name not in found:
                arms[name] = _Arm(name, pairs, arguments)
        asks: dict[str, Callable[[], float]] = {name: arm.ask for name, arm in arms.items()}
        seconds = in_turns(asks, arguments.rounds)
    finally:
        for arm in arms.values():
            arm.end()
    print(f"{pairs} pairs: done", file=sys.stderr, flush=True)
    for name, arm in arms.items():
        counted = arm.steps[-arguments.rounds :]
        found[name] = {
            "seconds": seconds[name],
            "mib": [step["mib"] for step in counted],
            "loss": counted[-1]["loss"],
            "version": arm.version,
        }
    return found


def _check(arguments: argparse.Namespace) -> None:
    """Refuses a peer's interpreter without the peer, with the remedy."""
    if min(arguments.pairs) < 1 or arguments.rounds < 1:
        raise ConfigError(f"--pairs {arguments.pairs} --rounds {arguments.rounds}: give 1 or more")
    if not arguments.peer_python:
        print("no --peer-python: lightly is left out", file=sys.stderr)
        return
    try:
        words = [arguments.peer_python, "-c", "from lightly.loss import NTXentLoss"]
        done = subprocess.run(words, capture_output=True, text=True)
        problem = (done.stderr.strip().splitlines() or ["it fails"])[-1] if done.returncode else ""
    except OSError as error:
        problem = str(error.strerror)
    if problem:
        raise ConfigError(
            f"--peer-python {arguments.peer_python}: {problem}; make an environment for the peer: uv venv peers && uv "
            f"pip install --python peers/bin/python lightly==1.6.0 torch=={torch.__version__.partition('+')[0]}"
        )


def _memory_table(found: dict[int, dict[str, Any]]) -> Table:
    rows = [(f"{pairs:,}", *(_memory(of.get(name)) for name in _MATRICES)) for pairs, of in found.items()]
    return Table("NT-Xent, memory of a step, MiB", ("pairs", "ours", "plain formula", _peer_name(found)), rows)


def _time_table(found: dict[int, dict[str, Any]]) -> Table:
    rows = []
    for pairs, of in found.items():
        ours = of["ours"]["seconds"]
        cells = [spread([1000 * second for second in ours]).show()]
        for name in ("plain", "peer"):
            measured = of.get(name)
            run = isinstance(measured, dict)
            cells.append(spread([1000 * second for second in measured["seconds"]]).show() if run else "not run")
            cells.append(ratio(measured["seconds"], ours).show() if run else "")
        rows.append((f"{pairs:,}", *cells))
    peer = _peer_name(found)
    columns = ("pairs", "ours, ms", "plain formula, ms", "plain / ours", f"{peer}, ms", f"{peer} / ours")
    return Table("NT-Xent, time of a step (loss and gradient)", columns, rows)


def _memory(measured: Any) -> str:
    if isinstance(measured, dict):
        return spread([max(mib, 0.1) for mib in measured["mib"]]).show()
    return "not run" if measured is None else f"not run: about {measured:.3g} GiB"


def _peer_name(found: dict[int, dict[str, Any]]) -> str:
    versions = [of["peer"]["version"] for of in found.values() if isinstance(of.get("peer"), dict)]
    return versions[0] if versions else "lightly"


def _disagree(of: dict[str, Any]) -> bool:
    losses = {name: measured["loss"] for name, measured in of.items() if isinstance(measured, dict)}
    apart = max(losses.values()) - min(losses.values()) > _TOLERANCE * max(1.0, *losses.values())
    if apart:
        print(f"the losses differ: {losses}", file=sys.stderr)
    return apart


def _free_gib() -> float:
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0] / 2**30
    return psutil.virtual_memory().available / 2**30


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, nargs="+", default=[256, 1024, 4096, 16384, 32768], metavar="N")
    parser.add_argument("--dimensions", type=int, default=128, help="of an embedding")
    parser.add_argument("--temperature", type=float, default=0.1)
    parser.add_argument("--chunk", type=int, default=1024, help="side of our tiles")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch, in every arm")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit-gib", type=float, help="memory that an arm may need; 0.7 of what is free by default")
    parser.add_argument("--peer-python", help="an interpreter that has lightly")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
