"""Loss of YOLOv5 (release 7.0): box, objectness and class at every level. Pure functions.

Written from published facts. A cell that answers for an object (`yolov5_boxes.match`) is drawn to its box by CIoU
(Zheng et al., AAAI 2020) and to its class by binary cross-entropy; its objectness is drawn to the CIoU that its box has
reached, 0 at least, and that of every other cell to 0. Where several objects meet in one cell the best of their CIoU is
the target (the release leaves the last that is written).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_convert, complete_box_iou_loss

from pathzoo.models.dense_heads.yolov5_boxes import Matches, decode_cells, match

#: A predicted side is no less than this part of a cell, so that a side of 0 gives no NaN.
_LEAST_SIDE = 1e-6


class Objects(NamedTuple):
    """Objects of a batch, T of them.

    Attributes:
        image: (T,) int64, which image of the batch an object is in.
        label: (T,) int64, its class.
        box: (T, 4), centre x, centre y, width, height in pixels of the batch; the centre within the image.
    """

    image: Tensor
    label: Tensor
    box: Tensor


class Losses(NamedTuple):
    """Scalars. Box: 1 - CIoU, mean over matches. Objectness, class: cross-entropy, mean over cells, or matches."""

    box: Tensor
    objectness: Tensor
    classes: Tensor


def yolov5_loss(
    maps: Sequence[Tensor],
    objects: Objects,
    ignored: Objects,
    anchors: Tensor,
    strides: Sequence[int],
    balance: Sequence[float],
    label_smoothing: float = 0.0,
) -> Losses:
    """Sums over the levels, of objectness with the weights `balance`; no gains yet.

    Args:
        maps: of each level (N, A, H, W, 5 + C): x, y, width, height, objectness, classes, before the sigmoid.
        objects: what is to be found.
        ignored: what is neither object nor background; its labels are not looked at. See `touched`.
        anchors: (levels, A, 2), width and height in pixels.
        strides: pixels per cell, of each level.
        balance: weight of each level's objectness.
        label_smoothing: e, 0..1; the right class is drawn to 1 - e / 2, the others to e / 2.

    Returns:
        float32 (float64 for maps of it); every one has a gradient, if of 0, where there is nothing to be found.
    """
    levels = [
        _level(raw, objects, ignored, anchors[k], stride, label_smoothing)
        for k, (raw, stride) in enumerate(zip(maps, strides, strict=True))
    ]
    box, objectness, classes = (torch.stack(values) for values in zip(*levels, strict=True))
    return Losses(box.sum(), (objectness * objectness.new_tensor(balance)).sum(), classes.sum())


def touched(ignored: Objects, images: int, stride: int, size: tuple[int, int]) -> Tensor:
    """Cells that an ignored box touches: they say nothing about background.

    Cells and not predicted boxes are looked at, so that what is left out does not depend on what was learnt.

    Args:
        ignored: see `Objects`.
        images: N of the batch.
        stride: pixels per cell.
        size: the level's rows and columns.

    Returns:
        bool (N, rows, columns).
    """
    low = (ignored.box[:, :2] - ignored.box[:, 2:] / 2) / stride
    high = (ignored.box[:, :2] + ignored.box[:, 2:] / 2) / stride
    rows, columns = (torch.arange(count, device=low.device) for count in size)
    inside_x = (columns + 1 > low[:, :1]) & (columns < high[:, :1])  # (T, columns)
    inside_y = (rows + 1 > low[:, 1:]) & (rows < high[:, 1:])
    cells = inside_y[:, :, None] & inside_x[:, None]
    return low.new_zeros(images, *size).index_add_(0, ignored.image, cells.to(low.dtype)) > 0


def _level(
    raw: Tensor, objects: Objects, ignored: Objects, anchors: Tensor, stride: int, label_smoothing: float
) -> Losses:
    wide = torch.promote_types(raw.dtype, torch.float32)  # half precision is too coarse for what follows
    size = (raw.shape[2], raw.shape[3])
    found = match(objects.image, objects.label, objects.box, anchors, stride, size)
    cells = raw[found.image, found.anchor, found.row, found.column].to(wide)  # (M, 5 + C)
    count = max(len(cells), 1)
    overlap = _ciou(cells[:, :4], found, anchors[found.anchor].to(wide) / stride)
    target, answers = _objectness_target(overlap.detach(), found, raw.shape[:4])
    counted = answers | ~touched(ignored, len(raw), stride, size)[:, None]
    missed = functional.binary_cross_entropy_with_logits(raw[..., 4].to(wide), target, reduction="none")
    return Losses(
        (1 - overlap).sum() / count,
        (missed * counted).sum() / counted.sum().clamp_min(1),
        _class_loss(cells[:, 5:], found.label, label_smoothing) / count,
    )


def _ciou(raw: Tensor, found: Matches, anchors: Tensor) -> Tensor:
    """(M,), -1..1: of the cells' boxes with the objects they answer for."""
    boxes = decode_cells(raw, torch.zeros_like(raw[:, :2]), anchors, 1.0)  # in cells, from the cell's corner
    boxes = torch.cat((boxes[:, :2], boxes[:, 2:].clamp_min(_LEAST_SIDE)), dim=1)
    corners = [box_convert(each, "cxcywh", "xyxy") for each in (boxes, found.box.to(raw))]
    return 1 - complete_box_iou_loss(*corners)


def _objectness_target(overlap: Tensor, found: Matches, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """(N, A, H, W): what objectness is drawn to, and whether the cell answers for an object."""
    _, anchors, rows, columns = shape
    place = ((found.image * anchors + found.anchor) * rows + found.row) * columns + found.column
    target = overlap.new_zeros(shape.numel()).scatter_reduce_(0, place, overlap.clamp_min(0), "amax")
    answers = torch.zeros_like(target, dtype=torch.bool).index_fill_(0, place, True)
    return target.view(shape), answers.view(shape)


def _class_loss(raw: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Sum over matches of the mean over classes; 0 where there is one class alone, which objectness says already."""
    if raw.shape[1] == 1:
        return 0 * raw.sum()
    target = torch.full_like(raw, smoothing / 2).scatter_(1, labels[:, None], 1 - smoothing / 2)
    return functional.binary_cross_entropy_with_logits(raw, target, reduction="sum") / raw.shape[1]
