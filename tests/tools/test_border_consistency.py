"""What shifting the tiles changes: nothing for a segmenter that sees enough, borders for one that does not."""

import csv

import cv2
import numpy as np
import pytest
from analysis_tools import border_consistency as tool
from PIL import Image
from rule_models import publish_rule_model

from pathzoo.wsi.predictor import InputSpec, SegProbs
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.stain import StainFit
from pathzoo.wsi.tiling import tile_grid

TILE = 64


class Blur:
    """Bright or dark after a blur that sees `reach` pixels far; zeros stand around the tile."""

    name, version, digest, task = "blur", "1.0.0", "", "segmentation"
    classes = ("dark", "bright")
    input = InputSpec((TILE, TILE), 0.5)

    def __init__(self, reach: int) -> None:
        self.reach = reach

    def __call__(self, tiles: np.ndarray, /) -> SegProbs:
        size = 2 * self.reach + 1
        grey = tiles[..., 1].astype(np.float32)
        # Zeros around the tile, as a convolution pads them.
        bright = np.stack([cv2.blur(tile, (size, size), borderType=cv2.BORDER_CONSTANT) for tile in grey]) / 255
        p = 1 / (1 + np.exp(-60 * (bright - 0.5)))
        return SegProbs(np.stack([1 - p, p], axis=1).astype(np.float32))


class Frame(Blur):
    """Finds its own border."""

    def __call__(self, tiles: np.ndarray, /) -> SegProbs:
        p = np.full(tiles.shape[:3], 0.1, np.float32)
        for side in (p[:, :4], p[:, -4:], p[:, :, :4], p[:, :, -4:]):
            side[:] = 0.9
        return SegProbs(np.stack([1 - p, p], axis=1))


@pytest.fixture(scope="module")
def picture():
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.normal(size=(400, 420)).astype(np.float32), (0, 0), 5)
    grey = (127.5 + 45 * noise / noise.std()).clip(0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_a_segmenter_of_single_pixels_changes_nowhere(picture, overlap):
    found = tool.border_consistency(Blur(0), picture, overlap, [0.5, 0.29])
    assert found.changed == (0,) * len(tool.EDGES)
    assert sum(found.pixels) == 2 * (400 - 2 * TILE) * (420 - 2 * TILE)


def test_a_reach_below_the_overlap_changes_little_and_only_near_borders(picture):
    """The bound: 1 % at half overlap for a reach of 4 px. Blending lets a border's answers in with small weights."""
    without, half = (tool.border_consistency(Blur(4), picture, overlap, [0.5, 0.29]) for overlap in (0.0, 0.5))
    assert half.share < 0.01
    assert without.share > 3 * half.share
    assert sum(without.changed[2:]) == 0  # all within 4 px of a border


def test_a_segmenter_that_finds_its_own_borders_is_shown(picture):
    found = tool.border_consistency(Frame(0), picture, 0.0, [0.5])
    shares = [c / n if n else 0 for c, n in zip(found.changed, found.pixels, strict=True)]
    assert min(shares[:2]) > 0.7  # its frame is 4 px wide
    assert shares[2:] == [0] * (len(tool.EDGES) - 2)
    assert tool.border_consistency(Frame(0), picture, 0.5, [0.5]).share < 0.01


def test_distance_to_the_nearest_border():
    grid = tile_grid((-10, 0, 110, 64), (TILE, TILE), 1.0, 0.5)
    distance = tool.border_distance(grid, (100, 64))
    assert distance.shape == (64, 100)
    assert distance[32, 20:24].tolist() == [1, 0, 0, 1]  # a tile begins at 22
    assert distance[0].max() == distance[-1].max() == 0


def test_picture_too_small(picture):
    with pytest.raises(ValueError, match="over twice"):
        tool.border_consistency(Blur(0), picture[: 2 * TILE], 0.0, [0.5])


def test_the_part_has_the_stain_that_the_model_asks_for(tmp_path):
    """As tiles of a slide would: the fit is the slide's, and glass stays as it is."""
    rng = np.random.default_rng(0)
    pixels = np.full((600, 600, 3), 245, np.uint8)
    pixels[100:500, 100:500] = (
        np.array([170, 90, 150]) + rng.integers(-30, 31, (400, 400, 1)) + rng.integers(-9, 10, (400, 400, 3))
    )
    Image.fromarray(pixels).save(tmp_path / "slide.png")
    stains = [[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]]
    target = StainFit(
        "macenko", {"stains": [list(np.array(s) / np.linalg.norm(s)) for s in stains], "maxima": [2.0, 1.0]}
    )
    plain, asking = Blur(0), Blur(0)
    asking.input = InputSpec((TILE, TILE), 0.5, stain=target)
    with Slide(tmp_path / "slide.png", mpp=0.5) as slide:
        before, after = (tool.read_part(slide, model, None, 3072) for model in (plain, asking))
    assert np.array_equal(before, pixels)
    assert (after[:90] == 245).all() and np.abs(after.astype(int) - pixels).max() > 20


def test_a_published_segmenter_goes_through(tmp_path, picture, monkeypatch):
    """With nothing put in place of `get_model`."""
    publish_rule_model("segmenter", tmp_path / "zoo", tile=64)
    monkeypatch.setenv("PATHZOO_ZOO", str(tmp_path / "zoo"))
    Image.fromarray(picture).save(tmp_path / "slide.png")
    words = ["rule-segmenter", str(tmp_path / "slide.png"), "--mpp", "0.5", "--overlap", "0", "0.25"]
    assert tool.main([*words, "--out", str(tmp_path / "out")]) == 0
    rows = list(csv.DictReader((tmp_path / "out" / "border_consistency.csv").open()))
    changed = [sum(int(row["changed"]) for row in rows if float(row["overlap"]) == overlap) for overlap in (0, 0.25)]
    assert changed[0] > 10 * changed[1]  # its filter reaches 4 px
    assert not any(int(row["changed"]) for row in rows if int(row["distance_from"]) >= 8)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"border_consistency.csv", "border_consistency.png"}


def test_command_writes_table_csv_and_plot(tmp_path, picture, monkeypatch, capsys):
    Image.fromarray(picture).save(tmp_path / "slide.png")
    monkeypatch.setattr("pathzoo.zoo.load.get_model", lambda name, device: Blur(4))
    words = [
        "blur",
        str(tmp_path / "slide.png"),
        "--mpp",
        "0.5",
        "--overlap",
        "0",
        "0.5",
        "--out",
        str(tmp_path / "out"),
    ]
    assert tool.main(words) == 0
    assert "0.500   4.00x" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "out" / "border_consistency.csv").open()))
    assert len(rows) == 2 * len(tool.EDGES)
    with Image.open(tmp_path / "out" / "border_consistency.png") as image:
        assert min(image.size) > 400
    assert tool.main([*words[:2], "--mpp", "3.0"]) == 2  # coarser than the model
    with pytest.raises(SystemExit):
        tool.main([*words, "--overlap", "1.0"])
