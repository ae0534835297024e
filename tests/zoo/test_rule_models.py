"""Models by rule, published as any other: they see what they should, and need no host of their task."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from rule_models import publish_rule_model

from pathzoo.zoo.golden import noise_tiles
from pathzoo.zoo.load import get_model

SIZE = (96, 64)  # width, height


@pytest.fixture(scope="module")
def rules(tmp_path_factory) -> Path:
    """A zoo of the three models by rule."""
    out = tmp_path_factory.mktemp("rules")
    for kind in ("classifier", "segmenter", "detector"):
        publish_rule_model(kind, out, tile=SIZE)
    return out


def drawing() -> np.ndarray:
    """Glass, a pink half and two purple discs on it: (64, 96, 3)."""
    tile = np.full((64, 96, 3), 243, np.uint8)
    tile[:, 48:] = (225, 150, 190)
    y, x = np.mgrid[:64, :96]
    for cx, cy in ((66, 20), (80, 45)):
        tile[np.hypot(x - cx, y - cy) < 8] = (90, 60, 140)
    return tile


def test_rules_see_colours(rules):
    tile = drawing()
    probs = get_model(rules / "rule-segmenter")(tile[None]).probs[0]
    truth = np.where((tile == 243).all(axis=2), 0, np.where(tile[..., 0] == 90, 2, 1))
    assert (probs.argmax(axis=0) == truth).mean() > 0.97
    np.testing.assert_allclose(get_model(rules / "rule-classifier")(tile[None]).probs[0], probs.mean((1, 2)), atol=1e-5)
    boxes = get_model(rules / "rule-detector")(np.stack([tile, np.full_like(tile, 255)])).boxes
    assert [len(found) for found in boxes] == [2, 0]
    found = boxes[0][boxes[0][:, 0].argsort()]
    np.testing.assert_allclose(found[:, :4], [[59, 13, 74, 28], [73, 38, 88, 53]], atol=2)
    assert (found[:, 4] > 0.45).all() and (found[:, 5] == 0).all()


def test_a_rule_depends_on_near_pixels_only(rules):
    model = get_model(rules / "rule-segmenter")
    wide = noise_tiles(3, 1, (200, 64))[0]
    left, right = model(np.stack([wide[:, :96], wide[:, 30:126]])).probs
    np.testing.assert_allclose(left[:, :, 34:92], right[:, :, 4:62], atol=1e-5)


def test_classifiers_and_rules_import_neither_mmseg_nor_mmdet(rules):
    code = (
        "import sys, numpy as np\n"
        "from pathzoo.zoo.load import load_folder\n"
        "for kind in ('classifier', 'segmenter', 'detector'):\n"
        f"    load_folder(f'{rules}/rule-{{kind}}/1.0.0')(np.zeros((1, 64, 96, 3), np.uint8))\n"
        "from mmpretrain.models import ImageClassifier, ResNet\n"
        "from pathzoo.zoo.allowlist import to_data\n"
        "print(to_data({'type': ImageClassifier, 'backbone': {'type': ResNet}})['backbone']['type'])\n"
        "sys.exit(any(name in sys.modules for name in ('mmseg.models', 'mmdet.models')))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "mmpretrain.ResNet"), done.stderr


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_a_stain_that_the_model_asks_for(tmp_path, method):
    from pathzoo.wsi.stain import FITS, normalize_picture

    fit = FITS[method](noise_tiles(1, 1, (64, 64)).reshape(-1, 3))
    folder = publish_rule_model("segmenter", tmp_path, tile=SIZE, stain_fit=fit.to_block())
    model = get_model(folder)
    assert model.input.stain == fit
    assert f"| stain | normalised ({method}) |" in (folder / "README.md").read_text()
    picture = noise_tiles(2, 1, SIZE)[0]
    np.testing.assert_array_equal(model.prepare(picture, mpp=0.5), normalize_picture(picture, fit)[0])
    assert not np.array_equal(model.prepare(picture, mpp=0.5), picture)
    white = np.full_like(picture, 255)
    np.testing.assert_array_equal(model.prepare(white, mpp=0.5), white)


def test_a_rule_has_nothing_to_train(rules):
    from pathzoo.errors import ConfigError
    from pathzoo.models import BlobDetector

    with pytest.raises(ConfigError, match="nothing to train"):
        BlobDetector()(None, None, mode="loss")
    with pytest.raises(ConfigError, match="radius is -1"):
        BlobDetector(radius=-1)


@pytest.mark.real
def test_rules_on_real_tissue(rules, real_data):
    """H&E with a clear edge, PAS with nuclei: all classes occur, glass stays glass, nuclei have the size of nuclei."""
    from pathzoo.wsi.slide import Slide

    places = [(real_data / "slides" / "cmu_small_region.svs", None, (956, 1100))]
    places.append((real_data / "glomeruli" / "aidpath_regions" / "region_A_2048x2048.tiff", 0.5, (556, 556)))
    for path, mpp, (x, y) in places:
        with Slide(path, mpp=mpp) as slide:
            tiles = np.stack([slide.read(x + dx * 96, y, 96, 64) for dx in range(-3, 4)])
        probs = get_model(rules / "rule-segmenter")(tiles).probs
        share = np.bincount(probs.argmax(axis=1).ravel(), minlength=3) / probs[:, 0].size
        assert (share > 0.02).all(), share
        # White with nothing but white within reach of the smoothing.
        white = np.stack([cv2.erode((tile.min(axis=2) > 235).astype(np.uint8), np.ones((9, 9))) for tile in tiles]) > 0
        assert white.any() and (probs[:, 0][white] > 0.5).all()
        boxes = np.concatenate(get_model(rules / "rule-detector")(tiles).boxes)
        assert len(boxes) > 10
        assert 5 < np.median(boxes[:, 2] - boxes[:, 0]) < 40
