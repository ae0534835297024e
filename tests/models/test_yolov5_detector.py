"""YOLOv5 whole, in mmdet's SingleStageDetector: the release's parameters, answers against loops, and that it learns."""

import math

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import nn
from torchvision.ops import box_iou

from pathzoo.errors import ConfigError
from pathzoo.models import YOLOv5Head
from pathzoo.models.backbones.yolov5_backbone import YOLOV5_SIZES
from pathzoo.models.layers import scaled_channels
from pathzoo.registry import MODELS

#: Parameters of release 7.0 with 80 classes, not fused.
PUBLISHED = {"n": 1_872_157, "s": 7_235_389, "m": 21_190_557, "l": 46_563_709, "x": 86_749_405}
CLOSE_ANCHORS = [[[10, 10], [14, 14], [18, 18]], [[18, 18], [22, 22], [26, 26]], [[22, 22], [26, 26], [30, 30]]]


def detector(deepen, widen, classes, **head):
    channels = [scaled_channels(width, widen) for width in (256, 512, 1024)]
    config = {
        "type": "mmdet.SingleStageDetector",
        "data_preprocessor": {
            "type": "mmdet.DetDataPreprocessor",
            "mean": [0, 0, 0],
            "std": [255, 255, 255],
            "bgr_to_rgb": False,
            "pad_size_divisor": 32,
            "pad_value": 114,
        },
        "backbone": {"type": "pathzoo.YOLOv5Backbone", "deepen": deepen, "widen": widen},
        "neck": {"type": "pathzoo.YOLOv5PAFPN", "channels": channels, "deepen": deepen},
        "bbox_head": {"type": "pathzoo.YOLOv5Head", "num_classes": classes, "in_channels": channels, **head},
    }
    return MODELS.build(ConfigDict(config))


def samples(boxes, labels=None, ignored=None, **metainfo):
    """One data sample for each image; boxes x0, y0, x1, y1."""
    found = []
    for number, corners in enumerate(boxes):
        corners = torch.as_tensor(corners, dtype=torch.float32).reshape(-1, 4)
        sample = DetDataSample(metainfo=dict(metainfo))
        kinds = torch.zeros(len(corners), dtype=torch.long) if labels is None else torch.tensor(labels[number])
        sample.gt_instances = InstanceData(bboxes=corners, labels=kinds)
        if ignored is not None:
            hidden = torch.as_tensor(ignored[number], dtype=torch.float32).reshape(-1, 4)
            sample.ignored_instances = InstanceData(bboxes=hidden, labels=torch.zeros(len(hidden), dtype=torch.long))
        found.append(sample)
    return found


@pytest.mark.parametrize(("size", "published"), PUBLISHED.items())
def test_parameters_are_those_of_the_release(size, published):
    with torch.device("meta"):
        model = detector(*YOLOV5_SIZES[size], classes=80)
    assert sum(p.numel() for p in model.parameters()) == published


def test_biases_say_eight_objects_in_an_image_of_640():
    head = YOLOv5Head(3, (8, 8, 8))
    maps = head([torch.zeros(1, 8, 640 // s, 640 // s) for s in head.strides])[0]
    for raw in maps:
        assert float(raw[..., 4].exp().sum().detach()) == pytest.approx(3 * 8, rel=1e-4)  # of each of the three anchors
    assert raw[0, 0, 0, 0, 5:].tolist() == pytest.approx([math.log(0.6 / 2.00001)] * 3)


@pytest.fixture(scope="module")
def head():
    torch.manual_seed(0)
    return YOLOv5Head(2, (4, 6, 8), test_cfg={"score_thr": 0.2, "max_per_img": 20}).eval()


def random_maps(head, height=64, width=96):
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(2, 3, height // s, width // s, 7, generator=generator) for s in head.strides]


def answers_by_loops(head, raw_maps, image, width, height, overlap):
    """Every cell decoded and scored by the formulas, then of overlapping boxes of one class the best."""
    found = []
    for level, raw in enumerate(raw_maps):
        for anchor in range(3):
            for row in range(raw.shape[2]):
                for column in range(raw.shape[3]):
                    s = [1 / (1 + math.exp(-v)) for v in raw[image, anchor, row, column].tolist()]
                    stride = head.strides[level]
                    w, h = (4 * s[2 + k] ** 2 * float(head.anchors[level, anchor, k]) for k in (0, 1))
                    x, y = (2 * s[0] - 0.5 + column) * stride, (2 * s[1] - 0.5 + row) * stride
                    label = 0 if s[5] > s[6] else 1
                    box = [max(x - w / 2, 0), max(y - h / 2, 0), min(x + w / 2, width), min(y + h / 2, height)]
                    if s[4] * s[5 + label] > 0.2 and box[2] > box[0] and box[3] > box[1]:
                        found.append((s[4] * s[5 + label], label, box))
    kept = []
    for score, label, box in sorted(found, reverse=True):
        others = [other for _, kind, other in kept if kind == label]
        if not others or box_iou(torch.tensor([box]), torch.tensor(others)).max() <= overlap:
            kept.append((score, label, box))
    return kept


def test_answers_are_those_of_the_formulas(head):
    maps = random_maps(head)
    metas = [{"img_shape": (60, 90)}, {"img_shape": (64, 96), "scale_factor": (0.5, 0.25)}]
    for image, (meta, found) in enumerate(zip(metas, head.predict_by_feat(maps, metas), strict=True)):
        expected = answers_by_loops(head, maps, image, meta["img_shape"][1], meta["img_shape"][0], 0.45)[:20]
        assert len(expected) > 5 and {label for _, label, _ in expected} == {0, 1}
        assert found.labels.tolist() == [label for _, label, _ in expected]
        np.testing.assert_allclose(found.scores, [score for score, _, _ in expected], rtol=1e-5)
        np.testing.assert_allclose(found.bboxes, [box for _, _, box in expected], atol=1e-3)


def test_rescaled_boxes_are_in_pixels_of_the_original(head):
    metas = [{"img_shape": (64, 96), "scale_factor": (0.5, 0.25)}, {"img_shape": (64, 96)}]
    maps = random_maps(head)
    plain, rescaled = head.predict_by_feat(maps, metas), head.predict_by_feat(maps, metas, rescale=True)
    torch.testing.assert_close(rescaled[0].bboxes, plain[0].bboxes * torch.tensor([2.0, 4.0, 2.0, 4.0]))
    torch.testing.assert_close(rescaled[1].bboxes, plain[1].bboxes)


def test_nothing_above_the_threshold_is_an_empty_answer(head):
    maps = [torch.full_like(raw, -20) for raw in random_maps(head)]
    for found in head.predict_by_feat(maps, [{"img_shape": (64, 96)}] * 2):
        assert (found.bboxes.shape, found.scores.shape, found.labels.shape) == ((0, 4), (0,), (0,))


def test_a_box_in_the_padding_is_left_out(head):
    maps = [torch.full_like(raw, -20) for raw in random_maps(head)]
    maps[0][0, 0, 7, 11] = torch.tensor([0, 0, 0, 0, 9.0, 9, 0])  # centre 92, 60; 10 x 13 px
    for width, count in ((96, 1), (90, 1), (86, 0)):
        assert len(head.predict_by_feat(maps, [{"img_shape": (64, width)}] * 2)[0]) == count


def test_what_a_call_does_not_say_is_as_configured(head):
    maps, metas = random_maps(head), [{"img_shape": (64, 96)}] * 2
    few = head.predict_by_feat(maps, metas, cfg={"max_per_img": 3})[0]
    assert (len(few), float(few.scores.min()) > 0.2) == (3, True)
    torch.testing.assert_close(few.scores, head.predict_by_feat(maps, metas)[0].scores[:3])


def test_one_class_scores_by_objectness():
    head = YOLOv5Head(1, (4, 4, 4), test_cfg={"score_thr": 0.5})
    maps = [torch.full((1, 3, 64 // s, 64 // s, 6), -9.0) for s in head.strides]
    maps[1][0, 1, 2, 2, 4] = 1.0
    [found] = head.predict_by_feat(maps, [{"img_shape": (64, 64)}])
    assert found.scores.tolist() == pytest.approx([1 / (1 + math.exp(-1))])


@pytest.mark.parametrize("kind", ["none", "some"])
@pytest.mark.parametrize("autocast", [False, True])
def test_every_parameter_has_a_gradient(kind, autocast):
    """So that DistributedDataParallel needs no search for unused ones."""
    torch.manual_seed(0)
    model = detector(0.33, 0.125, classes=1).train()
    boxes = [[], []] if kind == "none" else [[[5, 5, 30, 30]], []]
    data = {"inputs": [torch.randint(0, 256, (3, 64, 60), dtype=torch.uint8)] * 2, "data_samples": samples(boxes)}
    data = model.data_preprocessor(data, training=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        losses = model(**data, mode="loss")
    total, _ = model.parse_losses(losses)
    assert set(losses) == {"loss_box", "loss_objectness", "loss_class"} and torch.isfinite(total)
    total.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not without


def test_gains_follow_size_classes_and_images():
    torch.manual_seed(0)
    head, other = YOLOv5Head(2, (4, 4, 4)), YOLOv5Head(2, (4, 4, 4), box_gain=1, objectness_gain=1, class_gain=1)
    maps = [torch.randn(4, 3, 64 // s, 128 // s, 7) for s in head.strides]
    found = samples([[[5, 5, 50, 40]], [], [[10, 10, 30, 60]], []])
    instances = [sample.gt_instances for sample in found]
    one, plain = (each.loss_by_feat(maps, instances, [{}] * 4) for each in (head, other))
    from pathzoo.models.dense_heads.yolov5_head import _objects
    from pathzoo.models.dense_heads.yolov5_loss import yolov5_loss

    objects, none = _objects(instances, maps[0].device), _objects([None], maps[0].device)
    means = yolov5_loss(maps, objects, none, head.anchors, head.strides, head.balance)
    factors = {"loss_box": 1.0, "loss_objectness": (128 / 640) ** 2, "loss_class": 2 / 80}
    for (name, factor), mean in zip(factors.items(), means, strict=True):
        assert float(plain[name]) == pytest.approx(4 * factor * float(mean), rel=1e-5)
    assert [float(one[name] / plain[name]) for name in factors] == pytest.approx([0.05, 1.0, 0.5])


def test_an_ignored_box_is_no_background():
    torch.manual_seed(0)
    head = YOLOv5Head(1, (4, 4, 4))
    maps = [torch.zeros(1, 3, 64 // s, 64 // s, 6, requires_grad=True) for s in head.strides]
    [sample] = samples([[]], ignored=[[[16, 8, 32, 24]]])
    losses = head.loss_by_feat(maps, [sample.gt_instances], [{}], [sample.ignored_instances])
    sum(losses.values()).backward()
    silent = (maps[0].grad[0, 0, :, :, 4] == 0).nonzero().tolist()
    assert silent == [[1, 2], [1, 3], [2, 2], [2, 3]]


def pictures():
    """Four pictures of grey noise with red and blue squares: images, corners, labels."""
    rng = np.random.RandomState(0)
    images, boxes, labels = [], [], []
    for number in range(4):
        image = rng.randint(90, 130, (64, 64, 3)).astype(np.uint8)
        places = [(4, 6, 18), (38, 32, 22)] if number % 2 else [(34, 4, 20), (6, 36, 24), (42, 42, 14)]
        for k, (x, y, side) in enumerate(places):
            image[y : y + side, x : x + side] = (60, 60, 240) if (number + k) % 2 else (240, 60, 60)
        images.append(torch.from_numpy(image).permute(2, 0, 1))
        boxes.append([[x, y, x + side, y + side] for x, y, side in places])
        labels.append([(number + k) % 2 for k in range(len(places))])
    return images, boxes, labels


def test_it_learns_four_pictures():
    torch.manual_seed(0)
    model = detector(0.33, 0.125, classes=2, anchors=CLOSE_ANCHORS).train()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 0.1  # so few steps are too few for the release's 0.03
    images, boxes, labels = pictures()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=80)
    found = samples(boxes, labels, img_shape=(64, 64), ori_shape=(64, 64))
    for _ in range(80):
        data = model.data_preprocessor({"inputs": images, "data_samples": found}, training=True)
        total, _ = model.parse_losses(model(**data, mode="loss"))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        answers = model.test_step({"inputs": images, "data_samples": found})
    for answer, corners, kinds in zip(answers, boxes, labels, strict=True):
        sure = answer.pred_instances[answer.pred_instances.scores > 0.5]
        assert len(sure) == len(corners)
        overlap, nearest = box_iou(torch.tensor(corners).float(), sure.bboxes).max(dim=1)
        assert overlap.min() > 0.7
        assert sure.labels[nearest].tolist() == kinds


def test_weights_of_other_anchors_are_refused_and_the_configs_are_kept():
    ours, other = YOLOv5Head(1, (4, 4, 4)), YOLOv5Head(1, (4, 4, 4), anchors=CLOSE_ANCHORS)
    state = other.state_dict()
    with pytest.raises(RuntimeError, match="the weights are for anchors"):
        ours.load_state_dict(state)
    torch.testing.assert_close(ours.anchors[0], torch.tensor([[10.0, 13.0], [16.0, 30.0], [33.0, 23.0]]))
    torch.testing.assert_close(state["anchors"], torch.tensor(CLOSE_ANCHORS).float())
    other.load_state_dict({name: value.half() for name, value in state.items()})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"anchors": [[[10, 13]], [[30, 61]]]}, "for each of 3 levels"),
        ({"anchors": [[[10, 13]], [[30, 61]], [[0, 61]]]}, "above 0"),
        ({"anchors": [[[10, 13]], [[30, 61], [3, 3]], [[0, 61]]]}, "pairs of numbers"),
        ({"in_channels": (8, 8)}, "one number for each level"),
        ({"test_cfg": {"score_threshold": 0.1}}, "test_cfg has 'score_threshold'"),
        ({"test_cfg": {"nms": {"type": "soft_nms", "iou_threshold": 0.5}}}, r"give dict\(type='nms', iou_threshold"),
        ({"test_cfg": {"nms": None}}, r"test_cfg.nms=None; give dict"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        YOLOv5Head(**{"num_classes": 1, "in_channels": (8, 8, 8), **arguments})


@pytest.mark.parametrize("label", [1, -1])
def test_a_class_that_the_head_lacks_is_refused(label):
    head = YOLOv5Head(1, (4, 4, 4))
    maps = [torch.zeros(1, 3, 64 // s, 64 // s, 6) for s in head.strides]
    [sample] = samples([[[5, 5, 20, 20]]], labels=[[label]])
    with pytest.raises(ConfigError, match=f"num_classes is 1, but an object is of class {label}"):
        head.loss_by_feat(maps, [sample.gt_instances], [{}])
