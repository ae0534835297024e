"""Models of CT slices, and translators of CT and tissue: published without what trains them, called with arrays."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_model import CARD

from pathzoo.cli import main
from pathzoo.errors import DataError
from pathzoo.wsi.predictor import Pictures, SegProbs
from pathzoo.zoo.allowlist import to_data
from pathzoo.zoo.inputs import noise
from pathzoo.zoo.load import get_model
from pathzoo.zoo.manifest import Manifest
from pathzoo.zoo.publish import publish_model
from pathzoo.zoo.verify import verify_model

CLASSES = ["background", "kidney", "tumour"]
WINDOW = [-200.0, 200.0]
NORMS = {"mean": [127.5], "std": [127.5]}
INPUT = {
    "tile_size": [64, 32],
    "mpp": None,
    "hu_window": WINDOW,
    "channels": "grey",
    "value_range": [0, 255],
    "resize": {"kind": "short_side", "size": 32},
    **NORMS,
}
SEGMENTER = {
    "type": "EncoderDecoder",
    "data_preprocessor": {"type": "SegDataPreProcessor", **NORMS, "size": (32, 64)},
    "backbone": {
        "type": "UNet",
        "in_channels": 1,
        "base_channels": 4,
        "num_stages": 3,
        "strides": (1, 1, 1),
        "enc_num_convs": (2, 2, 2),
        "dec_num_convs": (2, 2),
        "downsamples": (True, True),
        "enc_dilations": (1, 1, 1),
        "dec_dilations": (1, 1),
        "norm_cfg": {"type": "BN"},
        "upsample_cfg": {"type": "InterpConv"},
    },
    "decode_head": {
        "type": "FCNHead",
        "in_channels": 4,
        "in_index": 2,
        "channels": 4,
        "num_convs": 1,
        "num_classes": 3,
        "norm_cfg": {"type": "BN"},
        "align_corners": False,
        "loss_decode": {"type": "pathzoo.PixelCrossEntropy"},
    },
    "test_cfg": {"mode": "whole"},
}
RGB = {"mean": [127.5] * 3, "std": [127.5] * 3}
TISSUE_CLASSES = ["normal", "benign", "malignant"]
TISSUE_INPUT = {
    "tile_size": [64, 32],
    "mpp": 2.0,
    "mpp_tolerance": 0.1,
    "channels": "RGB",
    "value_range": [0, 255],
    "resize": {"kind": "mpp"},
    **RGB,
}
TRANSLATOR = {
    "type": "LabelToImage",
    "generator": {
        "type": "UnetGenerator",
        "in_channels": 3,
        "out_channels": 1,
        "num_down": 5,
        "base_channels": 4,
        "norm_cfg": {"type": "IN"},
    },
    "discriminator": {"type": "PatchDiscriminator", "in_channels": 4, "base_channels": 4, "norm_cfg": {"type": "IN"}},
    "data_preprocessor": {"type": "PairPreprocessor", "n_classes": 3, **NORMS},
    "pixel_loss_weight": 10.0,
}
TISSUE_TRANSLATOR = TRANSLATOR | {
    "generator": TRANSLATOR["generator"] | {"out_channels": 3},
    "discriminator": TRANSLATOR["discriminator"] | {"in_channels": 6},
    "data_preprocessor": {"type": "PairPreprocessor", "n_classes": 3, **RGB},
}


def trained(config):
    """The network as training has it, discriminator included."""
    from pathzoo.models import LabelToImage, PairPreprocessor, PatchDiscriminator, UnetGenerator

    kinds = (LabelToImage, PairPreprocessor, PatchDiscriminator, UnetGenerator)
    names = {kind.__name__: kind for kind in kinds}

    def build(value):
        if not isinstance(value, dict):
            return value
        return {key: names.get(item, item) if key == "type" else build(item) for key, item in value.items()}

    config = build(config)
    model = config.pop("type")(**config)
    model.init_weights()
    return model


def publish(task, config, folder, model_input=INPUT, classes=CLASSES):
    from pathzoo.zoo.allowlist import build_from_data

    torch.manual_seed(0)
    module = trained(config) if task == "translation" else build_from_data(to_data(config))
    with torch.no_grad():  # spread, so that answers differ from place to place
        for name, parameter in module.named_parameters():
            if name.endswith("weight") and parameter.ndim == 4:
                parameter *= 20 if task == "translation" else 3
    run = {
        "task": task,
        "model": to_data(config),
        "model_input": model_input,
        "classes": classes,
        "data": {"synthetic": True},
    }
    folder.mkdir()
    (folder / "train_run.json").write_text(json.dumps(run))
    torch.save({"state_dict": module.state_dict()}, folder / "last.pth")
    path = publish_model(folder / "last.pth", f"tiny-{task}", "1.0.0", folder / "zoo", CARD)
    return path, module.eval()


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    return publish("segmentation", SEGMENTER, tmp_path_factory.mktemp("ct") / "segmenter")


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    return publish("translation", TRANSLATOR, tmp_path_factory.mktemp("ct") / "translator")


@pytest.fixture(scope="module")
def tissue_translator(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tissue") / "translator"
    return publish("translation", TISSUE_TRANSLATOR, folder, TISSUE_INPUT, TISSUE_CLASSES)


def slices(n=2):
    return np.random.default_rng(0).integers(-1024, 1500, (n, 32, 64)).astype(np.int16)


def test_a_segmenter_of_slices_sees_its_window(segmenter):
    path, module = segmenter
    model, hu = get_model(path), slices()
    answer = model(hu)
    assert isinstance(answer, SegProbs)
    assert answer.probs.shape == (2, 3, 32, 64)
    grey = (np.clip(hu.astype(np.float64), *WINDOW) + 200) / 400  # 0..1
    with torch.inference_mode():
        logits = module(torch.from_numpy((grey * 2 - 1).astype(np.float32))[:, None], mode="tensor")
    np.testing.assert_allclose(answer.probs, torch.softmax(logits, 1), atol=1e-4)
    assert np.ptp(answer.probs[:, 0]) > 0.01
    beyond = np.where(hu > 200, 3000, np.where(hu < -200, -5000, hu)).astype(np.int16)
    np.testing.assert_array_equal(model(beyond).probs, answer.probs)
    assert model(hu[:0]).probs.shape == (0, 3, 32, 64)


def test_a_translator_draws_hounsfield_units_and_leaves_its_discriminator_behind(translator):
    path, module = translator
    model = get_model(path)
    assert model.module.discriminators is None
    assert not [key for key in model.manifest.model if key in ("discriminator", "pixel_loss_weight")]
    labels = np.random.default_rng(1).integers(0, 3, (2, 32, 64)).astype(np.uint8)
    answer = model(labels)
    assert isinstance(answer, Pictures)
    own = module.draw(torch.from_numpy(labels)).numpy() / 255 * 400 - 200
    np.testing.assert_allclose(answer.values, own, atol=1e-3)
    assert answer.values.shape == (2, 1, 32, 64)
    assert answer.values.min() >= -200
    assert answer.values.max() <= 200
    assert np.ptp(answer.values) > 10


def test_a_translator_of_tissue_draws_rgb_of_0_to_255(tissue_translator):
    path, module = tissue_translator
    model = get_model(path)
    labels = np.random.default_rng(1).integers(0, 3, (2, 32, 64)).astype(np.uint8)
    labels[1, :8] = 255  # nobody knows
    values = model(labels).values
    assert values.shape == (2, 3, 32, 64)
    np.testing.assert_allclose(values, module.draw(torch.from_numpy(labels)).numpy(), atol=1e-3)
    assert (values.min() >= 0) and (values.max() <= 255)
    assert np.ptp(values) > 10
    assert np.abs(values[:, 0] - values[:, 1]).max() > 1  # no grey picture thrice
    assert model(labels[:0]).values.shape == (0, 3, 32, 64)


@pytest.mark.parametrize("kind", ["segmenter", "translator", "tissue_translator"])
def test_golden_outputs_are_computed_again(kind, request):
    path, _ = request.getfixturevalue(kind)
    assert not verify_model(path, golden=True).problems
    golden = json.loads((path / "model.json").read_text())["golden"]
    assert golden["quantity"] == ("mean_class_probs" if kind == "segmenter" else "mean_values")
    assert len(golden["outputs"][0]) == {"segmenter": 3, "translator": 16, "tissue_translator": 48}[kind]


def test_noise_comes_in_the_form_that_the_model_takes(segmenter, translator):
    manifests = [Manifest.model_validate_json((path / "model.json").read_text()) for path, _ in (segmenter, translator)]
    hu, labels = (noise(3, 2, manifest) for manifest in manifests)
    assert hu.shape == labels.shape == (2, 32, 64)
    assert -200 <= hu.min() < -50 < 50 < hu.max() <= 200
    assert np.bincount(labels[0].ravel()).tolist() == [683, 683, 682]


@pytest.mark.parametrize(
    ("kind", "array", "match"),
    [
        (
            "segmenter",
            np.zeros((1, 32, 64, 3), np.uint8),
            r"takes CT slices \(N, H, W\) in Hounsfield units, not uint8",
        ),
        ("segmenter", np.zeros((1, 32, 32), np.int16), "takes CT slices of 64 x 32 px, not 32 x 32"),
        ("segmenter", np.full((1, 32, 64), np.nan), "NaN or infinity"),
        ("segmenter", np.zeros((1, 32, 64), np.uint8), r"Hounsfield units, not uint8 .*: no unsigned type holds them"),
        (
            "segmenter",
            np.zeros((1, 32, 64), np.uint16),
            r"Hounsfield units, not uint16 .*: no unsigned type holds them",
        ),
        ("translator", np.full((1, 32, 64), 3, np.uint8), r"holds 3; .* knows 0 to 2 \(background, kidney, tumour\)"),
        (
            "tissue_translator",
            np.full((1, 32, 64), 7, np.int64),
            r"holds 7; .* knows 0 to 2 \(normal, benign, malignant\)",
        ),
        (
            "tissue_translator",
            np.zeros((1, 32, 64, 3), np.uint8),
            r"takes label maps \(N, H, W\) of class indices, not",
        ),
        ("translator", np.zeros((1, 32, 64)), r"takes label maps \(N, H, W\) of class indices, not float64"),
    ],
)
def test_other_arrays_are_refused(kind, array, match, request):
    model = get_model(request.getfixturevalue(kind)[0])
    with pytest.raises(DataError, match=match) as caught:
        model(array)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["segmenter", "translator", "tissue_translator"])
def test_pictures_and_slides_are_refused_in_one_line(kind, request, tmp_path, capsys):
    path, _ = request.getfixturevalue(kind)
    Image.new("RGB", (64, 64)).save(tmp_path / "picture.png")
    words = ["predict", "-i", str(tmp_path / "picture.png"), "-m", str(path), "-o", str(tmp_path / "out")]
    assert main(words) != 0
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "neither pictures nor slides" in said or "its task is translation" in said
    assert not (tmp_path / "out" / "picture").exists()


def test_the_card_of_a_translator_of_tissue_tells_its_resolution_and_no_window(tissue_translator):
    card = (tissue_translator[0] / "README.md").read_text()
    assert "model(labels): label maps (N, H, W) of class indices in, pictures (N, K, H, W) out" in card
    assert "2 µm/px" in card
    assert "RGB, 0 to 255" in card
    assert "HU" not in card


def test_the_card_says_what_goes_in(segmenter, translator):
    cards = [(path / "README.md").read_text() for path, _ in (segmenter, translator)]
    assert "model(slices): CT slices (N, H, W) in Hounsfield units in, probabilities (N, C, H, W) out" in cards[0]
    assert "model(labels): label maps (N, H, W) of class indices in, pictures (N, K, H, W) out" in cards[1]
    assert all("-200 to 200 HU" in card for card in cards)
