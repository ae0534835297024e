"""Study 4: every glomerulus of a kidney biopsy, tile by tile and slide by slide. Its arms, at three scales.

An arm is a detector. It is trained on the tiles of the training patients, the epoch of the highest COCO AP on those of
the validation patients is kept, published and run over whole slides by `pathzoo predict`. Tested are the tiles of the
test patients, where a glomerulus counts in every tile that shows it (as the study presumably counts), and their slides,
where each counts once. The two thresholds of the slides, for the best F1 and for a recall of 0.99, are chosen on the
validation patients' slides; that of the tiles on the tested tiles themselves, as the study has no validation set.

At the paper's scale L and XL begin with COCO weights, as the study's do: a file of tools/analysis_tools/
convert_yolov5.py from `--weights yolov5l=FILE`, without which an arm reads "not run".

Phantom biopsies are drawn anew for each seed. On real data `--data-root` is a folder with slides/, annotations/ (QuPath
GeoJSON or ImageScope XML, class "glomerulus") and patients.csv (slide, patient), and a seed is another split.
"""

import hashlib
import json
import shutil
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathzoo._version import __version__
from pathzoo.apis.config import load_config
from pathzoo.apis.options import parse_options
from pathzoo.apis.predict import predict
from pathzoo.apis.setup import setup
from pathzoo.apis.test import test
from pathzoo.apis.train import train
from pathzoo.engine.checkpoint import chosen_checkpoint
from pathzoo.errors import DataError
from pathzoo.evaluation.detection_report import DetectionRules, DetectionSet, evaluate_detection
from pathzoo.evaluation.predicted_slides import read_predicted_slides
from pathzoo.evaluation.slide_detections import pair_slides, read_objects_file
from pathzoo.fileio import canonical_json, sha256_bytes
from pathzoo.registry import DATASETS
from pathzoo.wsi.annotated_boxes import write_box_tiles
from pathzoo.wsi.box_rules import BoxRules
from pathzoo.wsi.names import slide_name
from pathzoo.wsi.slide_objects import find_object_sources
from pathzoo.zoo.publish import publish_model
from studies.glomerulus_table import table
from studies.initial_weights import digest_of, not_run, refuse_unused, weights_files
from studies.results import KEYS, Results, chosen_arms, chosen_seeds, metric_columns

__all__ = ["ARMS", "METRICS", "Arm", "run", "table"]

#: (metric, level) of the columns in results.csv. `_at_chosen`: at the threshold of the best F1 on validation;
#: `_for_recall`: at the highest that reaches a recall of 0.99 there, or with every detection where none does.
METRICS = (
    ("ap", "tile"),
    ("ap50", "tile"),
    ("precision_at_best_f1", "tile"),
    ("recall_at_best_f1", "tile"),
    ("best_f1", "tile"),
    ("objects", "slide"),
    ("slides", "slide"),
    ("average_precision", "slide"),
    ("highest_recall", "slide"),
    ("best_f1", "slide"),
    *((f"{name}_{where}", "slide") for where in ("at_chosen", "for_recall") for name in ("precision", "recall", "f1")),
    ("false_positives_at_chosen", "slide"),
    ("false_positives_for_recall", "slide"),
)
CLASSES = ("glomerulus",)
#: 12 patients train, 4 validate, 8 test: a slide each, of about 20 glomeruli.
_PHANTOM: dict[str, Any] = {"patients": 24, "slides_per_patient": 1, "size": (2048, 1536), "mpp": 1.0}
_SMOKE_PHANTOM = {"patients": 6, "size": (1024, 900)}
#: Tiles of an epoch at the small scale, so that all seeds take equally many steps: about twice what there are.
_EPOCH = 224
#: The same field at the resolution of the study's models.
_PAPER_PHANTOM = {"size": (4096, 3072), "mpp": 0.5}
_PHANTOM_SPLIT = {"scheme": "patient_ratio", "ratios": {"train": 1 / 2, "val": 1 / 6, "test": 1 / 3}}
_CARD = {
    "description": "A detector of glomeruli, as a study trained it.",
    "licence": "CC0-1.0",
    "commercial_use": True,
    "limits": "Made by tools/reproduce.py for its own use.",
}


@dataclass(frozen=True)
class Arm:
    """One line of the table. `weights`: what `--weights` calls the file that it begins with."""

    name: str
    config: str
    scale: str
    weights: str | None = None


ARMS = (
    Arm("YOLOv5 N", "yolov5n_1xb8_40e_glomeruli_small.py", "small"),
    Arm("RTMDet tiny (peer)", "rtmdet-tiny_1xb8_40e_glomeruli_small.py", "small"),
    Arm("YOLOv5 L", "yolov5l_1xb8_300e_glomeruli_1600x1200.py", "paper", "yolov5l"),
    Arm("YOLOv5 XL", "yolov5x_1xb8_300e_glomeruli_1600x1200.py", "paper", "yolov5x"),
    Arm("RTMDet M (peer)", "rtmdet-m_1xb8_300e_glomeruli_1600x1200.py", "paper", "rtmdet-m"),
)


def run(arguments: Namespace, results: Results, folder: Path) -> None:
    """Runs every arm and seed that has no row yet.

    Raises:
        ConfigError, DataError: An unknown arm, a weights file that is missing or that no arm takes, a data folder that
            cannot be read.
    """
    setup()
    phantom = arguments.data_root == "phantom"
    weights = weights_files(arguments.weights)
    there = [arm for arm in ARMS if arm.scale == ("paper" if arguments.scale == "paper" else "small")]
    chosen = chosen_arms(arguments, there, there)
    refuse_unused(weights, {arm.weights for arm in chosen} - {None}, kind="COCO")
    for seed in chosen_seeds(arguments, phantom):
        ready = [arm for arm in chosen if not _lacks_weights(arm, seed, weights, arguments, results)]
        if ready:
            root = _draw(folder, seed, arguments.scale) if phantom else Path(arguments.data_root)
        for arm in ready:
            _run_arm(arm, seed, root, weights, arguments, results, folder)


def _lacks_weights(arm: Arm, seed: int, weights: dict[str, Path], arguments: Namespace, results: Results) -> bool:
    """Whether an arm cannot begin; its row then says so."""
    if not arm.weights or arm.weights in weights:
        return False
    config = load_config(f"glomerulus_yolov5/{arm.config}", _options(arguments))
    row = _row(arm, seed, arguments, _short(config.pretty_text), "") | not_run(arm.weights, "COCO")
    if not results.has(row):
        results.append(row)
    return True


def _row(arm: Arm, seed: int, arguments: Namespace, config_digest: str, data_digest: str) -> dict[str, Any]:
    drawn = arguments.data_root == "phantom" or (Path(arguments.data_root) / "phantom.json").exists()
    return {
        "scale": arguments.scale,
        "data": arguments.data_name or ("phantom" if drawn else "real"),
        "arm": arm.name,
        "seed": seed,
        "config_digest": config_digest,
        "data_digest": data_digest,
        "pathzoo": __version__,
    }


def _run_arm(
    arm: Arm, seed: int, root: Path, weights: dict[str, Path], arguments: Namespace, results: Results, folder: Path
) -> None:
    file = f"glomerulus_yolov5/{arm.config}"
    options = _options(arguments)
    config = load_config(file, options)
    tiles = _cut(root, config.to_dict()["model_input"], folder)
    data_digest = _dataset(file, {"data_root": str(tiles)}, "all").data_digest[:16]
    row = _row(arm, seed, arguments, _short(config.pretty_text + digest_of(arm.weights, weights)), data_digest)
    if results.has(row | {"status": "done"}):
        print(f"{arm.name}, seed {seed}: has its row")
        return
    options |= {"data_root": str(tiles), "split_seed": seed}
    if arm.weights:
        options["load_from"] = str(weights[arm.weights])
    work = folder / sha256_bytes(canonical_json([row[key] for key in KEYS]))[:12]
    print(f"{arm.name}, seed {seed}: in {work}", flush=True)
    if not (work / "test" / "metrics.json").exists():
        train(file, work, resume=True, options=options, seed=seed)
        test(file, work_dir=work, options=options)
    results.append(row | {"status": "done"} | _measure(file, work, options, root, tiles))
    if not arguments.keep:
        shutil.rmtree(work / "predictions", ignore_errors=True)


def _options(arguments: Namespace) -> dict[str, Any]:
    """What does not depend on where the data is; the user's first, since a seed sets a key of a split of theirs."""
    given = parse_options(arguments.cfg_options)
    if arguments.data_root == "phantom":
        given = {"split": _PHANTOM_SPLIT} | given
        if arguments.scale == "small":
            given = {"samples_per_epoch": _EPOCH} | given
    if isinstance(given.get("split"), dict):
        given["split"] = {"seed": 0} | given["split"]
    if arguments.scale == "smoke":
        given |= {"train_cfg.max_epochs": 2, "train_cfg.val_interval": 1}
    return given


def _measure(file: str, work: Path, options: dict[str, Any], root: Path, tiles: Path) -> dict[str, Any]:
    """The columns of a trained arm."""
    found = json.loads((work / "metrics.json").read_text(encoding="utf-8"))
    sets = {part: _dataset(file, options, part) for part in ("val", "test")}
    counts = sets["test"].describe()
    model = work / "zoo" / "study" / "1.0.0"
    if not model.exists():
        publish_model(chosen_checkpoint(work), model.parent.name, model.name, work / "zoo", _CARD, run=work)
    slides = {part: _predicted(model, work / "predictions" / part, sets[part], root, tiles) for part in sets}
    return {
        "n_images": counts["n_images"],
        "n_patients": counts["n_patients"],
        **metric_columns([*found["rows"], *slide_rows(slides["val"], slides["test"])], METRICS),
    }


def slide_rows(val: DetectionSet, test: DetectionSet) -> list[dict[str, Any]]:
    """Metric rows of the slides of `test`, at its own best threshold and at the two that are chosen on `val`."""
    points = evaluate_detection(val, DetectionRules(n_bootstrap=0)).points
    thresholds = {point.name: 0.0 if point.threshold is None else point.threshold for point in points}
    ends = {"best_f1": "at_chosen", "target_recall": "for_recall"}
    rows: list[dict[str, Any]] = []
    for point, end in ends.items():
        found = evaluate_detection(test, DetectionRules(threshold=thresholds[point])).rows
        renamed = {f"{name}_at_given_threshold": f"{name}_{end}" for name in ("precision", "recall", "f1")}
        renamed["false_positives_per_slide_at_given_threshold"] = f"false_positives_{end}"
        rows += [{**row, "metric": renamed.get(row["metric"], row["metric"])} for row in found]
    counted = {
        "objects": sum(int((~picture.ignored).sum()) for picture in test.pictures),
        "slides": len(test.pictures),
    }
    rows += [{"metric": k, "level": "slide", "value": float(v), "low": None, "high": None} for k, v in counted.items()]
    return rows


def _dataset(file: str, options: dict[str, Any], part: str) -> Any:
    """The tiles of a subset as they are judged, without pipeline."""
    cfg = load_config(file, options).to_dict()["test_dataloader"]["dataset"]
    split = {"split": None} if part == "all" else {}
    return DATASETS.build(cfg | {"subset": part, "pipeline": []} | split)


def _predicted(model: Path, out: Path, dataset: Any, root: Path, tiles: Path) -> DetectionSet:
    """What the model finds on the slides of a subset, and what is there."""
    names = {dataset.get_data_info(index)["slide"] for index in range(len(dataset))}
    paths = {slide_name(source.slide): source.slide for source in _sources(root)}
    result = predict([paths[name] for name in sorted(names)], model, out)
    if result.failed:
        raise DataError(f"{result.failed[0][0]}: {result.failed[0][1]}")
    slides = read_predicted_slides([out])
    objects = read_objects_file(tiles / "objects.json", {slide.name: slide for slide in slides})
    return pair_slides(slides, objects, only_predicted=True).found


def _cut(root: Path, model_input: Mapping[str, Any], folder: Path) -> Path:
    """The slides' tiles as the model takes them; cut once for each of its sizes."""
    size, mpp = tuple(model_input["tile_size"]), float(model_input["mpp"])
    sources = _sources(root)
    stamps = [[str(file), file.stat().st_size] for one in sources for file in (one.slide, Path(one.annotations))]
    out = folder / "tiles" / _short(canonical_json([stamps, size, mpp]).decode())
    if not (out / "tiles.json").exists():
        print("\n".join(write_box_tiles(sources, out, BoxRules(CLASSES, size, mpp=mpp)).lines()), flush=True)
    return out


def _sources(root: Path) -> list[Any]:
    patients = root / "patients.csv"
    return find_object_sources(root / "slides", root / "annotations", patients if patients.exists() else None)[0]


def _draw(folder: Path, seed: int, scale: str) -> Path:
    from pathzoo.datasets.phantom import write_biopsies

    what = _PHANTOM | {"smoke": _SMOKE_PHANTOM, "paper": _PAPER_PHANTOM}.get(scale, {})
    root = folder / "data" / f"phantom{seed}-{sha256_bytes(canonical_json(what))[:8]}"
    if not (root / "whole").exists():
        write_biopsies(root, seed=seed, **what)
        (root / "whole").touch()
    return root


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
