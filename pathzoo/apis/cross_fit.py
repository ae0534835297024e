"""Cross-fitting a segmenter: every labelled region is predicted by a model that has not seen its patient.

WORK_DIR/cross_fit.json       what is fitted to what; a resumed run must be the same
WORK_DIR/labels/              the labels as training sees them, and the table that the models are trained by
WORK_DIR/splits/fold_0.json   who is predicted by which model
WORK_DIR/fold_0/              a training run like any other
WORK_DIR/predictions/         probabilities of every region, see `pathzoo.evaluation.region_probs`
"""

import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from mmengine.config import Config
from torch import nn

from pathzoo.apis.checks import errors_of_the_config
from pathzoo.apis.config import load_config
from pathzoo.apis.run_model import load_run_model
from pathzoo.apis.run_record import config_record
from pathzoo.apis.setup import setup
from pathzoo.apis.train import train
from pathzoo.datasets.region_files import split_label
from pathzoo.datasets.split_schemes import SplitItem, deal_patients
from pathzoo.datasets.splits import Split, Subset
from pathzoo.engine.checkpoint import chosen_checkpoint
from pathzoo.engine.self_training.labeller import Tiling, seen_probabilities, tile_starts
from pathzoo.engine.self_training.pictures import file_name, write_labels
from pathzoo.errors import ConfigError, DataError
from pathzoo.evaluation.region_probs import write_region_probs, written_by
from pathzoo.fileio import atomic_path, canonical_json, sha256_bytes, sha256_file, write_json
from pathzoo.wsi.blending import Blender, Canvas, PlacedTile
from pathzoo.wsi.outputs import write_csv

_TABLE = ("image", "mask", "patient", "slide", "mpp")


@dataclass(frozen=True)
class CrossFit:
    """A cross-fitted data set: the labelled training part (a `RegionSegmentation`), and where its predictions are."""

    dataset: Any
    predictions: Path


def cross_fit(
    config: str | Path,
    folder: Path,
    folds: int,
    options: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    tta: str = "none",
    progress: Callable[[str], None] | None = None,
) -> CrossFit:
    """Trains `folds` models on the labelled training part of a config's data, each without one fold of its patients.

    Labels are as training sees them: `label_noise` is in them, for the models and for whoever reviews them. Each model
    is trained to the end, without validation, and predicts the fold that it has not seen. What is done is not done
    again when the same call is repeated.

    Args:
        config: A supervised segmentation config.
        folder: Where everything goes.
        folds: Number of models, 2 or more, and of patients at least.
        options: Dotted key -> value, set in the config.
        seed: Of the deal of patients to folds.
        tta: Views that are averaged for a prediction, see `Tiling`.
        progress: Called with a line of text now and then.

    Raises:
        ConfigError: Fewer than 2 folds, a config of another task, or what `train` refuses.
        DataError: Fewer patients than folds, or a folder of another config, data, seed or number of folds.
    """
    setup()
    if folds < 2:
        raise ConfigError(f"folds is {folds}; cross-fitting takes 2 or more")
    cfg = load_config(config, options)
    dataset = labelled_part(cfg)
    classes = tuple(dataset.metainfo["classes"])
    splits = deal_folds(dataset, folds, seed)
    _remember(folder, cfg, dataset, folds, seed)
    table = _write_labels(folder / "labels", dataset)
    own = _data_options(dataset, table)
    tiling = Tiling(dataset.patch_size, max(1, dataset.patch_size * 3 // 4), tta)
    say = progress or (lambda line: None)
    for number, split in enumerate(splits):
        path = folder / "splits" / f"fold_{number}.json"
        split.save(path)
        run = folder / f"fold_{number}"
        if not _finished(run):
            say(f"fold {number}: training on {len(split.subsets['train'].items)} regions")
            # Once the data is another, the names that set it in several places have no place any more: they go last.
            mine = {**own, "train_dataloader.dataset.split": str(path.resolve()), "parameters": {}}
            train(config, run, resume=run.is_dir(), no_validate=True, options={**(options or {}), **mine})
        _predict_fold(folder / "predictions", dataset, split, number, run, tiling, classes, say)
    return CrossFit(dataset, folder / "predictions")


def labelled_part(cfg: Config) -> Any:
    """The training data set of a config, which has to be a `RegionSegmentation`.

    Raises:
        ConfigError: It is another one.
    """
    from pathzoo.datasets.regions import RegionSegmentation
    from pathzoo.registry import DATASETS

    with errors_of_the_config(cfg):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
    if not isinstance(dataset, RegionSegmentation):
        raise ConfigError(
            f"{cfg.filename}: trains on {type(dataset).__name__}; labels are reviewed by a supervised segmentation "
            "config, whose training data is a RegionSegmentation"
        )
    return dataset


def deal_folds(dataset: Any, folds: int, seed: int) -> list[Split]:
    """Splits of the data set's regions into `train` and `test`, by patient: each region is tested in exactly one.

    Raises:
        DataError: Fewer patients than folds.
    """
    classes = tuple(dataset.metainfo["classes"])
    items = []
    for number, region in enumerate(dataset.regions):
        pixels = np.bincount(dataset.read_labels(number).reshape(-1), minlength=256)[: len(classes)]
        label = split_label(pixels)
        items.append(SplitItem(region.item, label, region.sha256, region.patient, slide=region.slide))
    dealt = deal_patients(items, [1 / folds] * folds, seed)
    unknown = sum(item.patient is None for item in items)
    splits = []
    for number in range(folds):
        rest = [item for other, part in enumerate(dealt) if other != number for item in part]
        subsets = {"train": Subset.of(rest), "test": Subset.of(dealt[number])}
        parameters = {"k": folds, "fold": number}
        splits.append(Split("patient_kfold", subsets, classes, seed, parameters, "patient", unknown))
    return splits


@torch.inference_mode()
def region_probabilities(
    model: nn.Module, image: npt.NDArray[np.uint8], n_classes: int, tiling: Tiling
) -> npt.NDArray[np.uint8]:
    """Probabilities of every pixel of a picture, blended over tiles as on slides: (C, H, W) uint8, round(255 * p).

    Args:
        model: One of mmseg's segmentors, in evaluation mode.
        image: (H, W, 3) uint8 RGB.
        n_classes: C.
        tiling: How it is cut and seen; the last tile of a row or column ends with the picture.
    """
    height, width = image.shape[:2]
    side = tiling.tile
    padding = ((0, max(0, side - height)), (0, max(0, side - width)), (0, 0))
    image = np.pad(image, padding, constant_values=255)
    tops, lefts = (np.array(tile_starts(length, side, tiling.stride)) for length in image.shape[:2])
    device = next(model.parameters()).device

    def tiles() -> Iterator[PlacedTile]:
        cells = list(itertools.product(range(len(tops)), range(len(lefts))))
        for start in range(0, len(cells), tiling.batch_size):
            part = cells[start : start + tiling.batch_size]
            crops = [image[tops[r] : tops[r] + side, lefts[c] : lefts[c] + side] for r, c in part]
            batch = torch.from_numpy(np.stack(crops)).to(device).permute(0, 3, 1, 2)
            probs = seen_probabilities(model, batch, n_classes, tiling.tta).cpu().numpy()
            yield from (PlacedTile(r, c, values) for (r, c), values in zip(part, probs, strict=True))

    place = Canvas(image.shape[1], image.shape[0], (side, side), lefts, tops)
    found = np.empty((n_classes, *image.shape[:2]), np.uint8)
    for block in Blender(place, n_classes).blocks(tiles()):
        assert block.sums is not None and block.weights is not None  # tiles lie everywhere
        area = slice(block.y, block.y + block.height), slice(block.x, block.x + block.width)
        found[(slice(None), *area)] = np.rint(block.sums / block.weights * 255).clip(0, 255)
    return np.ascontiguousarray(found[:, :height, :width])


def _predict_fold(
    folder: Path,
    dataset: Any,
    split: Split,
    number: int,
    run: Path,
    tiling: Tiling,
    classes: Sequence[str],
    say: Callable[[str], None],
) -> None:
    """Predicts the regions of a fold's test part, but those that this very model has predicted before."""
    checkpoint = chosen_checkpoint(run)
    key = sha256_bytes(canonical_json([sha256_file(checkpoint), vars(tiling)]))
    wanted = split.subsets["test"].items
    todo = [
        place
        for place, region in enumerate(dataset.regions)
        if region.item in wanted and written_by(folder, region, classes) != key
    ]
    model = load_run_model(run, checkpoint) if todo else None
    for place in todo:
        assert model is not None
        region = dataset.regions[place]
        probs = region_probabilities(model, dataset.read_image(place), len(classes), tiling)
        write_region_probs(folder, region, probs, classes, key, number)
        say(f"fold {number}: predicted {region.item}")


def _data_options(dataset: Any, table: Path) -> dict[str, Any]:
    """What makes a config train on the regions and labels of `table`."""
    values = {
        "data_root": os.path.abspath(dataset.data_root or Path(dataset.ann_file).parent),  # noqa: PTH100 - not resolved
        "ann_file": str(table.resolve()),
        "classes": list(dataset.metainfo["classes"]),
        "palette": [list(color) for color in dataset.metainfo["palette"]],
        "value_map": None,
        "label_noise": None,
        "indices": None,
    }
    return {f"train_dataloader.dataset.{name}": value for name, value in values.items()}


def _write_labels(folder: Path, dataset: Any) -> Path:
    """Writes the labels as training sees them, and a table of the regions with them."""
    colors = dataset.metainfo["palette"]
    rows = []
    for number, region in enumerate(dataset.regions):
        mask = folder / "masks" / f"{file_name(region.item)}.png"
        write_labels(mask, dataset.read_labels(number), colors)
        mpp = "" if region.mpp is None else region.mpp
        rows.append([region.item, str(mask.resolve()), region.patient or "", region.slide or "", mpp])
    path = folder / "regions.csv"
    with atomic_path(path) as temporary:
        write_csv(temporary, _TABLE, rows)
    return path


def _remember(folder: Path, cfg: Config, dataset: Any, folds: int, seed: int) -> None:
    """Says in `cross_fit.json` what is fitted; raises where the folder is another's."""
    text = config_record(cfg)["digest"]
    now = {"format": 1, "config": text, "data": dataset.data_digest, "folds": folds, "seed": seed}
    path = folder / "cross_fit.json"
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [name for name, value in now.items() if before.get(name) != value]
        if changed:
            raise DataError(
                f"{folder}: was begun with another value of {', '.join(changed)} (see cross_fit.json there); give "
                "another --work-dir, or the same arguments to go on"
            )
    else:
        write_json(path, now)


def _finished(run: Path) -> bool:
    try:
        return json.loads((run / "train_run.json").read_text(encoding="utf-8"))["status"] == "finished"
    except (OSError, ValueError, KeyError):
        return False
