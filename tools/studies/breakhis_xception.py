"""Study 3: BreakHis, benign or malignant. Its arms, at three scales, and its table.

Every arm is a k-fold over patients, so that each image is tested once by a model that has not seen its patient; the
metrics are taken over the pooled predictions and their intervals over patients. Arms that say "by image" split as the
paper does, once: images of one patient stand on both sides, and the score is inflated by it.
"""

import hashlib
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pathzoo._version import __version__
from pathzoo.apis.config import load_config
from pathzoo.apis.options import parse_options
from pathzoo.apis.setup import setup
from pathzoo.apis.test import test
from pathzoo.apis.train import train
from pathzoo.errors import DataError
from pathzoo.evaluation.report import Predictions, read_predictions, write_evaluation
from pathzoo.fileio import canonical_json, sha256_bytes
from pathzoo.registry import DATASETS
from studies.initial_weights import digest_of, not_run, refuse_unused, weights_files
from studies.results import KEYS, Results, chosen_arms, chosen_seeds, comparable, metric_columns, shown

#: (metric, level) of the columns in results.csv.
METRICS = (
    ("accuracy", "image"),
    ("balanced_accuracy", "image"),
    ("sensitivity", "image"),
    ("specificity", "image"),
    ("roc_auc", "image"),
    ("ece", "image"),
    ("recognition_rate", "patient"),
    ("recognition_rate", "slide"),
)
_FOLDS = 5
_PAPER = {40: 96.47, 100: 98.30, 200: 96.31, 400: 91.06}


@dataclass(frozen=True)
class Arm:
    """One line of the table: a config with options. `network` names the ImageNet weights that it starts from."""

    name: str
    config: str
    network: str | None = None
    paper: str = "–"
    shuffled: bool = False
    by_image: bool = False


_LITE = "breakhis_xception/full_efficientnet-lite0_1xb16_20e_breakhisall_small.py"
_LITE_MPP = "breakhis_xception/full_efficientnet-lite0_1xb16_20e_breakhis40x100x-mpp07_small.py"
_TINY = "breakhis_xception/full_resnet10t_1xb16_20e_phantom40x_small.py"
_BY_IMAGE: dict[str, Any] = {"scheme": "by_image_leaky", "ratios": {"train": 0.6, "val": 0.2, "test": 0.2}}

_XCEPTION = tuple(
    Arm(
        f"Xception, ImageNet, top 4 layers, {magnification}X{', by image' if by_image else ''}",
        f"breakhis_xception/top4_xception_1xb32_50e_breakhis{magnification}x_299.py",
        network="legacy_xception",
        paper=f"{accuracy:.2f}" if by_image else "–",
        by_image=by_image,
    )
    for magnification, accuracy in _PAPER.items()
    for by_image in (False, True)
)
_REAL = (
    Arm("EfficientNet-Lite0, from scratch, all images", _LITE),
    Arm("EfficientNet-Lite0, ImageNet, all images", _LITE, network="tf_efficientnet_lite0"),
    Arm("EfficientNet-Lite0, ImageNet, all images, by image", _LITE, network="tf_efficientnet_lite0", by_image=True),
    Arm("EfficientNet-Lite0, ImageNet, 40X + 100X at 0.7 um/px", _LITE_MPP, network="tf_efficientnet_lite0"),
    *_XCEPTION,
)
_PHANTOM = (Arm("ResNet-10t, from scratch", _TINY), Arm("ResNet-10t, labels shuffled (control)", _TINY, shuffled=True))


def arms(scale: str, phantom: bool) -> tuple[Arm, ...]:
    """The arms of a scale."""
    if phantom:
        return _PHANTOM
    return _XCEPTION if scale == "paper" else _REAL


def run(arguments: Namespace, results: Results, folder: Path) -> None:
    """Runs every arm and seed that has no row yet.

    Raises:
        ConfigError, DataError: A weights file that is missing or that no arm takes, an unknown arm, a data folder that
            cannot be read.
    """
    setup()
    phantom = arguments.data_root == "phantom"
    weights = weights_files(arguments.weights)
    every = arms(arguments.scale, phantom)
    refuse_unused(weights, {arm.network for arm in every if arm.network})
    chosen = chosen_arms(arguments, every, every)
    for seed in chosen_seeds(arguments, phantom):
        for arm in chosen:
            root = _draw(folder, seed, arm.shuffled, arguments.scale) if phantom else Path(arguments.data_root)
            _run_arm(arm, seed, root, weights, arguments, results, folder)


def _run_arm(
    arm: Arm, seed: int, root: Path, weights: dict[str, Path], arguments: Namespace, results: Results, folder: Path
) -> None:
    scale = arguments.scale
    options = parse_options(arguments.cfg_options) | _scale_options(scale)
    config = load_config(arm.config, options)
    row: dict[str, Any] = {
        "scale": scale,
        "data": arguments.data_name or ("phantom" if (root / "phantom.json").exists() else "real"),
        "arm": arm.name,
        "seed": seed,
        "config_digest": _config_digest(config, digest_of(arm.network, weights)),
        "data_digest": _data_digest(config, root),
        "pathzoo": __version__,
    }
    if arm.network and arm.network not in weights:
        row |= not_run(arm.network)
        if not results.has(row):
            results.append(row)
        return
    if results.has(row | {"status": "done"}):
        print(f"{arm.name}, seed {seed}: has its row")
        return
    options |= {"data_root": str(root)} | (
        {"split": _BY_IMAGE | {"seed": seed}} if arm.by_image else {"split_seed": seed}
    )
    if arm.network:
        options["model.backbone.pretrained"] = str(weights[arm.network])
    digest = sha256_bytes(canonical_json([row[key] for key in KEYS]))[:12]
    pooled = []
    folds = 1 if arm.by_image else 2 if scale == "smoke" else _FOLDS
    for fold in range(folds):
        work = folder / digest / f"fold{fold}"
        print(f"{arm.name}, seed {seed}: fold {fold + 1} of {folds}, in {work}", flush=True)
        if not (work / "test" / "predictions.csv").exists():
            fold_options = options if arm.by_image else options | {"fold": fold}
            train(arm.config, work, resume=True, options=fold_options, seed=seed)
            test(arm.config, work_dir=work, options=fold_options)
        pooled.append(read_predictions(work / "test" / "predictions.csv"))
    predictions = _pool(pooled)
    subset = "test, by image" if arm.by_image else f"{folds}-fold cross-validation by patient"
    about = {"subset": subset, "dataset": "BreakHis", "split": "by_image_leaky" if arm.by_image else "patient_kfold"}
    rows = write_evaluation(folder / digest / "pooled", **vars(predictions), extra=about)
    known = {patient for patient in predictions.patients if patient is not None}
    row |= {
        "status": "done",
        "n_images": len(predictions.labels),
        "n_patients": len(known),
        **metric_columns(rows, METRICS),
    }
    results.append(row)


def _pool(folds: list[Predictions]) -> Predictions:
    """The folds' predictions as one; an image that two folds tested would count twice, so it is refused."""
    items = [item for fold in folds for item in fold.items]
    if len(set(items)) != len(items):
        raise DataError(f"{len(items) - len(set(items))} images were tested in two folds; the folds overlap")
    return Predictions(
        probs=np.concatenate([fold.probs for fold in folds]),
        labels=np.concatenate([fold.labels for fold in folds]),
        items=items,
        patients=[patient for fold in folds for patient in fold.patients],
        slides=[slide for fold in folds for slide in fold.slides],
        classes=folds[0].classes,
    )


def table(rows: list[dict[str, str]]) -> str:
    """The rows as markdown, those that are `comparable`; the paper's accuracy beside ours."""
    newest, left_out = comparable(rows)
    paper = {arm.name: arm.paper for arm in (*_REAL, *_PHANTOM)}
    lines = [
        "| data | arm | seed | images | patients | accuracy | balanced accuracy | AUC | recognition rate, patients "
        "| recognition rate, slides | paper, % |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in newest:
        if row["status"] != "done":
            cells = [f"not run: {row['note']}", "", "", "", "", "", ""]
        else:
            measured = ("accuracy", "image"), ("balanced_accuracy", "image"), ("roc_auc", "image")
            rates = ("recognition_rate", "patient"), ("recognition_rate", "slide")
            cells = [row["n_images"], row["n_patients"], *(shown(row, *metric) for metric in (*measured, *rates))]
        lines.append(
            "| " + " | ".join([row["data"], row["arm"], row["seed"], *cells, paper.get(row["arm"], "–")]) + " |"
        )
    return "\n".join(lines) + (f"\n\n{left_out}" if left_out else "")


def _scale_options(scale: str) -> dict[str, Any]:
    return {"train_cfg.max_epochs": 1} if scale == "smoke" else {}


def _draw(folder: Path, seed: int, shuffled: bool, scale: str) -> Path:
    from pathzoo.datasets.phantom import write_breakhis

    root = folder / "data" / f"phantom{seed}{'-shuffled' if shuffled else ''}"
    if not (root / "whole").exists():
        patients, images = (10, 1) if scale == "smoke" else (48, 4)
        write_breakhis(root, seed=seed, patients=patients, images_per_patient=images, shuffle_labels=shuffled)
        (root / "whole").touch()
    return root


def _config_digest(config: Any, weights: str) -> str:
    """Of the resolved config without the data's place, and of the weights' bytes: the same on every machine."""
    return hashlib.sha256((config.pretty_text + weights).encode()).hexdigest()[:16]


def _data_digest(config: Any, root: Path) -> str:
    """Of every image that the arm may see, with its label."""
    dataset = config.to_dict()["test_dataloader"]["dataset"]
    cfg = {key: value for key, value in dataset.items() if key in ("magnification", "task", "on_bad_image")}
    built = DATASETS.build(
        {"type": "BreakHis", "data_root": str(root), "split": {"scheme": "none"}, "subset": "all", **cfg}
    )
    return built.data_digest[:16]
