"""The files of a segmenter's evaluation: metrics.json, regions.csv and plots/region_*.png."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pathzoo.errors import DataError
from pathzoo.evaluation.functional import PatchSums, Row, segmentation, segmentation_report
from pathzoo.fileio import write_csv, write_json


class RegionPicture(NamedTuple):
    """A region as it is drawn."""

    #: What stands above it.
    title: str
    #: RGB uint8 (H, W, 3).
    image: np.ndarray
    #: Class indices or the ignored value (H, W).
    truth: np.ndarray
    #: Name -> class indices (H, W), 255 where there is none.
    predictions: dict[str, np.ndarray]


def write_segmentation(
    out_dir: str | os.PathLike[str],
    counts: ArrayLike,
    items: Sequence[str],
    patients: Sequence[str | None] | None,
    slides: Sequence[str | None] | None,
    classes: Sequence[str],
    patches: PatchSums | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
    extra: dict[str, Any] | None = None,
    first_rows: Sequence[Row] = (),
) -> list[Row]:
    """Evaluates the counts of a set's regions and writes what is known of them into one folder.

    metrics.json (`rows`, numbers of regions, patients and pixels, confusion matrix; written last) and regions.csv (a
    row for each region: item, patient, slide, patches, pixels, miou, f1, accuracy, iou_CLASS, and the pixels of each
    true class that were given to each class). Each file appears whole or not at all.

    Args:
        out_dir: folder, made where absent; files of an earlier evaluation in it are replaced.
        counts: pixels of each region by true and predicted class (N, C, C).
        items: name of each region, as in splits.json.
        patients: patient of each region, None where unknown; None for all unknown.
        slides: slide of each region, likewise.
        classes: C names.
        patches: sums over the patches of each region; None where there were no patches.
        n_bootstrap: resamples of patients; 0 for no intervals.
        seed: of the resampling.
        extra: further entries for metrics.json (of JSON types).
        first_rows: rows of the caller's own that stand before the others.

    Returns:
        `first_rows` and the rows of `segmentation_report`.

    Raises:
        DataError: nothing to evaluate, or shapes that do not fit.
    """
    folder, matrices = Path(out_dir), np.asarray(counts)
    who = [None] * len(items) if patients is None else list(patients)
    where = [None] * len(items) if slides is None else list(slides)
    if not len(matrices) == len(items) == len(where):
        raise DataError(f"{len(items)} items and {len(where)} slides for {len(matrices)} regions: give one for each")
    rows = [*first_rows, *segmentation_report(matrices, who, classes, patches, n_bootstrap, seed)]
    of_patches = None if patches is None else patches.patches
    lines = _region_lines(matrices, items, who, where, of_patches)
    write_csv(folder / "regions.csv", _region_head(classes), lines)
    total = matrices.sum(axis=0).astype(int)
    summary = {
        "rows": rows,
        "n_regions": len(items),
        "n_patches": None if patches is None else int(patches.patches.sum()),
        "n_patients": len({patient for patient in who if patient is not None}),
        "n_regions_of_unknown_patient": sum(patient is None for patient in who),
        "n_slides": len({slide for slide in where if slide is not None}),
        "n_pixels": int(total.sum()),
        "n_pixels_of_class": dict(zip(classes, total.sum(axis=1).tolist(), strict=True)),
        "n_regions_of_class": dict(zip(classes, matrices.any(axis=2).sum(axis=0).tolist(), strict=True)),
        "classes": list(classes),
        "confusion_matrix": total.tolist(),
        "intervals": {"level": 0.95, "resampled": "patient", "n_replicates": n_bootstrap, "seed": seed},
        **(extra or {}),
    }
    write_json(folder / "metrics.json", summary)
    return rows


def spread_regions(counts: ArrayLike, n: int) -> list[int]:
    """Up to `n` regions by their mIoU, evenly from the worst to the best, both among them: three add the median.

    `counts` (N, C, C). Regions without a labelled pixel are never chosen.
    """
    values = segmentation.mean_values(counts)[:, 0]
    order = [int(index) for index in np.argsort(values, kind="stable") if not np.isnan(values[index])]
    if n < 2 or len(order) < 2:
        return order[: max(n, 0)]
    places = np.unique(np.rint(np.linspace(0, len(order) - 1, n)).astype(int))
    return [order[place] for place in places]


def write_pictures(
    folder: str | os.PathLike[str],
    pictures: Iterable[RegionPicture],
    classes: Sequence[str],
    colors: Sequence[tuple[int, int, int]] | None = None,
    ignore_index: int = 255,
) -> list[Path]:
    """Writes a page for each region as region_1.png, region_2.png, ...; those of an earlier evaluation are removed.

    Args:
        folder: made where absent.
        pictures: in the order of their numbers; taken one at a time, so a generator holds one in memory.
        classes: C names.
        colors: RGB 0..255 of each class; by default pathzoo's.
        ignore_index: value of `truth` that is not labelled.

    Returns:
        The files.
    """
    from pathzoo.visualization.segmentation import panels, save_page  # loads only where something is drawn

    written = []
    for number, picture in enumerate(pictures, start=1):
        path = Path(folder) / f"region_{number}.png"
        page = panels(
            picture.image,
            picture.truth,
            picture.predictions,
            classes,
            colors,
            title=picture.title,
            ignore_index=ignore_index,
        )
        save_page(page, path)
        written.append(path)
    for old in set(Path(folder).glob("region_*.png")).difference(written):
        old.unlink()
    return written


def _region_head(classes: Sequence[str]) -> list[str]:
    head = ["item", "patient", "slide", "patches", "pixels", "miou", "f1", "accuracy"]
    head += [f"iou_{name}" for name in classes]
    return head + [f"{true} as {predicted}" for true in classes for predicted in classes]


def _region_lines(
    counts: np.ndarray,
    items: Sequence[str],
    patients: Sequence[str | None],
    slides: Sequence[str | None],
    patches: np.ndarray | None,
) -> Iterator[list[Any]]:
    """An unknown patient or slide, and a value that is undefined, is an empty cell."""
    means, per_class = segmentation.mean_values(counts), segmentation.iou(counts)
    chosen = [segmentation.MEANS.index(name) for name in ("miou", "f1", "accuracy")]
    for index, item in enumerate(items):
        values = [*means[index, chosen], *per_class[index]]
        yield [
            item,
            patients[index] or "",
            slides[index] or "",
            "" if patches is None else int(patches[index]),
            int(counts[index].sum()),
            *("" if np.isnan(value) else f"{value:.6f}" for value in values),
            *counts[index].astype(int).reshape(-1).tolist(),
        ]
