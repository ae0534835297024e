"""Segmentation, detection and representation: published, verified and loaded, they answer as their hosts do."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_model import CARD, INPUT, MEAN, MODEL, STD

from pathzoo.errors import ZooError
from pathzoo.wsi.predictor import Boxes, Embeddings, SegProbs
from pathzoo.zoo.find import list_models
from pathzoo.zoo.golden import noise_tiles, summarise_boxes
from pathzoo.zoo.load import get_model
from pathzoo.zoo.publish import publish_model
from pathzoo.zoo.verify import verify_model

SIZE = (96, 64)  # width, height
NORMS = {"mean": MEAN, "std": STD}
SEGMENTER = {
    "type": "EncoderDecoder",
    "data_preprocessor": {"type": "SegDataPreProcessor", **NORMS, "size": (64, 96)},
    "backbone": {"type": "pathzoo.TimmBackbone", "name": "test_resnet"},
    "decode_head": {
        "type": "FCNHead",
        "in_channels": 96,
        "in_index": 0,
        "channels": 8,
        "num_convs": 1,
        "num_classes": 3,
        "norm_cfg": {"type": "BN"},
        "align_corners": False,
        "loss_decode": {"type": "CrossEntropyLoss"},
    },
    "train_cfg": {},
    "test_cfg": {"mode": "whole"},
}
DETECTOR = {
    "type": "RetinaNet",
    "data_preprocessor": {"type": "DetDataPreprocessor", **NORMS, "pad_size_divisor": 32},
    "backbone": {"type": "ResNet", "depth": 18, "base_channels": 4, "norm_cfg": {"type": "BN"}},
    "neck": {"type": "FPN", "in_channels": [4, 8, 16, 32], "out_channels": 8, "num_outs": 5, "start_level": 1},
    "bbox_head": {
        "type": "RetinaHead",
        "num_classes": 2,
        "in_channels": 8,
        "feat_channels": 8,
        "stacked_convs": 1,
        "anchor_generator": {
            "type": "AnchorGenerator",
            "octave_base_scale": 4,
            "scales_per_octave": 3,
            "ratios": [0.5, 1.0, 2.0],
            "strides": [8, 16, 32, 64, 128],
        },
        "bbox_coder": {"type": "DeltaXYWHBBoxCoder"},
        "loss_cls": {"type": "FocalLoss", "use_sigmoid": True},
        "loss_bbox": {"type": "L1Loss"},
    },
    "train_cfg": {"assigner": {"type": "MaxIoUAssigner"}},
    "test_cfg": {
        "nms_pre": 200,
        "min_bbox_size": 0,
        "score_thr": 0.05,
        "nms": {"type": "nms", "iou_threshold": 0.5},
        "max_per_img": 20,
    },
}
ENCODER = {key: MODEL[key] for key in ("type", "backbone", "neck", "data_preprocessor")}
TASKS = {
    "segmentation": (SEGMENTER, ["glass", "stroma", "tumour"]),
    "detection": (DETECTOR, ["nucleus", "glomerulus"]),
    "representation": (ENCODER, []),
}


def publish(config: dict, task: str, classes: list[str], folder: Path) -> Path:
    """A network with random weights, as a run would leave it, published."""
    import torch

    from pathzoo.zoo.allowlist import build_from_data, to_data

    torch.manual_seed(0)
    model = to_data(config)
    module = build_from_data(model)
    for name, buffer in module.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.1, 0.4)
    for name, parameter in module.named_parameters():  # spread, so that answers differ from place to place
        if name.endswith(("retina_cls.weight", "retina_reg.weight", "conv_seg.weight")):
            torch.nn.init.normal_(parameter, std=0.3)
    run = {"task": task, "model": model, "model_input": {**INPUT, "tile_size": list(SIZE)}, "classes": classes}
    run["data"] = {"synthetic": True}
    folder.mkdir()
    (folder / "train_run.json").write_text(json.dumps(run))
    torch.save({"state_dict": module.state_dict()}, folder / "last.pth")
    return publish_model(folder / "last.pth", f"tiny-{task}", "1.0.0", folder / "zoo", CARD)


@pytest.fixture(scope="module")
def published_tasks(tmp_path_factory) -> dict[str, Path]:
    """task -> published folder. Read only."""
    root = tmp_path_factory.mktemp("tasks")
    return {task: publish(config, task, classes, root / task) for task, (config, classes) in TASKS.items()}


def hosts_own(module, config, data_sample, size):
    """What the host makes of one tile by itself: its preprocessor and its `predict`, with its own sample class."""
    import torch

    shape = (size[1], size[0])
    sample = data_sample(metainfo={"img_shape": shape, "ori_shape": shape, "scale_factor": (1.0, 1.0)})
    tile = noise_tiles(5, 1, size)[0]
    with torch.no_grad():
        data = {"inputs": [torch.from_numpy(tile).permute(2, 0, 1)], "data_samples": [sample]}
        return module.test_step(data)[0]


def test_a_segmenter_answers_as_mmseg(published_tasks):
    model = get_model(published_tasks["segmentation"])
    from mmseg.structures import SegDataSample

    answer = model(noise_tiles(5, 1, SIZE))
    assert isinstance(answer, SegProbs)
    assert (answer.probs.shape, answer.probs.dtype) == ((1, 3, 64, 96), np.float32)
    own = hosts_own(model.module, SEGMENTER, SegDataSample, SIZE)
    logits = own.seg_logits.data.double().numpy()
    powers = np.exp(logits - logits.max(axis=0))
    np.testing.assert_allclose(answer.probs[0], powers / powers.sum(axis=0), atol=1e-6)
    np.testing.assert_array_equal(answer.probs[0].argmax(axis=0), own.pred_sem_seg.data[0].numpy())
    assert len(np.unique(answer.probs[0].argmax(axis=0))) > 1, "one class everywhere would hide a wrong axis"


def test_a_detector_answers_as_mmdet(published_tasks):
    model = get_model(published_tasks["detection"])
    from mmdet.structures import DetDataSample

    answer = model(noise_tiles(5, 2, SIZE))
    assert isinstance(answer, Boxes)
    assert len(answer.boxes) == 2
    single = model(noise_tiles(5, 1, SIZE)).boxes[0]
    own = hosts_own(model.module, DETECTOR, DetDataSample, SIZE).pred_instances
    assert len(own) > 3
    corners = own.bboxes.numpy()
    np.testing.assert_allclose(single[:, :4], corners, atol=5e-3)  # px; sums in another order
    np.testing.assert_allclose(single[:, 4], own.scores.numpy(), atol=1e-6)
    np.testing.assert_array_equal(single[:, 5], own.labels.numpy())
    assert single.dtype == np.float32
    assert (corners >= 0).all() and (corners <= [96, 64, 96, 64]).all()


def test_vectors_are_the_networks_features(published_tasks):
    import torch

    model = get_model(published_tasks["representation"])
    pictures = noise_tiles(5, 2, SIZE)
    answer = model(pictures)
    assert isinstance(answer, Embeddings)
    inputs = torch.from_numpy(((pictures.astype(np.float32) - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32))
    with torch.no_grad():
        expected = model.module.backbone(inputs)[0].mean(dim=(2, 3)).numpy()
    np.testing.assert_allclose(answer.vectors, expected, atol=1e-5)
    assert answer.vectors.shape == (2, 96)


@pytest.mark.parametrize("task", TASKS)
def test_red_is_red(published_tasks, task):
    """Channels reach the network in RGB order: the first mean and deviation are taken from the red of a red tile."""
    import torch

    model = get_model(published_tasks[task])
    red = np.zeros((1, SIZE[1], SIZE[0], 3), np.uint8)
    red[..., 0] = 255
    seen = []
    model.module.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(red)
    expected = torch.tensor([(255 - MEAN[0]) / STD[0], -MEAN[1] / STD[1], -MEAN[2] / STD[2]])
    torch.testing.assert_close(seen[0][0, :, 5, 7], expected)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("swap", ["bgr_to_rgb", "rgb_to_bgr"])
def test_a_config_that_exchanges_red_and_blue_is_refused(published_tasks, reseal, tmp_path, task, swap):
    folder = Path(shutil.copytree(published_tasks[task], tmp_path / "copy"))
    reseal(folder, lambda content: content["model"]["data_preprocessor"].update({swap: True}))
    with pytest.raises(ZooError, match=f"{swap} is true, but pictures are RGB already"):
        get_model(folder)


@pytest.mark.parametrize("task", TASKS)
def test_an_empty_batch(published_tasks, task):
    answer = get_model(published_tasks[task])(np.zeros((0, SIZE[1], SIZE[0], 3), np.uint8))
    shapes = {"segmentation": (0, 3, 64, 96), "representation": (0, 96)}
    if task == "detection":
        assert answer.boxes == []
    else:
        assert (answer.probs if task == "segmentation" else answer.vectors).shape == shapes[task]


@pytest.mark.parametrize("task", TASKS)
def test_golden_outputs_are_kept_and_compared(published_tasks, reseal, tmp_path, task):
    folder = Path(shutil.copytree(published_tasks[task], tmp_path / "copy"))
    golden = json.loads((folder / "model.json").read_text())["golden"]
    quantity = {"segmentation": "mean_class_probs", "detection": "boxes", "representation": "embeddings"}[task]
    assert golden["quantity"] == quantity
    assert len({len(row) for row in golden["outputs"]}) == 1
    assert np.any(golden["outputs"]), "golden outputs of nothing prove nothing"
    report = verify_model(folder, golden=True)
    assert report.ok and report.golden_checked, report.problems

    def spoil(content):
        content["golden"]["outputs"][1][0] += 0.01

    reseal(folder, spoil)
    assert "outputs differ by 0.01" in str(verify_model(folder, golden=True).problems)
    reseal(folder, lambda content: content["golden"].update(quantity="class_probs"))
    assert f"golden: keeps class_probs; of a {task} model {quantity} are compared" in str(
        verify_model(folder, golden=True).problems
    )


def test_a_boxs_coming_and_going_at_the_threshold_is_within_the_tolerance():
    rng = np.random.default_rng(0)
    boxes = np.column_stack([rng.uniform(0, 40, (30, 2)), rng.uniform(50, 64, (30, 2)), rng.random(30), [0, 1] * 15])
    kept = summarise_boxes(boxes, (64, 64), 2)
    assert kept.shape == (10,)
    one_more = np.vstack([boxes, [3, 4, 60, 50, 0.05, 1]])
    assert np.abs(summarise_boxes(one_more, (64, 64), 2) - kept).max() < 0.0025
    np.testing.assert_allclose(summarise_boxes(boxes[::-1], (64, 64), 2), kept)
    x0, y0, x1, y1, score, _ = boxes[boxes[:, 5] == 0].T  # second derivation for class 0
    weight = score**2
    total = 1 + weight.sum()
    expected = [weight.sum(), (weight * (x0 + x1) / 128).sum(), (weight * (y0 + y1) / 128).sum()]
    expected += [(weight * (x1 - x0) / 64).sum(), (weight * (y1 - y0) / 64).sum()]
    np.testing.assert_allclose(kept[:5], np.array(expected) / total)
    assert not summarise_boxes(np.zeros((0, 6)), (64, 64), 2).any()


@pytest.mark.parametrize(("task", "key"), [("segmentation", "decode_head"), ("detection", "bbox_head")])
def test_classes_and_outputs_have_to_agree(published_tasks, reseal, tmp_path, task, key):
    folder = Path(shutil.copytree(published_tasks[task], tmp_path / "copy"))
    reseal(folder, lambda content: content.update(classes=["one"]))
    with pytest.raises(ZooError, match=rf"model\.{key}\.num_classes is \d, but there are 1 classes"):
        get_model(folder)


def test_mmsegs_binary_form_is_two_classes(tmp_path):
    config = json.loads(json.dumps(SEGMENTER))
    config["decode_head"] |= {"num_classes": 2, "out_channels": 1, "threshold": 0.3}
    config["decode_head"]["loss_decode"]["use_sigmoid"] = True
    model = get_model(publish(config, "segmentation", ["glass", "tissue"], tmp_path / "binary"))
    from mmseg.structures import SegDataSample

    probs = model(noise_tiles(5, 1, SIZE)).probs[0]
    own = hosts_own(model.module, config, SegDataSample, SIZE).seg_logits.data[0].numpy()
    np.testing.assert_allclose(probs, np.stack([1 - own, own]), atol=1e-6)


def test_they_are_listed_by_task(published_tasks, no_zoo, monkeypatch, capsys):
    from pathzoo.cli import main

    roots = [str(folder.parent.parent) for folder in published_tasks.values()]
    monkeypatch.setenv("PATHZOO_ZOO", ":".join(roots))
    assert {row["task"] for row in list_models()} == set(TASKS)
    for task, folder in published_tasks.items():
        assert [row["name"] for row in list_models(task=task)] == [f"tiny-{task}"]
        index = json.loads((folder.parent.parent / "index.json").read_text())
        assert [row["task"] for row in index["models"]] == [task]
        card = (folder / "README.md").read_text()
        assert f"{task}: " in card or task == "representation"
        assert " in, " in card
    assert main(["list", "--task", "detection", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["tiny-detection"]
    assert main(["info", "tiny-segmentation", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["task"] == "segmentation"
