"""RTMDet, the peer of YOLOv5, all the way: weights of 80 classes, training, testing, publishing, a slide."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from box_files import tiny_detection, write_squares
from tiny_model import CARD

from pathzoo.apis.config import load_config
from pathzoo.apis.predict import predict
from pathzoo.apis.setup import setup
from pathzoo.apis.test import test as run_test
from pathzoo.apis.train import train
from pathzoo.engine.checkpoint import chosen_checkpoint, load_checkpoint_safely, state_dict_of
from pathzoo.errors import ConfigError
from pathzoo.registry import MODELS
from pathzoo.zoo.golden import noise_tiles
from pathzoo.zoo.load import get_model
from pathzoo.zoo.publish import publish_model
from pathzoo.zoo.verify import verify_model

CONFIG = "glomerulus_yolov5/rtmdet-tiny_1xb8_40e_glomeruli_small.py"
SIDE = 96
SCORES = [f"bbox_head.rtm_cls.{level}.{part}" for level in range(3) for part in ("weight", "bias")]


@pytest.fixture(scope="module")
def options(tmp_path_factory) -> dict:
    root = write_squares(tmp_path_factory.mktemp("tiles") / "tiles", SIDE)
    return tiny_detection(root, SIDE) | {"model.test_cfg.max_per_img": 10}


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    """Weights as of COCO's 80 classes, tensors alone, that answer with boxes of a size."""
    setup()
    model = load_config(CONFIG, {"model.bbox_head.num_classes": 80}).model
    torch.manual_seed(0)
    module = MODELS.build(model)
    module.init_weights()
    for conv in module.bbox_head.rtm_reg:
        torch.nn.init.constant_(conv.bias, 1.5)
    path = tmp_path_factory.mktemp("coco") / "coco.pth"
    torch.save(module.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def run(options, start, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rtmdet") / "run"
    train(CONFIG, folder, options=options | {"load_from": str(start)}, seed=0)
    run_test(CONFIG, work_dir=folder, options=options)
    return folder


@pytest.fixture(scope="module")
def published(run) -> Path:
    return publish_model(chosen_checkpoint(run), "tiny-rtmdet", "1.0.0", run / "zoo", CARD, run=run)


def test_it_begins_with_weights_of_other_classes_and_says_what_is_left_out(run, start):
    logs = "\n".join(path.read_text() for path in run.glob("*/*.log"))  # of training and of testing
    [told] = [line for line in logs.splitlines() if "are left out" in line]
    assert told.partition("coco.pth: 6 tensors")[2].partition(": ")[2].split(", ") == SCORES
    begun, ended = (state_dict_of(load_checkpoint_safely(path)) for path in (start, chosen_checkpoint(run)))
    moved = {name: float((begun[name] - ended[name]).abs().max()) for name in begun if name.endswith("conv.weight")}
    assert 0 < max(moved.values()) < 0.01  # a few steps of AdamW from there; from elsewhere they are 0.1 and more apart
    assert {ended[name].shape[0] for name in SCORES} == {1}


@pytest.mark.parametrize("boxes", [[], [[8.0, 8, 48, 44]]])
@pytest.mark.parametrize("autocast", [False, True])
def test_every_parameter_has_a_gradient(boxes, autocast):
    """In mixed precision too, and of tiles without objects."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    torch.manual_seed(0)
    module = MODELS.build(load_config(CONFIG).model).train()
    samples = [DetDataSample(metainfo={"img_shape": (64, 64)}) for _ in range(2)]
    for sample in samples:
        corners = torch.tensor(boxes).reshape(-1, 4)
        sample.gt_instances = InstanceData(bboxes=corners, labels=torch.zeros(len(corners), dtype=torch.long))
    inputs = [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in samples]
    data = module.data_preprocessor({"inputs": inputs, "data_samples": samples}, training=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        total, _ = module.parse_losses(module(**data, mode="loss"))
    total.backward()
    without = [name for name, p in module.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not without


def test_data_of_other_classes_than_its_own_are_refused(options, tmp_path):
    with pytest.raises(ConfigError, match=r"model\.bbox_head\.num_classes is 2, the data has 1 classes \(glomerulus\)"):
        train(CONFIG, tmp_path, options=options | {"model.bbox_head.num_classes": 2})


def test_it_is_tested_on_its_tiles(run):
    rows = json.loads((run / "metrics.json").read_text())["rows"]
    assert {"ap", "ap50", "best_f1"} <= {row["metric"] for row in rows}
    assert {row["level"] for row in rows} >= {"tile"}


def test_the_loaded_model_answers_as_the_network_of_training(run, published, options):
    from mmdet.structures import DetDataSample

    module = MODELS.build(load_config(CONFIG, options | {"model.test_cfg.max_per_img": 1000}).model).eval()
    module.load_state_dict(state_dict_of(load_checkpoint_safely(chosen_checkpoint(run))))
    tiles = noise_tiles(5, 2, (SIDE, SIDE))
    shapes = {"img_shape": (SIDE, SIDE), "ori_shape": (SIDE, SIDE), "scale_factor": (1.0, 1.0)}
    inputs = [torch.from_numpy(tile).permute(2, 0, 1) for tile in tiles]
    with torch.no_grad():
        own = module.test_step({"inputs": inputs, "data_samples": [DetDataSample(metainfo=shapes) for _ in tiles]})
    for boxes, sample in zip(get_model(published)(tiles).boxes, own, strict=True):
        found = sample.pred_instances
        assert len(boxes) == 10 < len(found)
        np.testing.assert_allclose(boxes[:, 4], found.scores[:10], atol=1e-6)
        # A network hardly trained gives many boxes of nearly one score, in an order that rounding decides.
        own_boxes = np.column_stack([found.bboxes.clamp(0, SIDE), found.scores * 1e3])
        for box in boxes[:, :5] * (1, 1, 1, 1, 1e3):
            assert np.abs(own_boxes - box).max(axis=1).min() < 2e-3


def test_what_is_published_holds_known_parts_and_its_outputs(published):
    model = json.loads((published / "model.json").read_text())["model"]
    assert model["type"] == "mmdet.RTMDet" and "train_cfg" not in model
    assert model["bbox_head"]["loss_cls"]["type"] == "mmdet.QualityFocalLoss"
    report = verify_model(published, golden=True)
    assert report.ok and report.golden_checked, report.problems


def test_red_reaches_it_as_red(published):
    model = get_model(published)
    red = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    red[..., 0] = 255
    seen = []
    model.module.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(red)
    expected = torch.tensor([(255 - 123.675) / 58.395, -116.28 / 57.12, -103.53 / 57.375])
    torch.testing.assert_close(seen[0][0, :, 5, 7], expected)


def test_a_slide_is_predicted(published, tmp_path):
    pixels = np.full((150, 200, 3), 200, np.uint8)
    pixels[40:80, 60:100] = 60
    resolution = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}  # 0.5 um per pixel
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(64, 64), photometric="rgb", **resolution)
    predict(tmp_path / "a.tif", published, tmp_path / "out", tissue=False, num_workers=1, isolate=False)
    with (tmp_path / "out/a/detections.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows and {row["class"] for row in rows} == {"glomerulus"}
    assert all(0 <= float(row["x0"]) < float(row["x1"]) <= 200 and float(row["y1"]) <= 150 for row in rows)
