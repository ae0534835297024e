"""Study 1: breast lesions with few labels. Its arms, at three scales, and its table.

Every arm takes the same number of steps on the same regions, of which only the labels differ: all of them, 35 %, or
35 % and what the method makes of the rest; each also with a part of the training labels made inconsistent. Tested is
the moving average of the last weights, on patients that no arm has seen. Phantoms are drawn anew for each seed; on real
data (a folder as `tools/dataset_converters/annotations_to_regions.py` writes it) a seed is another split.
"""

import hashlib
import json
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathzoo._version import __version__
from pathzoo.apis.config import load_config
from pathzoo.apis.setup import setup
from pathzoo.apis.test import test
from pathzoo.apis.train import train
from pathzoo.errors import ConfigError
from pathzoo.fileio import canonical_json, sha256_bytes
from pathzoo.registry import DATASETS
from studies.results import KEYS, Results, metric_columns, shown

#: (metric, level) of the columns in results.csv.
METRICS = (
    ("miou", "pixel"),
    ("miou_micro", "pixel"),
    ("f1", "pixel"),
    ("f1_micro", "pixel"),
    ("accuracy", "pixel"),
    ("pixel_accuracy", "pixel"),
    ("iou_normal", "pixel"),
    ("iou_benign", "pixel"),
    ("iou_malignant", "pixel"),
    ("miou", "patch"),
    ("miou", "region"),
)
_FRACTION, _FLIPPED = 0.35, 0.2
_KINDS = ("supervised", "selftraining", "fixmatch")
_SMALL = {kind: f"self_training/{kind}_resnest14d-unet_1xb8_24e_breastlesions_small.py" for kind in _KINDS}
_PAPER = {kind: f"self_training/{kind}_resnest50d-unet_1xb16_60e_breastlesions_256.py" for kind in _KINDS}
#: What the study prints: mIoU, F1, accuracy; whether micro or macro it does not say.
_PRINTED = {"supervised, 100 %": "0.97 / 0.98 / 0.99", "self-training, 35 %, all pixels (study)": "0.93 / 0.95 / 0.98"}


@dataclass(frozen=True)
class Arm:
    """One line of the table: a kind of training with options. `flipped` is the share of inconsistent labels."""

    name: str
    kind: str
    fraction: float = _FRACTION
    flipped: float = 0.0
    policy: Any = None


def _arms(flipped: float) -> tuple[Arm, ...]:
    end = f", {flipped:.0%} inconsistent".replace("%", " %") if flipped else ""
    return (
        Arm(f"supervised, 100 %{end}", "supervised", 1.0, flipped),
        Arm(f"supervised, 35 %{end}", "supervised", flipped=flipped),
        Arm(f"self-training, 35 %{end}", "selftraining", flipped=flipped),
        Arm(f"self-training, 35 %, all pixels (study){end}", "selftraining", flipped=flipped, policy="all"),
        Arm(f"FixMatch, 35 %{end}", "fixmatch", flipped=flipped),
    )


ARMS = (*_arms(0.0), *_arms(_FLIPPED))


def run(arguments: Namespace, results: Results, folder: Path) -> None:
    """Runs every arm and seed that has no row yet.

    Raises:
        ConfigError, DataError: An unknown arm, a data folder that cannot be read.
    """
    setup()
    phantom = arguments.data_root == "phantom"
    chosen = ARMS[:3] if arguments.scale == "smoke" else ARMS
    if arguments.arms:
        unknown = set(arguments.arms) - {arm.name for arm in ARMS}
        if unknown:
            raise ConfigError(f"--arms: no arm {sorted(unknown)}; there are {[arm.name for arm in ARMS]}")
        chosen = tuple(arm for arm in ARMS if arm.name in arguments.arms)
    first = arguments.first_seed if arguments.first_seed is not None else (100 if phantom else 0)
    for seed in range(first, first + arguments.seeds):
        root = _draw(folder, seed, arguments.scale) if phantom else Path(arguments.data_root)
        for arm in chosen:
            _run_arm(arm, seed, root, arguments.scale, results, folder)


def _run_arm(arm: Arm, seed: int, root: Path, scale: str, results: Results, folder: Path) -> None:
    file = (_PAPER if scale == "paper" else _SMALL)[arm.kind]
    options = _options(arm, scale)
    config = load_config(file, options)
    row: dict[str, Any] = {
        "scale": scale,
        "data": "phantom" if (root / "phantom.json").exists() else "real",
        "arm": arm.name,
        "seed": seed,
        "config_digest": hashlib.sha256(config.pretty_text.encode()).hexdigest()[:16],
        "data_digest": _data_digest(root),
        "pathzoo": __version__,
    }
    if results.has(row | {"status": "done"}):
        print(f"{arm.name}, seed {seed}: has its row")
        return
    options |= {"data_root": str(root), "split_seed": seed}
    work = folder / sha256_bytes(canonical_json([row[key] for key in KEYS]))[:12]
    print(f"{arm.name}, seed {seed}: in {work}", flush=True)
    if not (work / "test" / "metrics.json").exists():
        train(file, work, resume=True, options=options, seed=seed, no_validate=scale != "paper")
        test(file, work_dir=work, options=options)
    found = json.loads((work / "test" / "metrics.json").read_text(encoding="utf-8"))
    counts = {"n_images": found["n_regions"], "n_patients": found["n_patients"]}
    results.append(row | {"status": "done", **counts, **metric_columns(found["rows"], METRICS)})


def _options(arm: Arm, scale: str) -> dict[str, Any]:
    options: dict[str, Any] = {"label_fraction": arm.fraction}
    if arm.flipped:
        options["label_noise"] = {"flip": arm.flipped, "swap": ("benign", "malignant"), "boundary": 0, "seed": 0}
    if arm.policy is not None:
        options["policy"] = arm.policy
    if scale == "smoke":
        options |= {"train_cfg.max_epochs": 2, "patches_per_epoch": 16}
        if arm.kind == "selftraining":
            options["rounds"] = [1]
    return options


def table(rows: list[dict[str, str]]) -> str:
    """The rows as markdown: the newest of each (scale, data, arm, seed), the study's figures beside ours."""
    newest = {(row["scale"], row["data"], row["arm"], row["seed"]): row for row in rows}
    lines = [
        "| data | arm | seed | regions | patients | mIoU | mIoU, micro | F1 | F1, micro | accuracy | IoU normal "
        "| IoU benign | IoU malignant | the study: mIoU / F1 / accuracy |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in newest.values():
        if row["status"] != "done":
            cells = [f"not run: {row['note']}", *[""] * 9]
        else:
            names = ("miou", "miou_micro", "f1", "f1_micro", "accuracy", "iou_normal", "iou_benign", "iou_malignant")
            cells = [row["n_images"], row["n_patients"], *(shown(row, name, "pixel") for name in names)]
        printed = _PRINTED.get(row["arm"], "–")
        lines.append("| " + " | ".join([row["data"], row["arm"], row["seed"], *cells, printed]) + " |")
    return "\n".join(lines)


def _draw(folder: Path, seed: int, scale: str) -> Path:
    from pathzoo.datasets.phantom import write_regions

    root = folder / "data" / f"phantom{seed}"
    if not (root / "whole").exists():
        patients, size = (8, (256, 192)) if scale == "smoke" else (24, (768, 576))
        write_regions(root, seed=seed, patients=patients, regions_per_patient=1 if scale == "smoke" else 2, size=size)
        (root / "whole").touch()
    return root


def _data_digest(root: Path) -> str:
    """Of every image and mask that the arm may see."""
    built = DATASETS.build({"type": "BreastLesions", "data_root": str(root), "subset": "all"})
    return str(built.data_digest)[:16]
