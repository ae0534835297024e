"""Classification and representation of plain images, file by file."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pathzoo.errors import PathzooError, SlideError
from pathzoo.fileio import atomic_path
from pathzoo.wsi.classification import checked_probs
from pathzoo.wsi.job import Progress
from pathzoo.wsi.npy_stream import NpyWriter
from pathzoo.wsi.outputs import write_csv
from pathzoo.wsi.predictor import Predictor
from pathzoo.wsi.readers.image_reader import read_image
from pathzoo.wsi.representation import checked_vectors
from pathzoo.wsi.types import RGB, Float32, RGBBatch

#: Makes the tile that the model wants (uint8 RGB of its tile size) of an image and its mpp (None if unknown).
Prepare = Callable[[RGB, float | None], RGB]


@dataclass
class ImagePredictions:
    """Probabilities of the images that could be read, in the order given, and why the others could not."""

    classes: tuple[str, ...]
    paths: list[Path] = field(default_factory=list)
    probs: list[Float32] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)

    def rows(self) -> list[list[object]]:
        """One row per image: path, predicted class, one probability per class."""
        return [
            [path.as_posix(), self.classes[int(p.argmax())], *(f"{value:.6f}" for value in p)]
            for path, p in zip(self.paths, self.probs, strict=True)
        ]


@dataclass
class ImageVectors:
    """Which images could be read, in the order of their rows in the table of vectors, and why the others could not."""

    paths: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)

    def rows(self) -> list[list[object]]:
        """One row per image: path, and the number of its row in the table of vectors, from 0."""
        return [[path.as_posix(), number] for number, path in enumerate(self.paths)]


def predict_images(
    paths: Sequence[str | os.PathLike[str]],
    predictor: Predictor,
    prepare: Prepare,
    *,
    batch_size: int = 32,
    mpp: float | Sequence[float | None] | None = None,
    progress: Progress | None = None,
) -> ImagePredictions:
    """Runs a classifier over image files. A file that cannot be used is named in `failed`; the others go on.

    Args:
        paths: PNG, JPEG, TIFF or BMP files.
        predictor: A model whose task is classification.
        prepare: See `Prepare`; a `PathzooError` that it raises counts the image as failed.
        batch_size: Images per call of the predictor; does not change the result.
        mpp: Microns per pixel of all images, or one value per image; None where unknown.
        progress: Called after every batch with images done and images in all.

    Raises:
        SlideError: The model's task is not classification, or the batch size is below 1.
        ValueError: Another number of `mpp` values than of paths, or `prepare` returned a wrong shape or type.
    """
    _require_task(predictor, "classification")
    result = ImagePredictions(tuple(predictor.classes))
    for tiles in _batches(paths, predictor, prepare, batch_size, mpp, progress, result):
        result.probs.extend(checked_probs(predictor, tiles))
    return result


def represent_images(
    paths: Sequence[str | os.PathLike[str]],
    predictor: Predictor,
    prepare: Prepare,
    table: str | os.PathLike[str],
    *,
    batch_size: int = 32,
    mpp: float | Sequence[float | None] | None = None,
    progress: Progress | None = None,
) -> ImageVectors:
    """The same by an encoder: writes a vector of each image to `table` (.npy, float32 (N, D)) as they come.

    Not atomic: give a path that is temporary. Arguments and errors as for `predict_images`.
    """
    _require_task(predictor, "representation")
    result = ImageVectors()
    with NpyWriter(table) as vectors:
        for tiles in _batches(paths, predictor, prepare, batch_size, mpp, progress, result):
            vectors.append(checked_vectors(predictor, tiles))
    return result


def _require_task(predictor: Predictor, task: str) -> None:
    if predictor.task != task:
        raise SlideError(f"model {predictor.name}: its task is {predictor.task}; only {task} takes images here")


def _batches(
    paths: Sequence[str | os.PathLike[str]],
    predictor: Predictor,
    prepare: Prepare,
    batch_size: int,
    mpp: float | Sequence[float | None] | None,
    progress: Progress | None,
    result: ImagePredictions | ImageVectors,
) -> Iterator[RGBBatch]:
    """Tiles (n, H, W, 3) of the images that can be read, which `result` then names; progress when one is dealt with."""
    if batch_size < 1:
        raise SlideError(f"batch size is {batch_size}; it must be at least 1")
    mpps = list(mpp) if isinstance(mpp, Sequence) else [mpp] * len(paths)
    if len(mpps) != len(paths):
        raise ValueError(f"{len(mpps)} values of mpp for {len(paths)} images")
    for start in range(0, len(paths), batch_size):
        tiles = []
        for name, resolution in zip(paths[start : start + batch_size], mpps[start : start + batch_size], strict=True):
            try:
                tiles.append(_checked_tile(prepare(read_image(Path(name)), resolution), predictor))
                result.paths.append(Path(name))
            except PathzooError as error:
                result.failed.append((Path(name), str(error)))
        if tiles:
            yield np.stack(tiles)
        if progress is not None:
            progress(min(start + batch_size, len(paths)), len(paths))


def write_image_predictions(path: str | os.PathLike[str], predictions: ImagePredictions | ImageVectors) -> None:
    """Writes path, predicted, prob_CLASS... (vectors: path, row) as CSV, whole or not at all."""
    header = ["path", "row"]
    if isinstance(predictions, ImagePredictions):
        header = ["path", "predicted", *(f"prob_{name}" for name in predictions.classes)]
    with atomic_path(path) as temporary:
        write_csv(temporary, header, predictions.rows())


def _checked_tile(tile: RGB, predictor: Predictor) -> RGB:
    width, height = predictor.input.tile_size
    if tile.shape != (height, width, 3) or tile.dtype != np.uint8:
        raise ValueError(
            f"prepare() gave {tile.dtype} {tile.shape}, model {predictor.name} takes ({height}, {width}, 3)"
        )
    return tile
