"""From the maps of a YOLOv5 head to boxes: those above a score, and of those that cover each other the best."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_convert

from pathzoo.models.dense_heads.yolov5_boxes import decode_cells


class Candidates(NamedTuple):
    """Boxes of a batch, K of them.

    Attributes:
        image: (K,) int64, which image of the batch.
        box: (K, 4) float32, x0, y0, x1, y1 in pixels of the batch; may reach beyond the image.
        score: (K,) float32, 0..1.
        label: (K,) int64.
    """

    image: Tensor
    box: Tensor
    score: Tensor
    label: Tensor


def candidates(maps: Sequence[Tensor], anchors: Tensor, strides: Sequence[int], threshold: float) -> Candidates:
    """Every cell whose score is above `threshold`, with its best class.

    The score is objectness times the probability of the class; with one class, objectness alone, since that class is
    never trained. Only cells whose objectness is above the threshold are decoded: no score is above its objectness.

    Args:
        maps: of each level (N, A, H, W, 5 + C): x, y, width, height, objectness, classes, before the sigmoid.
        anchors: (levels, A, 2), width and height in pixels.
        strides: pixels per cell, of each level.
        threshold: 0..1.
    """
    found = [
        _of_level(raw, anchors[k], stride, threshold) for k, (raw, stride) in enumerate(zip(maps, strides, strict=True))
    ]
    return Candidates(*(torch.cat(values) for values in zip(*found, strict=True)))


def suppress(
    boxes: Tensor, scores: Tensor, labels: Tensor, overlap: float, most: int, considered: int = 30_000
) -> Tensor:
    """Indices of one image's boxes that stay, by falling score, `most` at most.

    A box goes where a better one of its class has an IoU above `overlap` with it. Only the best `considered` boxes are
    looked at.
    """
    order = scores.argsort(descending=True, stable=True)[:considered]
    kept = batched_nms(boxes[order], scores[order], labels[order], overlap)
    return order[kept[:most]]


def _of_level(raw: Tensor, anchors: Tensor, stride: int, threshold: float) -> Candidates:
    objectness = raw[..., 4].float().sigmoid()
    image, anchor, row, column = (objectness > threshold).nonzero(as_tuple=True)
    cells = raw[image, anchor, row, column].float()  # (K, 5 + C)
    score = objectness[image, anchor, row, column]
    if cells.shape[1] > 6:
        best, label = cells[:, 5:].max(dim=1)
        score = score * best.sigmoid()
    else:
        label = torch.zeros_like(image)
    places = torch.stack((column, row), dim=1).to(cells.dtype)
    boxes = decode_cells(cells[:, :4], places, anchors[anchor].to(cells) / stride, 1.0) * stride
    stays = score > threshold
    return Candidates(image[stays], box_convert(boxes, "cxcywh", "xyxy")[stays], score[stays], label[stays])
