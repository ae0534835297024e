"""Study 1: breast lesions with few labels. Its arms, at three scales, and its table.

Every arm takes the same number of steps on the same regions, of which only the labels differ: all of them, 35 %, or
35 % and what the method makes of the rest; each also with a part of the training labels made inconsistent. Tested is
the moving average of the last weights, on patients that no arm has seen. Phantoms are drawn anew for each seed; on real
data (a folder as `tools/dataset_converters/annotations_to_regions.py` writes it) a seed is another split.

The arm "label review" cross-fits the supervised network to labels of which a fifth of the regions is inconsistent, and
counts how many of those stand in the first fifth of its ranking.
"""

import hashlib
import json
import shutil
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathzoo._version import __version__
from pathzoo.apis.config import load_config
from pathzoo.apis.cross_fit import cross_fit
from pathzoo.apis.options import parse_options
from pathzoo.apis.setup import setup
from pathzoo.apis.test import test
from pathzoo.apis.train import train
from pathzoo.evaluation.functional.label_review import found_in_first
from pathzoo.evaluation.label_review import review, review_source, swapped_on_purpose
from pathzoo.fileio import canonical_json, sha256_bytes
from pathzoo.registry import DATASETS
from studies.initial_weights import digest_of, network_of, not_run, refuse_unused, weights_files
from studies.results import KEYS, Results, chosen_arms, chosen_seeds, metric_columns
from studies.self_training_table import table

__all__ = ["ARMS", "METRICS", "Arm", "run", "table"]

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
    ("iou_tumour", "pixel"),  # of data with tumour and the rest
    ("miou", "patch"),
    ("miou", "region"),
    ("flipped_in_first_fifth", "region"),
)
_FRACTION, _FLIPPED = 0.35, 0.2
#: Models that a label review is cross-fitted by.
_FOLDS = 4
#: 15 patients train, of whom 5 keep their labels, and 30 test, so that figures do not hang on a handful of patients. A
#: fifth of 15 and of 5 is a whole number of regions.
_PHANTOM_SPLIT = {
    "scheme": "patient_ratio",
    "ratios": {"train": 1 / 3, "test": 2 / 3},
    "label_balance": "proportional",
}
_PHANTOM = {"patients": 45, "regions_per_patient": 1, "size": (192, 144), "mpp": 2.0, "difficulty": 0.2}
_KINDS = ("supervised", "selftraining", "fixmatch")
_SMALL = {kind: f"self_training/{kind}_resnest14d-unet_1xb8_48e_breastlesions_small.py" for kind in _KINDS}
_PAPER = {kind: f"self_training/{kind}_resnest50d-unet_1xb16_60e_breastlesions_256.py" for kind in _KINDS}


@dataclass(frozen=True)
class Arm:
    """One line of the table: a kind of training, or "review", with options. `flipped`: share of inconsistent labels."""

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


_REVIEW = Arm(f"label review, {_FLIPPED:.0%} inconsistent".replace("%", " %"), "review", 1.0, _FLIPPED)
ARMS = (*_arms(0.0), *_arms(_FLIPPED), _REVIEW)
#: One arm of every kind.
_SMOKE = tuple(arm for arm in (*_arms(0.0), _REVIEW) if arm.policy is None)


def run(arguments: Namespace, results: Results, folder: Path) -> None:
    """Runs every arm and seed that has no row yet.

    Raises:
        ConfigError, DataError: An unknown arm, a weights file that is missing or that no arm takes, a data folder that
            cannot be read.
    """
    setup()
    phantom = arguments.data_root == "phantom"
    weights = weights_files(arguments.weights)
    chosen = chosen_arms(arguments, ARMS, _SMOKE if arguments.scale == "smoke" else ARMS)
    for seed in chosen_seeds(arguments, phantom):
        root = _draw(folder, seed, arguments.scale) if phantom else Path(arguments.data_root)
        for arm in chosen:
            _run_arm(arm, seed, root, weights, arguments, results, folder)


def _run_arm(
    arm: Arm, seed: int, root: Path, weights: dict[str, Path], arguments: Namespace, results: Results, folder: Path
) -> None:
    scale = arguments.scale
    file = (_PAPER if scale == "paper" else _SMALL)["supervised" if arm.kind == "review" else arm.kind]
    # The user's first: a split of theirs has to be there before an arm sets its label_fraction in it.
    given = parse_options(arguments.cfg_options)
    if arguments.data_root == "phantom":
        given = {"split": _PHANTOM_SPLIT} | given
    if isinstance(given.get("split"), dict):
        given["split"] = {"label_fraction": 1.0, "seed": 0} | given["split"]  # keys that arms and seeds set
    options = given | _options(arm, scale)
    config = load_config(file, options)
    network = network_of(config)
    refuse_unused(weights, {network} - {None})
    row: dict[str, Any] = {
        "scale": scale,
        "data": arguments.data_name or ("phantom" if (root / "phantom.json").exists() else "real"),
        "arm": arm.name,
        "seed": seed,
        "config_digest": hashlib.sha256((config.pretty_text + digest_of(network, weights)).encode()).hexdigest()[:16],
        "data_digest": _data_digest(root, config),
        "pathzoo": __version__,
    }
    if network and network not in weights:
        row |= not_run(network)
        if not results.has(row):
            results.append(row)
        return
    if results.has(row | {"status": "done"}):
        print(f"{arm.name}, seed {seed}: has its row")
        return
    options |= {"data_root": str(root), "split_seed": seed}
    if network:
        options["model.backbone.pretrained"] = str(weights[network])
    work = folder / sha256_bytes(canonical_json([row[key] for key in KEYS]))[:12]
    print(f"{arm.name}, seed {seed}: in {work}", flush=True)
    measure = _review if arm.kind == "review" else _train_and_test
    results.append(row | {"status": "done"} | measure(file, work, options, seed, scale))
    if not arguments.keep:
        for part in (work / "predictions", *(work / "pseudo_labels").glob("round_*")):  # megabytes; the audit stays
            shutil.rmtree(part, ignore_errors=True)


def _train_and_test(file: str, work: Path, options: dict[str, Any], seed: int, scale: str) -> dict[str, Any]:
    """The columns of an arm that is trained and tested."""
    if not (work / "test" / "metrics.json").exists():
        train(file, work, resume=True, options=options, seed=seed, no_validate=scale != "paper")
        test(file, work_dir=work, options=options)
    found = json.loads((work / "test" / "metrics.json").read_text(encoding="utf-8"))
    counts = {"n_images": found["n_regions"], "n_patients": found["n_patients"]}
    return counts | metric_columns(found["rows"], METRICS)


def _review(file: str, work: Path, options: dict[str, Any], seed: int, scale: str) -> dict[str, Any]:
    """The columns of a label review: of the regions whose classes were exchanged, those in its first fifth."""
    folds = 2 if scale == "smoke" else _FOLDS
    fitted = cross_fit(file, work, folds, options, seed=seed, progress=print)
    dataset = fitted.dataset
    found = review(review_source(dataset, fitted.predictions), background=dataset.metainfo["classes"][0])
    share = found_in_first(found.suspicion, swapped_on_purpose(dataset))
    patients = {region.patient for region in dataset.regions} - {None}
    value = {"flipped_in_first_fifth_region": f"{share:.4f}"}
    return {"n_images": len(dataset.regions), "n_patients": len(patients), **value}


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


def _draw(folder: Path, seed: int, scale: str) -> Path:
    from pathzoo.datasets.phantom import write_regions

    what = _PHANTOM | ({"patients": 9} if scale == "smoke" else {})
    root = folder / "data" / f"phantom{seed}-{sha256_bytes(canonical_json(what))[:8]}"
    if not (root / "whole").exists():
        write_regions(root, seed=seed, **what)
        (root / "whole").touch()
    return root


def _data_digest(root: Path, config: Any) -> str:
    """Of every image and mask that the arm may see."""
    dataset = config.to_dict()["test_dataloader"]["dataset"]
    kept = ("ann_file", "classes", "palette", "value_map", "mpp", "on_bad_image")
    cfg = {key: dataset[key] for key in kept if key in dataset}
    built = DATASETS.build({"type": "BreastLesions", "data_root": str(root), "subset": "all", **cfg})
    return str(built.data_digest)[:16]
