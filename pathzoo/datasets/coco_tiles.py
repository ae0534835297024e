"""COCO files of tiles with boxes: read and checked, and divided by patient. Needs no torch, and decodes nothing.

Any COCO file of boxes will do. What pathzoo's converter adds to an image (slide, patient, x, y, downsample, mpp,
source) and to an annotation (ignore, share, object) is used where it is there; see `pathzoo.wsi.annotated_boxes`.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pathzoo.datasets.csv_table import parse_patient
from pathzoo.datasets.split_schemes import SplitItem, deal_patients
from pathzoo.errors import ConfigError, DataError
from pathzoo.nearest import did_you_mean

#: Pixels by which a box may leave its picture without a word.
_SLACK = 1.0
_LISTED = 5


class CocoTiles(NamedTuple):
    """What `read_coco_tiles` found.

    Attributes:
        tiles: a dict each: item, img_path, img_id, width, height, slide, patient, x, y, downsample, mpp, source
            ("file" or "slide"), where (for messages), boxes float32 (n, 4) as x0, y0, x1, y1, labels int64 (n,),
            ignore bool (n,).
        classes: names in the order of the labels.
        problems: boxes that were cut or left out, a line each.
        left_out: annotations of classes that were not asked for, by class.
    """

    tiles: list[dict[str, Any]]
    classes: tuple[str, ...]
    problems: list[str]
    left_out: Counter[str]


def read_coco_tiles(
    path: str | Path,
    data_root: str | Path | None = None,
    classes: Sequence[str] | None = None,
    on_bad_box: str = "error",
) -> CocoTiles:
    """Reads and checks a COCO file, not the pictures that it names.

    Args:
        path: the file.
        data_root: what file names are relative to; None for the file's folder.
        classes: names in the order of the labels; None for all categories, by id. Annotations of others are left out.
        on_bad_box: "error" refuses boxes outside of their picture, without area or of a category that the file does not
            list; "clip" cuts those that leave it and drops the others; "drop" drops them all.

    Raises:
        ConfigError: no such file, or a class that the file does not list.
        DataError: not COCO, ids or pictures that stand twice, or bad boxes.
    """
    document = _load(path)
    # The folder itself, where a link leads to it: names may lead out of it ("../../slides/a.tif").
    root = Path(data_root or Path(path).parent).resolve()
    try:
        names = {category["id"]: str(category["name"]) for category in _by_id(document["categories"])}
        classes = _classes(path, list(names.values()), classes)
        tiles = {image["id"]: _tile(image, root, f"{path}: image {image['id']}") for image in document["images"]}
        _refuse_twins(path, document["images"], list(tiles.values()))
        problems: list[str] = []
        left_out: Counter[str] = Counter()
        for annotation in document["annotations"]:
            where = f"{path}: annotation {annotation['id']}"
            tile, name = tiles.get(annotation["image_id"]), names.get(annotation["category_id"])
            if tile is None:
                raise DataError(
                    f"{where}: no image has the id {annotation['image_id']}; add it or remove the annotation"
                )
            if name is not None and name not in classes:
                left_out[name] += 1
                continue
            box, problem = _box(annotation["bbox"], tile["width"], tile["height"])
            problem = f"no category has the id {annotation['category_id']}" if name is None else problem
            if problem:
                problems.append(f"{where}: {problem}")
            if name is not None and box is not None and not (problem and on_bad_box == "drop"):
                ignored = bool(annotation.get("ignore") or annotation.get("iscrowd"))
                tile["found"].append((box, classes.index(name), ignored))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"the field {error} is missing" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{path}: not a COCO file of boxes: {what}; make it anew") from error
    if problems and on_bad_box == "error":
        shown = "; ".join(problems[:_LISTED]) + ("; ..." if problems[_LISTED:] else "")
        raise DataError(
            f'{len(problems)} boxes cannot be used: {shown}: correct them, or set on_bad_box="clip" or "drop"'
        )
    return CocoTiles([_with_arrays(tile) for tile in tiles.values()], classes, problems, left_out)


def check_division(patients: Sequence[str | None], shares: Mapping[str, float]) -> None:
    """Refuses what `divide_document` cannot do, by the patients of the slides alone: before their tiles are cut.

    Raises:
        DataError: a share that is not above 0, or fewer patients than parts.
    """
    bad = [name for name, share in shares.items() if not (math.isfinite(share) and share > 0)]
    if bad:
        raise DataError(f"split: {bad[0]}={shares[bad[0]]:g}; give each part a share above 0, as 4 and 1")
    groups = {parse_patient(patient or "") for patient in patients}
    if len(groups) < len(shares):
        known = len(groups - {None})
        there = f"there is {known} known patient" if known == 1 else f"there are {known} known patients"
        there += " and one group of slides without a patient" if None in groups else ""
        raise DataError(
            f"split: {len(shares)} parts that share no patient need as many patients, but {there}: fill the patient "
            "column, or ask for no split"
        )


def divide_document(document: Mapping[str, Any], shares: Mapping[str, float], seed: int) -> dict[str, dict[str, Any]]:
    """Divides a COCO document by patient, so that tiles with and without objects are shared out as `shares` say.

    Tiles of unknown patients stay together.

    Args:
        document: its images have the field patient.
        shares: name -> share above 0, of any sum, as {"train": 4, "test": 1}.
        seed: another seed, another division.

    Raises:
        DataError: a share that is not above 0, or fewer patients than parts.
    """
    check_division([image.get("patient") for image in document["images"]], shares)
    shown = {annotation["image_id"] for annotation in document["annotations"] if not annotation.get("ignore")}
    items = [
        SplitItem(str(image["id"]), int(image["id"] in shown), "", parse_patient(image.get("patient") or ""))
        for image in document["images"]
    ]
    total = sum(shares.values())
    dealt = deal_patients(items, [share / total for share in shares.values()], seed)
    return {name: _part(document, {item.item for item in part}) for name, part in zip(shares, dealt, strict=True)}


def _part(document: Mapping[str, Any], ids: set[str]) -> dict[str, Any]:
    images = [image for image in document["images"] if str(image["id"]) in ids]
    annotations = [annotation for annotation in document["annotations"] if str(annotation["image_id"]) in ids]
    return {**document, "images": images, "annotations": annotations}


def _load(path: str | Path) -> dict[str, Any]:
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such COCO file; tools/dataset_converters/annotations_to_boxes.py makes one of annotated slides"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not JSON ({error}); make it anew") from error
    missing = [
        key for key in ("images", "annotations", "categories") if not isinstance(document, dict) or key not in document
    ]
    if missing:
        raise DataError(f"{path}: not a COCO file: {missing[0]!r} is missing; it has images, annotations, categories")
    return document


def _by_id(categories: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(categories, key=lambda category: category["id"])


def _classes(path: str | Path, found: list[str], wanted: Sequence[str] | None) -> tuple[str, ...]:
    for name in wanted or ():
        if name not in found:
            raise ConfigError(f"{path}: has no category {name!r}{did_you_mean(name, found)}")
    classes = tuple(found if wanted is None else wanted)
    if not classes or len(set(classes)) < len(classes):
        raise DataError(f"{path}: categories {', '.join(classes) or '(none)'}; give each class a name of its own")
    return classes


def _tile(image: Mapping[str, Any], root: Path, where: str) -> dict[str, Any]:
    path = os.path.normpath(root / image["file_name"])
    item, source = Path(os.path.relpath(path, root)).as_posix(), image.get("source", "file")
    values = {name: image.get(name) for name in ("slide", "x", "y", "mpp")}
    values["downsample"] = float(image.get("downsample") or 1.0)
    for name in ("width", "height"):
        values[name] = int(image[name])
    if source not in ("file", "slide"):
        raise DataError(f"{where}: source {source!r}; it is 'file' or 'slide'")
    if source == "slide":
        if values["x"] is None or values["y"] is None:
            raise DataError(f"{where}: a tile of a slide needs x and y, its level-0 corner")
        if values["downsample"] != 1 and values["mpp"] is None:
            raise DataError(f"{where}: a tile of a slide with downsample {values['downsample']:g} needs mpp")
        item = f"{item}#x{values['x']}_y{values['y']}"
    mpp = values["mpp"]
    if mpp is not None and not mpp > 0:
        raise DataError(f"{where}: mpp {mpp!r} is not a positive number of microns per pixel; null means not known")
    patient = parse_patient(str(image.get("patient") or ""))
    known = {"item": item, "img_path": path, "img_id": image["id"], "patient": patient, "source": source}
    return {**known, **values, "where": where, "found": []}


def _refuse_twins(path: str | Path, images: Sequence[Mapping[str, Any]], tiles: Sequence[Mapping[str, Any]]) -> None:
    for what, values in (("id", [image["id"] for image in images]), ("picture", [tile["item"] for tile in tiles])):
        twice = [value for value, n in Counter(values).items() if n > 1]
        if twice:
            raise DataError(f"{path}: the {what} {twice[0]!r} stands twice among the images; keep one of them")


def _box(values: Sequence[float], width: int, height: int) -> tuple[tuple[float, ...] | None, str]:
    """x0, y0, x1, y1 inside the picture (None where nothing is), and what was wrong."""
    x, y, w, h = (float(value) for value in values)
    text = f"box x={x:g}, y={y:g}, width={w:g}, height={h:g}"
    if not all(math.isfinite(value) for value in (x, y, w, h)):
        return None, f"{text} is not of finite numbers"
    if w <= 0 or h <= 0:
        return None, f"{text} has no area"
    box = max(0.0, x), max(0.0, y), min(float(width), x + w), min(float(height), y + h)
    if box[0] >= box[2] or box[1] >= box[3]:
        return None, f"{text} lies outside of the picture of {width} x {height} px"
    leaves = min(x, y) < -_SLACK or x + w > width + _SLACK or y + h > height + _SLACK
    return box, f"{text} leaves the picture of {width} x {height} px" if leaves else ""


def _with_arrays(tile: dict[str, Any]) -> dict[str, Any]:
    found = tile.pop("found")
    tile["boxes"] = np.array([box for box, _, _ in found], np.float32).reshape(-1, 4)
    tile["labels"] = np.array([label for _, label, _ in found], np.int64)
    tile["ignore"] = np.array([ignored for _, _, ignored in found], bool)
    return tile
