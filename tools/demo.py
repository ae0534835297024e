"""The whole path on phantom data, in about two minutes on two cores: what `make demo` runs.

Draws a phantom BreakHis cohort and a phantom slide, trains, tests, publishes into a zoo of its own, verifies, loads by
name, predicts images and the slide, and prints what came of it. Every step is the command that a user would type.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pathzoo.datasets.phantom import write_breakhis, write_slide
from pathzoo.evaluation.table import format_rows
from pathzoo.fileio import write_json

_TOOLS = Path(__file__).resolve().parent
_CONFIG = _TOOLS.parent / "configs/breakhis_xception/full_resnet10t_1xb16_20e_phantom40x_small.py"
_NAME = "phantom-resnet10t-demo"
_CARD = {
    "description": "ResNet-10t trained from scratch on a phantom BreakHis cohort by `make demo`: it shows the path.",
    "organ": "breast",
    "stain": "H&E (drawn)",
    "licence": "Apache-2.0",
    "commercial_use": True,
    "intended_use": "Trying pathzoo out.",
    "limits": "It has never seen tissue. Its probabilities mean nothing on a real slide.",
}
#: The config's network and schedule on tiles of half the resolution: a quarter of the work, and the phantom's classes
#: are told apart as well.
_SIDE, _MPP = 112, 1.96
HALF_RESOLUTION = {
    "model_input.tile_size": (_SIDE, _SIDE),
    "model_input.mpp": _MPP,
    "train_dataloader.dataset.pipeline.2.transforms.0.height": _SIDE,
    "train_dataloader.dataset.pipeline.2.transforms.0.width": _SIDE,
    **{f"{part}_dataloader.dataset.pipeline.2.size": _SIDE for part in ("val", "test")},
    **{f"{part}_dataloader.dataset.pipeline.1.mpp": _MPP for part in ("train", "val", "test")},
}
_SHOWN = ("accuracy", "balanced_accuracy", "roc_auc", "recognition_rate")


def main() -> int:
    """Runs every step; the first that fails ends the demo with its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/demo"))
    parser.add_argument("--seed", type=int, default=0, help="of the phantom and of the training")
    parser.add_argument("--patients", type=int, default=48)
    parser.add_argument("--shuffle-labels", action="store_true", help="control: labels dealt at random among patients")
    arguments = parser.parse_args()
    folder: Path = arguments.work_dir
    shutil.rmtree(folder, ignore_errors=True)
    started = time.time()
    console = Console(soft_wrap=True)
    try:
        _run(folder, arguments, console)
    except subprocess.CalledProcessError as error:
        return error.returncode
    _report(folder, console, time.time() - started)
    return 0


def _run(folder: Path, arguments: argparse.Namespace, console: Console) -> None:
    data, run, zoo = folder / "data", folder / "run", folder / "zoo"
    with _step(console, "1/8 draw a phantom cohort and a phantom slide"):
        write_breakhis(
            data,
            seed=arguments.seed,
            patients=arguments.patients,
            images_per_patient=4,
            shuffle_labels=arguments.shuffle_labels,
            progress=_progress(console),
        )
        write_slide(folder / "phantom_slide.svs", seed=arguments.seed)
    options = ["--cfg-options", f"data_root={data}", *(f"{key}={value}" for key, value in HALF_RESOLUTION.items())]
    seed = ["--seed", str(arguments.seed)]
    with _step(console, "2/8 train"):
        _python("train.py", _CONFIG, "--work-dir", run, *seed, *options, log=folder / "train.log", watch=console)
    with _step(console, "3/8 test on patients that training has not seen"):
        _python("test.py", _CONFIG, "--work-dir", run, *options, log=folder / "test.log")
    checkpoint = next(iter(sorted(run.glob("best_*.pth"))))
    write_json(folder / "card.json", _CARD)
    with _step(console, "4/8 publish into a zoo folder"):
        publish = (checkpoint, "--run", run, "--name", _NAME, "--card", folder / "card.json", "--out", zoo)
        _python("publish_model.py", *publish, log=folder / "publish.log")
    os.environ["PATHZOO_ZOO"] = str(zoo)
    with _step(console, "5/8 verify: digests, config, identifiers, golden outputs"):
        _pathzoo("verify", _NAME, "--golden", log=folder / "verify.log")
    images = sorted(data.rglob("*.png"))[:: max(1, len(list(data.rglob("*.png"))) // 12)]
    with _step(console, "6/8 load by name and predict images"):
        _pathzoo(
            "predict", "-i", *images, "-m", _NAME, "-o", folder / "images", "--mpp", "0.98", log=folder / "images.log"
        )
    with _step(console, "7/8 predict the slide"):
        slide = folder / "phantom_slide.svs"
        _pathzoo("predict", "-i", slide, "-m", _NAME, "-o", folder / "slides", log=folder / "slides.log")
    with _step(console, "8/8 list the zoo"):
        _pathzoo("list", "--json", log=folder / "list.json")


def _report(folder: Path, console: Console, seconds: float) -> None:
    metrics = json.loads((folder / "run/metrics.json").read_text())
    rows = [row for row in metrics["rows"] if row["metric"] in _SHOWN]
    console.print(format_rows(rows, title="Unseen phantom patients"))
    with (folder / "slides/phantom_slide/tiles.csv").open(newline="") as file:
        tiles = sum(1 for _ in csv.DictReader(file))
    written = Table("file", "what it is", title="Files written", title_justify="left")
    for path, what in (
        (f"zoo/{_NAME}/1.0.0", "the published model: model.safetensors, model.json, card"),
        ("run/metrics.json", "metrics of the test patients; plots and curves in run/test"),
        ("images/predictions.csv", "probabilities of a dozen images"),
        ("slides/phantom_slide/tiles.csv", f"probabilities of {tiles} tiles of the slide"),
        ("slides/phantom_slide/prediction.geojson", "drag it onto the slide in QuPath"),
        ("slides/phantom_slide/overlay.png", "the heat map to look at"),
    ):
        if not (folder / path).exists():
            raise SystemExit(f"demo: {folder / path} was not written")
        written.add_row(str(folder / path), what)
    console.print(written)
    console.print(f"The demo took {seconds:.0f} s.")


class _step:  # noqa: N801  # used as a statement: `with _step(...)`
    """Prints a title, and the seconds when the step is done."""

    def __init__(self, console: Console, title: str) -> None:
        self._console, self._title = console, title

    def __enter__(self) -> None:
        self._console.print(f"[bold]{self._title}[/bold] ...", highlight=False)
        self._started = time.time()

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._console.print(f"    done in {time.time() - self._started:.0f} s", highlight=False)


def _progress(console: Console):
    def show(done: int, total: int) -> None:
        if done % 30 == 0 or done == total:
            console.print(f"    {done}/{total} images", highlight=False)

    return show


def _pathzoo(*words: object, log: Path) -> None:
    _execute([sys.executable, "-m", "pathzoo", *map(str, words)], log)


def _python(tool: str, *words: object, log: Path, watch: Console | None = None) -> None:
    _execute([sys.executable, str(_TOOLS / tool), *map(str, words)], log, watch)


def _execute(command: list[str], log: Path, watch: Console | None = None) -> None:
    """Runs a command; its output goes to `log`, lines of finished validations to `watch` too."""
    environment = os.environ | {"NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONUNBUFFERED": "1"}
    # Threads that wait asleep: on cores that something else uses too, busy waiting makes a step six times as long.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            if watch and "Epoch(val)" in line:
                watch.print("    epoch " + line.split("Epoch(val)")[1].strip()[:60], highlight=False, markup=False)
        process.wait()
    if process.returncode:
        print("".join(log.read_text().splitlines(keepends=True)[-20:]), file=sys.stderr)
        print(f"demo: {' '.join(command)} ended with {process.returncode}; its output is in {log}", file=sys.stderr)
        raise subprocess.CalledProcessError(process.returncode, command)


if __name__ == "__main__":
    sys.exit(main())
