"""Seconds from a command to what it is for: to the first training iteration, and to a help text.

    python tools/benchmarks/startup.py [--config CONFIG] [--markdown FILE]

`tools/train.py CONFIG` until its first iteration stands in the log, against a script that imports torch, torchvision
and timm, reads one batch from the same folder and takes one step; `pathzoo --help` against `python -c pass`. Commands
take turns; a breakdown of what `tools/train.py` does comes from a process that calls the same functions one by one.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from measuring import Table, in_turns, machine, publish, ratio, spread

_CONFIG = "breakhis_xception/full_resnet10t_1xb16_20e_phantom40x_small.py"
_TRAIN = Path(__file__).resolve().parents[1] / "train.py"
_NAMES = {
    "pass": "A  python -c pass",
    "help": "B  pathzoo --help",
    "peer": "C  peer: torch, torchvision, timm",
    "train": "D  tools/train.py CONFIG",
    "anew": "E  the same, images never seen",
}
_LETTERS = {key: name[0] for key, name in _NAMES.items()}
#: What a user would write for a first step; the folder and the network come in as arguments.
_PEER = """
import sys
import timm, torch, torchvision
from torchvision.transforms import v2
root, name, size, batch = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
steps = [v2.ToImage(), v2.RandomCrop(size, pad_if_needed=True), v2.ToDtype(torch.float32, scale=True)]
images = torchvision.datasets.ImageFolder(root, v2.Compose(steps))
loader = torch.utils.data.DataLoader(images, batch_size=batch, shuffle=True)
device = "cuda" if torch.cuda.is_available() else "cpu"
model = timm.create_model(name, num_classes=len(images.classes)).to(device).train()
optimizer = torch.optim.AdamW(model.parameters())
inputs, labels = next(iter(loader))
torch.nn.functional.cross_entropy(model(inputs.to(device)), labels.to(device)).backward()
optimizer.step()
print("done", flush=True)
"""
#: What tools/train.py does until the first iteration, with a clock between the parts.
_PARTS = """
import json, sys, time
marks = [("start", time.perf_counter())]
mark = lambda name: marks.append((name, time.perf_counter()))
import torch
mark("import torch")
import mmengine.runner
mark("import mmengine")
from pathzoo.apis.config import load_config
from pathzoo.apis.setup import setup
setup()
mark("import mmcv and ours, plug-ins")
import mmpretrain.models
mark("import mmpretrain.models")
import pathzoo.models
mark("import timm")
import pathzoo.datasets.transforms
mark("import albumentations")
config = load_config(sys.argv[1], json.loads(sys.argv[2]))
mark("read and check the config")
config.work_dir = sys.argv[3]
from mmengine.hooks import Hook
from pathzoo.engine import Runner
runner = Runner.from_cfg(config)
mark("build the Runner and the model")
runner.train_loop, runner.val_loop
mark("scan and split the data")
class First(Hook):
    def after_train_iter(self, *arguments, **more):
        mark("first iteration")
        print(json.dumps([(name, now - marks[n][1]) for n, (name, now) in enumerate(marks[1:])]), flush=True)
        raise SystemExit(0)
runner.register_hook(First())
runner.train()
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns 0."""
    arguments = _parser().parse_args(argv)
    where = machine()
    with tempfile.TemporaryDirectory(prefix="pathzoo-benchmark-") as folder:
        case = _Case(arguments, Path(folder))
        arms: dict[str, Callable[[], float]] = {"pass": case.nothing, "help": case.help}
        if not arguments.help_only:
            arms |= {"peer": case.peer, "train": case.train, "anew": case.train_anew}
        values = in_turns(arms, arguments.rounds)
        parts = [] if arguments.help_only else [case.parts() for _ in range(arguments.rounds + 1)][1:]
    note = f"Medians (range) of {arguments.rounds} rounds in turns, after one to warm up. {where}."
    publish(_tables(values, parts), note, arguments.markdown)
    return 0


class _Case:
    """The commands, with the data and the folders that they need."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.config, self.folder, self.network = arguments.config, folder, arguments.network
        self.size, self.batch = arguments.size, arguments.batch_size
        self.data = arguments.data_root or folder / "data"
        if arguments.data_root is None and not arguments.help_only:
            from pathzoo.datasets.phantom import write_breakhis

            write_breakhis(self.data, patients=arguments.patients, images_per_patient=6)
        self.cache = folder / "cache"
        more = {"NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONUNBUFFERED": "1", "PATHZOO_CACHE": str(self.cache)}
        self.environment = os.environ | more
        self.options = {
            "data_root": str(self.data),
            "default_hooks.logger.interval": 1,
            "train_dataloader.batch_size": self.batch,
        }

    def nothing(self) -> float:
        return self._seconds([sys.executable, "-c", "pass"])

    def help(self) -> float:
        command = Path(sys.executable).with_name("pathzoo")  # the script that installing puts beside Python
        words = [str(command)] if command.is_file() else [sys.executable, "-m", "pathzoo"]
        return self._seconds([*words, "--help"])

    def peer(self) -> float:
        # The layout ends in .../breast/{benign,malignant}/...; ImageFolder takes the folder of the classes.
        classes = next(self.data.rglob("benign")).parent
        words = [str(classes), self.network, str(self.size), str(self.batch)]
        return self._seconds([sys.executable, "-c", _PEER, *words], until="done")

    def train(self) -> float:
        options = [f"{key}={value}" for key, value in self.options.items()]
        work_dir = self._new_folder()
        command = [sys.executable, str(_TRAIN), self.config, "--work-dir", work_dir, "--cfg-options", *options]
        return self._seconds(command, until="Epoch(train)")

    def train_anew(self) -> float:
        shutil.rmtree(self.cache, ignore_errors=True)
        return self.train()

    def parts(self) -> list[tuple[str, float]]:
        command = [sys.executable, "-c", _PARTS, self.config, json.dumps(self.options), self._new_folder()]
        found = _run(command, "[[", self.environment)[1]
        return [(name, seconds) for name, seconds in json.loads(found)]

    def _seconds(self, command: list[str], until: str | None = None) -> float:
        return _run(command, until, self.environment)[0]

    def _new_folder(self) -> str:
        return tempfile.mkdtemp(prefix="run-", dir=self.folder)


def _run(command: list[str], until: str | None, environment: dict[str, str]) -> tuple[float, str]:
    """Seconds until a line of the output holds `until` (or the process ends, without it), and that line."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,  # so that a run's loader processes end with it
    )
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if until is not None and until in line:
            seconds = time.perf_counter() - started
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return seconds, line
    code = process.wait()
    if code or until is not None:
        raise SystemExit(f"{' '.join(command[:3])} ... ended with {code}:\n{''.join(seen[-15:])}")
    return time.perf_counter() - started, ""


def _tables(values: dict[str, list[float]], parts: list[list[tuple[str, float]]]) -> list[Table]:
    base = {"pass": "pass", "help": "pass", "peer": "peer", "train": "peer", "anew": "peer"}
    rows = [
        (_NAMES[key], spread(found).show(), _LETTERS[base[key]], ratio(found, values[base[key]]).show())
        for key, found in values.items()
    ]
    tables = [Table("From command to result (aim: pathzoo --help under 0.3 s)", ("", "s", "against", "ratio"), rows)]
    if parts:
        names = [name for name, _ in parts[0]]
        times = [[one[number][1] for one in parts] for number in range(len(names))]
        lines = [(name, spread(found).show()) for name, found in zip(names, times, strict=True)]
        lines.append(("sum", spread([sum(seconds for _, seconds in one) for one in parts]).show()))
        tables.append(Table("What tools/train.py does until then, images scanned before", ("", "s"), lines))
    return tables


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--config", default=_CONFIG, help="a config of BreakHis's kind; the small phantom one by default"
    )
    parser.add_argument("--data-root", type=Path, help="images in BreakHis's tree; a phantom cohort where not given")
    parser.add_argument("--patients", type=int, default=30, help="of the phantom cohort, six images each")
    parser.add_argument("--network", default="resnet10t", help="timm's name, for the peer: that of the config")
    parser.add_argument("--size", type=int, default=224, help="height and width of the peer's crops in pixels")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--help-only", action="store_true", help="only `pathzoo --help`")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
