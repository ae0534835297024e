"""Synthetic inputs for which a published model's outputs are kept: anyone can see that it still computes the same.

They are made by integer arithmetic from a seed, never from a patient's image.
"""

import numpy as np

from pathzoo.wsi.predictor import ClassProbs, Embeddings, Pictures, Prediction, SegProbs

#: task -> what of its outputs is kept (the manifest's `golden.quantity`; see `golden_values`).
QUANTITIES = {
    "classification": "class_probs",
    "segmentation": "mean_class_probs",
    "detection": "boxes",
    "representation": "embeddings",
    "translation": "mean_values",
}
#: How far outputs may lie apart, by quantity. Boxes come and go in whole at a detector's score threshold, see there.
TOLERANCES = {"class_probs": 1e-3, "mean_class_probs": 1e-3, "boxes": 5e-3, "embeddings": 1e-3, "mean_values": 0.05}
#: A drawn picture is kept as the means of this many parts a side.
_PARTS = 4


def noise_tiles(seed: int, n: int, size: tuple[int, int]) -> np.ndarray:
    """Coloured noise at three scales, since noise of single pixels alone averages out inside a network.

    `RandomState` is NumPy's frozen generator (NEP 19): the same seed gives the same bytes with every version.

    Args:
        seed: Any non-negative integer below 2**32.
        n: Number of tiles.
        size: (width, height) in px.

    Returns:
        uint8 (n, H, W, 3), RGB, 0..255.
    """
    width, height = size
    random = np.random.RandomState(seed)
    total = np.zeros((n, height, width, 3), dtype=np.uint16)
    for cell, weight in ((1, 1), (8, 2), (32, 5)):
        rows, columns = -(-height // cell), -(-width // cell)
        coarse = random.randint(0, 256, size=(n, rows, columns, 3)).astype(np.uint16)
        fine = coarse.repeat(cell, axis=1).repeat(cell, axis=2)[:, :height, :width]
        total += weight * fine
    return (total // 8).astype(np.uint8)


def golden_values(prediction: Prediction, size: tuple[int, int], n_classes: int) -> list[list[float]]:
    """The numbers of a prediction that are kept, one row of fixed length per tile.

    Classification: the probabilities. Segmentation: each class's mean probability over the tile. Representation: the
    vector. Translation: the means of each channel over 4 x 4 parts of the picture. Detection: see `summarise_boxes`.

    Args:
        prediction: The outputs on n tiles.
        size: (width, height) of the tiles in px.
        n_classes: Number of the model's classes.
    """
    if isinstance(prediction, ClassProbs):
        rows = prediction.probs
    elif isinstance(prediction, SegProbs):
        rows = prediction.probs.mean(axis=(2, 3), dtype=np.float64)
    elif isinstance(prediction, Embeddings):
        rows = prediction.vectors
    elif isinstance(prediction, Pictures):
        strips = np.array_split(prediction.values.astype(np.float64), _PARTS, axis=2)
        parts = [part.mean(axis=(2, 3)) for strip in strips for part in np.array_split(strip, _PARTS, axis=3)]
        rows = np.concatenate(parts, axis=1)
    else:
        rows = np.stack([summarise_boxes(boxes, size, n_classes) for boxes in prediction.boxes])
    return [[float(value) for value in row] for row in rows]


def summarise_boxes(boxes: np.ndarray, size: tuple[int, int], n_classes: int) -> np.ndarray:
    """A tile's boxes in five numbers per class: S, and the sums of s² times centre x, centre y, width and height.

    S is the sum of s² over the scores s; places and sizes are in parts of the tile; all is divided by 1 + S. Squares
    and the 1 keep it steady: a box that appears or vanishes at a score threshold of 0.05, as rounding may decide,
    changes no number by more than 0.0025, and the order of boxes with like scores does not matter.

    Args:
        boxes: (n, 6) x0, y0, x1, y1 in px, score, class.
        size: (width, height) of the tile in px.
        n_classes: Number of classes C.

    Returns:
        float64 (5 C,), class by class; zeros where there is no box.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 6)
    corners = boxes[:, :4] / np.array([*size, *size], np.float64)
    middle, extent = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    values = np.column_stack([np.ones(len(boxes)), middle, extent]) * boxes[:, 4:5] ** 2
    summary = np.zeros((n_classes, 5))
    np.add.at(summary, boxes[:, 5].astype(np.int64), values)
    return np.asarray(summary / (1 + summary[:, :1])).ravel()
