"""YOLOv5 published, loaded and asked: as the network of training answers, with its normalisation folded away."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from tiny_model import CARD, INPUT
from torch import nn

from pathzoo.models.backbones.yolov5_backbone import YOLOV5_SIZES, YOLOv5Backbone
from pathzoo.models.layers import ConvUnit
from pathzoo.models.yolov5_weights import shapes
from pathzoo.zoo.allowlist import build_from_data, to_data
from pathzoo.zoo.golden import noise_tiles
from pathzoo.zoo.load import get_model
from pathzoo.zoo.publish import publish_model
from pathzoo.zoo.verify import verify_model

ANCHORS = [[(16, 16), (24, 24), (32, 32)], [(40, 40), (48, 48), (56, 56)], [(64, 64), (80, 80), (96, 96)]]
SIZE = (96, 64)  # width, height
BASE = Path(__file__).parents[2] / "configs" / "_base_" / "models"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder with random weights: its model as data, and the network."""
    folder = tmp_path_factory.mktemp("yolov5")
    config = Config.fromfile(BASE / "yolov5_n.py").model
    config.bbox_head.update(num_classes=2, anchors=ANCHORS)
    config.test_cfg.update(score_thr=0.05, max_per_img=30)
    model = to_data(config)
    torch.manual_seed(0)
    module = build_from_data(model)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.1, 0.1)
            part.running_var.uniform_(0.1, 0.4)
    for conv in module.bbox_head.convs:  # spread, and no shy objectness: so it answers, and differs by place
        nn.init.normal_(conv.weight, std=0.5)
        nn.init.zeros_(conv.bias)
    about = {"task": "detection", "model": model, "classes": ["glomerulus", "sclerosed"]}
    about |= {
        "model_input": {**INPUT, "tile_size": list(SIZE), "mean": [0.0] * 3, "std": [255.0] * 3},
        "data": {"synthetic": True},
    }
    (folder / "train_run.json").write_text(json.dumps(about))
    torch.save({"state_dict": module.state_dict()}, folder / "last.pth")
    published = publish_model(folder / "last.pth", "tiny-yolov5", "1.0.0", folder / "zoo", CARD)
    return module.eval(), model, published


def test_a_config_names_components_that_may_be_published(run):
    _, model, _ = run
    kinds = {key: model[key]["type"] for key in ("backbone", "neck", "bbox_head")}
    assert kinds == {
        "backbone": "pathzoo.YOLOv5Backbone",
        "neck": "pathzoo.YOLOv5PAFPN",
        "bbox_head": "pathzoo.YOLOv5Head",
    }
    assert (model["type"], model["backbone"]["widen"]) == ("mmdet.SingleStageDetector", 0.25)
    assert model["bbox_head"]["anchors"][0] == [[16, 16], [24, 24], [32, 32]]


def test_the_loaded_model_answers_as_the_network_of_training(run):
    module, _, folder = run
    from mmdet.structures import DetDataSample

    tiles = noise_tiles(5, 2, SIZE)
    loaded = get_model(folder)
    answer = loaded(tiles)
    samples = [DetDataSample(metainfo={"img_shape": (64, 96), "ori_shape": (64, 96)}) for _ in tiles]
    inputs = [torch.from_numpy(tile).permute(2, 0, 1) for tile in tiles]
    with torch.no_grad():
        own = module.test_step({"inputs": inputs, "data_samples": samples})
    for boxes, sample in zip(answer.boxes, own, strict=True):
        found = sample.pred_instances
        assert len(found) > 3 and len(found.labels.unique()) == 2
        np.testing.assert_allclose(boxes[:, :4], found.bboxes, atol=5e-3)
        np.testing.assert_allclose(boxes[:, 4], found.scores, atol=1e-5)
        np.testing.assert_array_equal(boxes[:, 5], found.labels)


def test_loaded_it_has_no_normalisation_and_the_file_has(run):
    module, _, folder = run
    loaded = get_model(folder).module
    assert not any(isinstance(part, nn.BatchNorm2d) for part in loaded.modules())
    assert sum(isinstance(part, ConvUnit) for part in loaded.modules()) > 50
    manifest = json.loads((Path(folder) / "model.json").read_text())
    assert manifest["weights"]["n_parameters"] == sum(p.numel() for p in module.parameters())
    assert any(isinstance(part, nn.BatchNorm2d) for part in module.modules()), "the network of training is as it was"


def test_its_golden_outputs_are_met(run):
    report = verify_model(run[2], golden=True)
    assert report.ok and report.golden_checked, report.problems
    golden = json.loads((Path(run[2]) / "model.json").read_text())["golden"]
    assert np.abs(golden["outputs"]).max() > 0.05, "golden outputs of nothing prove nothing"


def test_other_anchors_than_those_of_the_weights_are_refused(run):
    module, model, _ = run
    changed = json.loads(json.dumps(model))
    changed["bbox_head"]["anchors"][0][0] = [12, 12]
    with pytest.raises(RuntimeError, match="the weights are for anchors"):
        build_from_data(changed).load_state_dict(module.state_dict())


@pytest.mark.parametrize(("size", "multiples"), YOLOV5_SIZES.items())
def test_the_configs_are_of_the_releases_sizes(size, multiples):
    with torch.device("meta"):
        model = build_from_data(to_data(Config.fromfile(BASE / f"yolov5_{size}.py").model))
        backbone = YOLOv5Backbone(*multiples)
    assert {name: value.shape for name, value in model.backbone.state_dict().items()} == {
        name: value.shape for name, value in backbone.state_dict().items()
    }
    found = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert found == shapes(size, num_classes=1)
