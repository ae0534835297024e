"""What a network of each task is asked, and how its answer becomes the arrays of `pathzoo.wsi.predictor`.

A network is one that follows its host: mmpretrain's, mmseg's or mmdet's `forward(inputs, data_samples, mode)` with a
`data_preprocessor` that normalises. Only mmengine's structures are used here, so that neither mmseg nor mmdet is
imported unless the network itself is theirs. Pictures go in as RGB; nothing here exchanges channels.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from pathzoo.errors import ZooError
from pathzoo.wsi.predictor import Boxes, ClassProbs, Embeddings, Pictures, Prediction, SegProbs

if TYPE_CHECKING:
    import torch
    from torch import nn

    #: (network, uint8 (N, 3, H, W) on its device, number of classes) -> arrays; N is at least 1.
    Predict = Callable[[nn.Module, torch.Tensor, int], Prediction]


def classify(module: "nn.Module", tiles: "torch.Tensor", n_classes: int) -> ClassProbs:
    """mmpretrain's classifiers: mode "tensor" gives logits (N, C)."""
    import torch

    logits = module(_normalised(module, tiles), mode="tensor")
    _require(tuple(logits.shape) == (len(tiles), n_classes), logits.shape, f"logits (N, {n_classes})")
    return ClassProbs(torch.softmax(logits.float(), dim=1).cpu().numpy())


def embed(module: "nn.Module", tiles: "torch.Tensor", n_classes: int) -> Embeddings:
    """mmpretrain's classifiers without a head: mode "tensor" gives features; a map is averaged over the tile."""
    features = module(_normalised(module, tiles), mode="tensor")
    last = features[-1] if isinstance(features, (tuple, list)) else features
    if last.ndim == 4:
        last = last.mean(dim=(2, 3))
    _require(last.ndim == 2 and len(last) == len(tiles), last.shape, "vectors (N, D)")
    return Embeddings(last.float().cpu().numpy())


def segment(module: "nn.Module", tiles: "torch.Tensor", n_classes: int) -> SegProbs:
    """mmseg's segmentors: mode "predict" gives samples with `seg_logits` at the tile's size.

    One channel for two classes is mmseg's binary form: the probability of the second, through a sigmoid already.
    """
    import torch

    answers = _predicted(module, tiles)
    logits = torch.stack([answer.seg_logits.data for answer in answers]).float()
    if logits.shape[1] == 1 and n_classes == 2:
        probs = torch.cat([1 - logits, logits], dim=1)
    else:
        probs = torch.softmax(logits, dim=1)
    expected = (len(tiles), n_classes, *tiles.shape[2:])
    _require(tuple(probs.shape) == expected, probs.shape, f"maps {expected}")
    return SegProbs(probs.cpu().numpy())


def detect(module: "nn.Module", tiles: "torch.Tensor", n_classes: int) -> Boxes:
    """mmdet's detectors: mode "predict" gives samples with `pred_instances` (bboxes, scores, labels).

    Boxes are cut at the tile's edges, since some hosts leave them as regressed; one wholly outside is left out.
    """
    height, width = tiles.shape[2:]
    limits = np.array([width, height, width, height], np.float32)
    boxes = []
    for answer in _predicted(module, tiles):
        found = answer.pred_instances
        corners = getattr(found.bboxes, "tensor", found.bboxes)  # mmdet may wrap them in a class of its own
        columns = [values.float().cpu().numpy() for values in (corners, found.scores, found.labels)]
        _require(columns[0].ndim == 2 and columns[0].shape[1] == 4, columns[0].shape, "boxes (n, 4)")
        table = np.column_stack(columns).astype(np.float32)
        _require(not len(table) or int(table[:, 5].max()) < n_classes, table[:, 5].max(initial=0), "a known class")
        table[:, :4] = np.clip(table[:, :4], 0, limits)
        boxes.append(table[(table[:, 2] > table[:, 0]) & (table[:, 3] > table[:, 1])])
    return Boxes(boxes)


def translate(module: "nn.Module", labels: "torch.Tensor", n_classes: int) -> Pictures:
    """`LabelToImage`: `draw` makes pictures (N, K, H, W), 0..255, of label maps (N, H, W), without noise."""
    draw: Any = module.draw
    drawn = draw(labels).float()
    fits = drawn.ndim == 4 and len(drawn) == len(labels) and drawn.shape[2:] == labels.shape[1:]
    _require(fits, drawn.shape, "pictures (N, K, H, W)")
    return Pictures(drawn.cpu().numpy())


#: task -> what is asked; the tasks that this version runs.
PREDICTORS: "dict[str, Predict]" = {
    "classification": classify,
    "segmentation": segment,
    "detection": detect,
    "representation": embed,
    "translation": translate,
}


def first(prediction: Prediction, n: int) -> Prediction:
    """The same for the first `n` tiles only."""
    if isinstance(prediction, ClassProbs):
        return ClassProbs(prediction.probs[:n])
    if isinstance(prediction, SegProbs):
        return SegProbs(prediction.probs[:n])
    if isinstance(prediction, Embeddings):
        return Embeddings(prediction.vectors[:n])
    if isinstance(prediction, Pictures):
        return Pictures(prediction.values[:n])
    return Boxes(prediction.boxes[:n])


def _normalised(module: "nn.Module", tiles: "torch.Tensor") -> "torch.Tensor":
    # The host's preprocessor holds mean and std, so that training and prediction normalise by the same code.
    preprocess: Any = module.data_preprocessor
    inputs: torch.Tensor = preprocess({"inputs": tiles}, False)["inputs"]
    return inputs


def _predicted(module: "nn.Module", tiles: "torch.Tensor") -> list[Any]:
    """The host's own prediction, one sample per tile, in the tile's own pixels (no rescaling, no flip)."""
    from mmengine.structures import BaseDataElement

    shape = (int(tiles.shape[2]), int(tiles.shape[3]))
    sizes = dict.fromkeys(("ori_shape", "img_shape", "pad_shape", "batch_input_shape"), shape)
    samples = [BaseDataElement(metainfo={**sizes, "scale_factor": (1.0, 1.0)}) for _ in range(len(tiles))]
    preprocess: Any = module.data_preprocessor
    data = preprocess({"inputs": tiles, "data_samples": samples}, False)
    answers: list[Any] = list(module(data["inputs"], data["data_samples"], mode="predict"))
    _require(len(answers) == len(tiles), len(answers), f"{len(tiles)} answers")
    return answers


def _require(fits: bool, found: Any, wanted: str) -> None:
    if not fits:
        raise ZooError(f"the network answers {found} where {wanted} are wanted: its config is not of this task")
