"""YOLOv5's head (release 7.0) on mmdet's contract: one convolution for each level, three anchors in every cell."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.structures.bbox import get_box_tensor
from mmengine.dist import get_world_size
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torchvision.ops import box_convert

from pathzoo.errors import ConfigError
from pathzoo.models.dense_heads.yolov5_boxes import COCO_ANCHORS
from pathzoo.models.dense_heads.yolov5_candidates import candidates, suppress
from pathzoo.models.dense_heads.yolov5_loss import Objects, yolov5_loss
from pathzoo.registry import MODELS

#: Input of this side, pixels, is what the published gains and biases are for.
_USUAL_SIDE = 640
_USUAL_CLASSES, _USUAL_LEVELS = 80, 3
_TEST_CFG = {"score_thr": 0.001, "nms": {"iou_threshold": 0.45}, "nms_pre": 30_000, "max_per_img": 300}


@MODELS.register_module()
class YOLOv5Head(BaseDenseHead):
    """Boxes, objectness and classes at every cell of three maps.

    Args:
        num_classes: C.
        in_channels: of the maps, the finest first, as `YOLOv5PAFPN.channels`.
        anchors: for each level its anchors' width and height in pixels; tools/analysis_tools/fit_anchors.py fits them.
            They are kept with the weights, and weights of other anchors are refused.
        strides: pixels per cell of each level.
        box_gain, objectness_gain, class_gain: weights of the losses (see `loss_by_feat`) at 640 pixels, 80 classes and
            three levels.
        balance: of the levels' objectness.
        label_smoothing: e, 0..1: the right class is drawn to 1 - e / 2, the others to e / 2.
        train_cfg: mmdet's; nothing is read from it.
        test_cfg: score_thr (boxes of a higher score are answered; 0.001), nms.iou_threshold (of boxes of one class that
            overlap by more the best stays; 0.45), nms_pre (that many boxes of an image are compared; 30,000),
            max_per_img (300).
        init_cfg: mmengine's; leave it None.

    Shape: maps (N, in_channels[k], H, W) -> a tuple of one list: of each level (N, A, H, W, 5 + C) with x, y, width,
    height, objectness, classes before the sigmoid (see `yolov5_boxes`).

    Raises:
        ConfigError: Levels that do not agree, anchors without size, an unknown word in `test_cfg`.
    """

    #: A step of more tiles goes further by itself: scaling its rate by the batch would count the batch twice.
    loss_is_sum = True

    def __init__(
        self,
        num_classes: int,
        in_channels: Sequence[int],
        anchors: Sequence[Sequence[Sequence[float]]] = COCO_ANCHORS,
        strides: Sequence[int] = (8, 16, 32),
        box_gain: float = 0.05,
        objectness_gain: float = 1.0,
        class_gain: float = 0.5,
        balance: Sequence[float] = (4.0, 1.0, 0.4),
        label_smoothing: float = 0.0,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.num_classes, self.strides, self.balance = num_classes, tuple(strides), tuple(balance)
        self.gains = {"box": box_gain, "objectness": objectness_gain, "class": class_gain}
        self.label_smoothing, self.train_cfg = label_smoothing, train_cfg
        self.test_cfg = _completed(test_cfg)
        self.register_buffer("anchors", _as_tensor(anchors, len(self.strides)))
        if not len(in_channels) == len(self.strides) == len(self.balance):
            raise ConfigError(
                f"YOLOv5Head: in_channels={tuple(in_channels)}, strides={self.strides}, balance={self.balance}: "
                "give one number for each level"
            )
        outputs = self.anchors.shape[1] * (5 + num_classes)
        self.convs = nn.ModuleList(nn.Conv2d(channels, outputs, 1) for channels in in_channels)
        self._set_priors()

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor]]:
        """See the class."""
        count = self.anchors.shape[1]
        maps = []
        for conv, level in zip(self.convs, x, strict=True):
            raw = conv(level)
            maps.append(raw.unflatten(1, (count, 5 + self.num_classes)).permute(0, 1, 3, 4, 2))
        return (maps,)

    def loss_by_feat(
        self,
        maps: list[Tensor],
        batch_gt_instances: Sequence[InstanceData],
        batch_img_metas: Sequence[dict],
        batch_gt_instances_ignore: Sequence[InstanceData | None] | None = None,
    ) -> dict[str, Tensor]:
        """`yolov5_loss` with the gains as published: times the images of a batch, on all ranks.

        Box: gain x 3 / levels. Objectness: gain x (size / 640)^2 x 3 / levels, with `size` the longer side of the
        batch. Class: gain x classes / 80 x 3 / levels. Cells that an ignored box touches, unless they answer for an
        object, are left out of objectness.

        Returns:
            loss_box, loss_objectness, loss_class; the last is 0 with one class.

        Raises:
            ConfigError: An object of a class that the head does not have.
        """
        objects = _objects(batch_gt_instances, self.anchors.device)
        wrong = objects.label[(objects.label < 0) | (objects.label >= self.num_classes)]
        if len(wrong):
            raise ConfigError(
                f"YOLOv5Head: num_classes is {self.num_classes}, but an object is of class {int(wrong[0])} "
                "(counted from 0): give as many as the data have"
            )
        found = yolov5_loss(
            maps,
            objects,
            _objects(batch_gt_instances_ignore or [], self.anchors.device),
            self.anchors,
            self.strides,
            self.balance,
            self.label_smoothing,
        )
        images = len(maps[0]) * get_world_size()  # ranks' gradients are averaged; so the sum is over all images
        levels = images * _USUAL_LEVELS / len(maps)
        side = max(maps[0].shape[2:4]) * self.strides[0]
        return {
            "loss_box": self.gains["box"] * levels * found.box,
            "loss_objectness": self.gains["objectness"] * (side / _USUAL_SIDE) ** 2 * levels * found.objectness,
            "loss_class": self.gains["class"] * self.num_classes / _USUAL_CLASSES * levels * found.classes,
        }

    def predict_by_feat(
        self,
        maps: list[Tensor],
        batch_img_metas: Sequence[dict],
        cfg: dict | None = None,
        rescale: bool = False,
        with_nms: bool = True,
    ) -> list[InstanceData]:
        """One `InstanceData` for each image: bboxes (n, 4) x0, y0, x1, y1, scores (n,), labels (n,), by falling score.

        Boxes are cut at the picture's edges (`img_shape`; padding is right and below of it), and those wholly outside
        left out. With `rescale` they are in pixels of the picture before `scale_factor`, where the sample has one. What
        `cfg` does not say is as in `test_cfg`.
        """
        cfg = _completed({**self.test_cfg, **(cfg or {})})
        found = candidates(maps, self.anchors, self.strides, cfg["score_thr"])
        answers = []
        for number, meta in enumerate(batch_img_metas):
            height, width = meta["img_shape"][:2]
            cut = found.box.clamp_min(0).minimum(found.box.new_tensor([width, height, width, height]))
            stays = (found.image == number) & (cut[:, 2:] > cut[:, :2]).all(dim=1)
            boxes, scores, labels = cut[stays], found.score[stays], found.label[stays]
            if with_nms:
                overlap = cfg["nms"]["iou_threshold"]
                kept = suppress(boxes, scores, labels, overlap, cfg["max_per_img"], cfg["nms_pre"])
                boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
            if rescale:
                boxes = boxes / boxes.new_tensor(meta.get("scale_factor", (1.0, 1.0))).repeat(2)
            answers.append(InstanceData(bboxes=boxes, scores=scores, labels=labels))
        return answers

    def _set_priors(self) -> None:
        """Biases as published: 8 objects in an image of 640 x 640 pixels, every class as likely as the next."""
        for conv, stride in zip(self.convs, self.strides, strict=True):
            bias = conv.bias.data.view(-1, 5 + self.num_classes)
            bias[:, 4] = math.log(8 / (_USUAL_SIDE / stride) ** 2)
            bias[:, 5:] = math.log(0.6 / (self.num_classes - 0.99999))

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        """Weights of other anchors would give other boxes without a word."""
        given = state_dict.get(f"{prefix}anchors")
        if given is not None and not (
            given.shape == self.anchors.shape and torch.allclose(given.to(self.anchors), self.anchors, rtol=1e-3)
        ):
            args[-1].append(
                f"{prefix}anchors: the weights are for anchors {given.tolist()}, the config has "
                f"{self.anchors.tolist()}; set the head's `anchors` to those of the weights (training from `load_from` "
                "goes on with the config's)"
            )
            state_dict[f"{prefix}anchors"] = self.anchors.clone()
        super()._load_from_state_dict(state_dict, prefix, *args)


def _as_tensor(anchors: Sequence[Sequence[Sequence[float]]], levels: int) -> Tensor:
    """(levels, A, 2), float32."""
    try:
        found = np.array(anchors, dtype=np.float32)  # values of NumPy's are there on the device "meta" too
    except (TypeError, ValueError) as error:
        raise ConfigError(f"YOLOv5Head: anchors={anchors!r}: {error}; give levels of pairs of numbers") from error
    if found.ndim != 3 or found.shape[0] != levels or found.shape[2] != 2 or not (found > 0).all():
        raise ConfigError(
            f"YOLOv5Head: anchors={anchors!r}: give for each of {levels} levels equally many pairs of width and "
            "height, above 0"
        )
    return torch.tensor(found.tolist())


def _completed(cfg: dict | None) -> dict:
    unknown = sorted({*(cfg or {})} - {*_TEST_CFG})
    if unknown:
        raise ConfigError(f"YOLOv5Head: test_cfg has {unknown[0]!r}; taken are {', '.join(_TEST_CFG)}")
    found = {**_TEST_CFG, **(cfg or {})}
    nms = found["nms"]
    if not isinstance(nms, Mapping) or nms.get("type", "nms") != "nms" or "iou_threshold" not in nms:
        raise ConfigError(f"YOLOv5Head: test_cfg.nms={nms!r}; give dict(type='nms', iou_threshold=...)")
    return found


def _objects(batch: Sequence[InstanceData | None], device: torch.device) -> Objects:
    """The batch's instances in one table; None is an image without any."""
    images, labels, boxes = [], [], []
    for number, instances in enumerate(batch):
        if instances is None or not len(instances):
            continue
        corners = get_box_tensor(instances.bboxes).to(device, torch.float32)
        boxes.append(box_convert(corners, "xyxy", "cxcywh"))
        labels.append(instances.get("labels", torch.zeros(len(corners), dtype=torch.int64)).to(device))
        images.append(torch.full((len(corners),), number, dtype=torch.int64, device=device))
    if not boxes:
        none = torch.zeros(0, dtype=torch.int64, device=device)
        return Objects(none, none, torch.zeros(0, 4, device=device))
    return Objects(torch.cat(images), torch.cat(labels), torch.cat(boxes))
