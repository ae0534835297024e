"""Regions as a data set holds them: from lines of a table to sound pictures with checked masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pathzoo.datasets.inventory import ImageRecord
from pathzoo.datasets.masks import CHANGED, MaskRecord, class_counts, size_problem, unknown_value_text
from pathzoo.datasets.split_schemes import SplitItem
from pathzoo.datasets.transforms.loading import decode_rgb
from pathzoo.errors import DataError
from pathzoo.fileio import sha256_bytes

#: A class has to cover this share of a region's labelled pixels for the split to go by it.
_SPLIT_SHARE = 0.01


@dataclass(frozen=True)
class Region:
    """One region of a slide.

    Attributes:
        item: its id, the image's POSIX path relative to the data's folder.
        image: the picture.
        mask: its label mask; None where nobody has labelled it.
        patient, slide: None where not known.
        mpp: microns per pixel; None where not known.
        width, height: in pixels.
        sha256: of the picture's bytes.
        mask_sha256: of the mask's bytes; None where there is none.
        source: of a drawn region the item of the real one that its label map is from; None for real ones.
    """

    item: str
    image: Path
    mask: Path | None
    patient: str | None
    slide: str | None
    mpp: float | None
    width: int
    height: int
    sha256: str
    mask_sha256: str | None = None
    source: str | None = None


def region_entry(
    info: dict[str, Any],
    record: ImageRecord,
    mask: MaskRecord | None,
    mpp: float | None,
    lookup: np.ndarray,
    classes: Sequence[str],
) -> dict[str, Any]:
    """A region with what its labels hold, checked.

    Args:
        info: of `read_region_table`.
        record: of its image, sound.
        mask: of its mask, sound; None where it has none.
        mpp: where the table gives none.
        lookup: of `value_lookup`.
        classes: names.

    Returns:
        item, mpp, where, region (`Region`), pixels (of each class, tuple; None without a mask).

    Raises:
        DataError: mask and image differ in size, or a mask value that may not occur; names the mask, the value and
            where it stands.
    """
    assert record.width is not None and record.height is not None and record.sha256 is not None
    pixels = None
    if mask is not None:
        if problem := size_problem(record, mask):
            raise DataError(f"{mask.path}: {problem}: export the mask at the image's size")
        if problem := unknown_value_text(mask, lookup, classes):
            raise DataError(f"{mask.path}: {problem}: correct the mask, or say what its values mean by value_map")
        pixels = class_counts(mask.counts or (), lookup, len(classes))
    region = Region(
        item=info["item"],
        image=Path(info["img_path"]),
        mask=None if mask is None else Path(mask.path),
        patient=info["patient"],
        slide=info["slide"],
        mpp=info["mpp"] if info["mpp"] is not None else mpp,
        width=record.width,
        height=record.height,
        sha256=record.sha256,
        mask_sha256=None if mask is None else mask.sha256,
    )
    return {"item": region.item, "mpp": region.mpp, "where": info["where"], "region": region, "pixels": pixels}


def split_item(entry: dict[str, Any]) -> SplitItem:
    """What a split sees of a region: the class it is dealt by, from `split_label`; -1 without a mask."""
    region, pixels = entry["region"], entry["pixels"]
    label = -1 if pixels is None else split_label(pixels)
    shown = tuple(index for index, count in enumerate(pixels or ()) if count)
    return SplitItem(region.item, label, region.sha256, region.patient, shown, region.slide)


def split_label(pixels: Sequence[int]) -> int:
    """The highest class index that covers at least 1 % of the labelled pixels; 0 where only the first class does."""
    total = sum(pixels)
    covered = [index for index, count in enumerate(pixels) if total and count >= _SPLIT_SHARE * total]
    return max(covered, default=0)


def decode_region(region: Region) -> np.ndarray:
    """The picture of a region: RGB uint8 (H, W, 3).

    Raises:
        DataError: the file is gone, or its bytes changed since the data set was loaded.
    """
    try:
        data = region.image.read_bytes()
    except OSError as error:
        raise DataError(f"{region.image}: cannot be read any more ({error.strerror}): restore it") from None
    if sha256_bytes(data) != region.sha256:
        raise DataError(f"{region.image}: {CHANGED}")
    return decode_rgb(data, region.image)


def count_regions(
    regions: Sequence[Region], pixels: Sequence[Sequence[int] | None], classes: Sequence[str]
) -> dict[str, Any]:
    """Counts for tables: n_images (regions), megapixels, n_patients (known ones), n_unknown_patient_images,
    n_without_mask, per_class (class -> the n_images and n_patients that show it, n_pixels).

    Args:
        regions: what is counted.
        pixels: of each class in each region's labels; None where there are none.
        classes: names.
    """
    per_class = {}
    for label, name in enumerate(classes):
        own = [region for region, counts in zip(regions, pixels, strict=True) if counts and counts[label]]
        per_class[name] = {
            "n_images": len(own),
            "n_patients": len({region.patient for region in own} - {None}),
            "n_pixels": sum(counts[label] for counts in pixels if counts),
        }
    return {
        "n_images": len(regions),
        "megapixels": round(sum(region.width * region.height for region in regions) / 1e6, 3),
        "n_patients": len({region.patient for region in regions} - {None}),
        "n_unknown_patient_images": sum(region.patient is None for region in regions),
        "n_without_mask": sum(region.mask is None for region in regions),
        "per_class": per_class,
    }
