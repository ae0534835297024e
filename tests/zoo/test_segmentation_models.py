"""A U-Net over timm's pyramid, trained with or without a teacher, is published, verified, loaded and asked."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import CARD, INPUT, MEAN, STD

from pathzoo.evaluation.functional import RegionTally, segmentation_report
from pathzoo.wsi.predictor import SegProbs
from pathzoo.zoo.allowlist import build_from_data, find_part, find_refused, to_data
from pathzoo.zoo.golden import noise_tiles
from pathzoo.zoo.load import get_model
from pathzoo.zoo.publish import publish_model
from pathzoo.zoo.verify import verify_model

SIZE = (97, 65)  # width, height: 2 divides neither
CLASSES = ["normal", "benign", "malignant"]


def config(**changed):
    """With classes, as a config of training has it."""
    from mmseg.models import EncoderDecoder, SegDataPreProcessor

    from pathzoo.models import DiceLoss, PixelCrossEntropy, TimmBackbone, UNetHead

    return {
        "type": EncoderDecoder,
        "data_preprocessor": {"type": SegDataPreProcessor, "mean": MEAN, "std": STD, "size": SIZE[::-1]},
        "backbone": {
            "type": TimmBackbone,
            "name": "test_resnet",
            "pretrained": "imagenet",
            "out_indices": (0, 1, 2, 3, 4),
        },
        "decode_head": {
            "type": UNetHead,
            "in_channels": (32, 32, 48, 192, 96),
            "decoder_channels": (16, 12, 8, 8, 4),
            "num_classes": 3,
            "loss_decode": [
                {"type": PixelCrossEntropy, "class_weight": [1.0, 2.0, 2.0]},
                {"type": DiceLoss, "loss_weight": 0.5},
            ],
        },
        "train_cfg": {},
        "test_cfg": {"mode": "whole"},
        **changed,
    }


def with_teacher():
    from pathzoo.models import ConsistencySegmentor

    numbers = {"threshold": 0.9, "momentum": 0.01, "consistency_weight": 0.5, "strong": {"noise": 0.1}}
    return config(type=ConsistencySegmentor, **numbers)


def trained(training):
    """A network as its training leaves it: spread weights and statistics, so that answers differ everywhere."""
    from mmengine.config import ConfigDict

    from pathzoo.registry import MODELS

    torch.manual_seed(0)
    module = MODELS.build(ConfigDict(training)).eval()
    for name, tensor in [*module.named_buffers(), *module.named_parameters()]:
        if name.endswith(("running_mean", "running_var")):
            tensor.uniform_(0.1, 0.4)
        elif name.endswith("conv_seg.weight"):
            torch.nn.init.normal_(tensor, std=0.5)
    return module


def publish(training, module, folder: Path, rows: list[dict] | None = None) -> Path:
    run = {"task": "segmentation", "model": to_data(training), "classes": CLASSES}
    run |= {"model_input": {**INPUT, "tile_size": list(SIZE)}, "data": {"synthetic": True}}
    folder.mkdir()
    (folder / "train_run.json").write_text(json.dumps(run))
    if rows:
        (folder / "metrics.json").write_text(json.dumps({"dataset": "BreastLesions", "subset": "test", "rows": rows}))
    torch.save({"state_dict": module.state_dict()}, folder / "last.pth")
    return publish_model(folder / "last.pth", "tiny-unet", "1.0.0", folder / "zoo", CARD)


@pytest.fixture(scope="module")
def network():
    return trained(config())


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory) -> Path:
    """The published U-Net. Read only."""
    return publish(config(), network, tmp_path_factory.mktemp("unet") / "run")


def softmax_by_hand(module, tiles):
    """The network's own numbers: normalised here, encoder and decoder called one by one, cut to the tiles' size."""
    inputs = ((tiles.astype(np.float32) - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)
    with torch.no_grad():
        logits = module.decode_head(module.backbone(torch.from_numpy(inputs)))
    logits = logits[:, :, : SIZE[1], : SIZE[0]].double().numpy()
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_published_probabilities_are_the_networks_own(network, folder):
    tiles = noise_tiles(5, 2, SIZE)
    answer = get_model(folder)(tiles)
    assert isinstance(answer, SegProbs)
    assert answer.probs.shape == (2, 3, 65, 97) and answer.probs.dtype == np.float32
    np.testing.assert_allclose(answer.probs, softmax_by_hand(network, tiles), atol=1e-5)
    assert len(np.unique(answer.probs.argmax(axis=1))) > 1
    report = verify_model(folder, golden=True)
    assert report.ok and report.golden_checked, report.problems


def test_the_published_config_is_data(folder):
    model = json.loads((folder / "model.json").read_text())["model"]
    assert model["type"] == "mmseg.EncoderDecoder"
    assert model["backbone"] == {"type": "pathzoo.TimmBackbone", "name": "test_resnet", "out_indices": [0, 1, 2, 3, 4]}
    assert model["decode_head"]["type"] == "pathzoo.UNetHead"
    losses = [part["type"] for part in model["decode_head"]["loss_decode"]]
    assert losses == ["pathzoo.PixelCrossEntropy", "pathzoo.DiceLoss"]
    assert not list(find_refused(model)) and not list(find_part(model, "segmentation"))
    keys = build_from_data(model).state_dict().keys()
    assert not [key for key in keys if "class_weight" in key]


def test_figures_of_every_level_are_published(network, tmp_path):
    """As a test of a segmenter writes them: over pixels, patches, regions and patients."""
    tally = RegionTally(3)
    tally.add(np.array([0, 1, 2, 2]), np.random.default_rng(0).integers(1, 99, (4, 3, 3)))
    rows = segmentation_report(tally.counts(), ["a", "b", "b"], CLASSES, tally.patch_sums(), n_bootstrap=20)
    folder = publish(config(), network, tmp_path / "run", [dict(row) for row in rows])
    published = json.loads((folder / "model.json").read_text())["metrics"][0]["rows"]
    assert {row["level"] for row in published} == {"pixel", "patch", "region", "patient"}
    assert [(row["metric"], row["value"]) for row in published] == [(row["metric"], row["value"]) for row in rows]


def test_a_red_tile_reaches_the_encoder_as_red(folder):
    model = get_model(folder)
    red = np.zeros((1, SIZE[1], SIZE[0], 3), np.uint8)
    red[..., 0] = 255
    seen = []
    model.module.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(red)
    expected = torch.tensor([(255 - MEAN[0]) / STD[0], -MEAN[1] / STD[1], -MEAN[2] / STD[2]])
    torch.testing.assert_close(seen[0][0, :, 5, 7], expected)


def test_red_is_red_in_training_too(network):
    """As a pipeline packs it: RGB uint8 through mmseg's own packing and preprocessor."""
    from mmseg.datasets.transforms import PackSegInputs

    red = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    red[..., 0] = 255
    truth = np.full((SIZE[1], SIZE[0]), 2, np.uint8)
    packed = PackSegInputs(meta_keys=())({"img": red, "gt_seg_map": truth, "seg_fields": ["gt_seg_map"]})
    data = {"inputs": [packed["inputs"]], "data_samples": [packed["data_samples"]]}
    batch = network.data_preprocessor(data, training=True)
    expected = torch.tensor([(255 - MEAN[0]) / STD[0], -MEAN[1] / STD[1], -MEAN[2] / STD[2]])
    torch.testing.assert_close(batch["inputs"][0, :, 5, 7], expected)
    assert bool((batch["data_samples"][0].gt_sem_seg.data == 2).all())


def test_a_teacher_goes_when_its_student_is_published(tmp_path):
    training = with_teacher()
    module = trained(training)
    assert any(key.startswith("teacher.") for key in module.state_dict())
    published = publish(training, module, tmp_path / "run")
    content = json.loads((published / "model.json").read_text())
    assert content["model"] == to_data(config())
    tiles = noise_tiles(5, 1, SIZE)
    np.testing.assert_allclose(get_model(published)(tiles).probs, softmax_by_hand(module, tiles), atol=1e-5)
    student = sum(p.numel() for name, p in module.named_parameters() if not name.startswith("teacher."))
    assert content["weights"]["n_parameters"] == student


@pytest.mark.parametrize(
    "spelled",
    [
        "ConsistencySegmentor",
        "pathzoo.ConsistencySegmentor",
        "pathzoo.models.segmentors.consistency.ConsistencySegmentor",
    ],
)
def test_a_teacher_is_told_by_name_too(spelled):
    assert to_data({**with_teacher(), "type": spelled}) == to_data(config())


def test_a_teacher_of_a_lazily_imported_config(tmp_path):
    from mmengine.config import Config

    path = tmp_path / "lazy.py"
    path.write_text(
        "from mmengine.config import read_base\n"
        "from pathzoo.models import ConsistencySegmentor, TimmBackbone, UNetHead\n"
        "model = dict(type=ConsistencySegmentor, threshold=0.5,\n"
        "    backbone=dict(type=TimmBackbone, name='test_resnet', out_indices=(0, 1)),\n"
        "    decode_head=dict(type=UNetHead, in_channels=(32, 32), decoder_channels=(4, 4), num_classes=2))\n"
    )
    data = to_data(Config.fromfile(path).model)
    assert data["type"] == "mmseg.EncoderDecoder"
    assert data["decode_head"]["type"] == "pathzoo.UNetHead"
    assert "threshold" not in data
