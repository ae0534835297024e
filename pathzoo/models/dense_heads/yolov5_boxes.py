"""Boxes of YOLOv5 (release 7.0): what a cell's numbers mean, and which cells answer for an object. Pure functions.

Written from published facts. With s the sigmoid of a cell's raw numbers, a box has its centre at (2s - 0.5 + cell)
times the stride and the size (2s)^2 times its anchor; so a centre may lie up to half a cell outside its cell, and a
side is at most four times its anchor's. An anchor answers for an object where neither side is four times the other's or
more; and with it, beside the object's own cell, the nearest neighbour in x and the nearest in y, whose boxes reach it.

A centre on the boundary of two cells, as of boxes in whole pixels, belongs to the cell after it; the one before answers
too. There the release, as its loss shows, counts the own cell once more for each such direction, in the means of box
and class. Here a cell answers once for an object: that count follows from how boundaries are rounded, not from a rule.
"""

from typing import NamedTuple

import torch
from torch import Tensor

#: Width and height in pixels, of three anchors at the strides 8, 16 and 32: those that the release fitted to COCO.
COCO_ANCHORS = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
#: Sides of an object and of an anchor that answers for it differ by less than this factor.
MOST_RATIO = 4.0


class Matches(NamedTuple):
    """Cells that answer for objects at one level, M of them; an object may have several, and a cell several objects.

    Attributes:
        image, anchor, row, column: (M,) int64, of the cell.
        box: (M, 4), the object's centre relative to the cell's corner and its size, in cells: x, y, width, height.
        label: (M,) int64, the object's class.
    """

    image: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor
    box: Tensor
    label: Tensor


def decode(raw: Tensor, anchors: Tensor, stride: int) -> Tensor:
    """Boxes of every cell.

    Args:
        raw: (N, A, H, W, 4 or more): x, y, width and height first, before the sigmoid.
        anchors: (A, 2), width and height in pixels.
        stride: pixels per cell.

    Returns:
        (N, A, H, W, 4): centre x, centre y, width, height in pixels.
    """
    height, width = raw.shape[2:4]
    rows, columns = torch.meshgrid(
        torch.arange(height, device=raw.device), torch.arange(width, device=raw.device), indexing="ij"
    )
    cells = torch.stack((columns, rows), dim=-1).to(raw.dtype)
    return decode_cells(raw[..., :4], cells, anchors[:, None, None].to(raw.dtype), stride)


def decode_cells(raw: Tensor, cells: Tensor, anchors: Tensor, stride: float) -> Tensor:
    """Boxes of cells that are named: (..., 4) centre and size, in the unit of `stride` and `anchors`.

    Args:
        raw: (..., 4), before the sigmoid.
        cells: (..., 2), column and row.
        anchors: (..., 2), width and height.
        stride: length of a cell; 1 with anchors in cells gives boxes in cells.
    """
    part = 2 * raw.sigmoid()
    return torch.cat(((part[..., :2] - 0.5 + cells) * stride, part[..., 2:] ** 2 * anchors), dim=-1)


def match(
    images: Tensor, labels: Tensor, boxes: Tensor, anchors: Tensor, stride: int, size: tuple[int, int]
) -> Matches:
    """The cells of one level that answer for objects.

    Args:
        images: (T,) int64, which image of the batch an object is in.
        labels: (T,) int64, its class.
        boxes: (T, 4), centre x, centre y, width, height in pixels; centres within the image.
        anchors: (A, 2), width and height in pixels.
        stride: pixels per cell.
        size: the level's rows and columns.

    Returns:
        `Matches`, ordered by anchor within each of: own cell, left, upper, right, lower neighbour.
    """
    grid = boxes / stride
    ratio = boxes[None, :, 2:] / anchors[:, None].to(boxes)  # (A, T, 2)
    fits = torch.maximum(ratio, 1 / ratio).amax(dim=-1) < MOST_RATIO
    anchor, target = fits.nonzero(as_tuple=True)
    centre = grid[target, :2]
    rows, columns = size
    last = centre.new_tensor([columns, rows])
    low = (centre % 1 < 0.5) & (centre > 1)  # nearer to the neighbour before, and there is one
    left = (last - centre) % 1  # 0 on a boundary, where the cell after is the own one
    high = (left > 0) & (left < 0.5) & (last - centre > 1)  # nearer to the one after
    chosen = torch.stack((torch.ones_like(low[:, 0]), low[:, 0], low[:, 1], high[:, 0], high[:, 1]))
    steps = centre.new_tensor([[0, 0], [-1, 0], [0, -1], [1, 0], [0, 1]])
    which, number = chosen.nonzero(as_tuple=True)
    anchor, target = anchor[number], target[number]
    # A centre on the very edge of the image belongs to the last cell.
    cell = torch.minimum(grid[target, :2].floor() + steps[which], last - 1).clamp_(min=0)
    box = torch.cat((grid[target, :2] - cell, grid[target, 2:]), dim=1)
    column, row = cell.long().T
    return Matches(images[target], anchor, row, column, box, labels[target])
