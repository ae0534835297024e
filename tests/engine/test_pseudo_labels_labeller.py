"""Regions by tiles: against the network on the whole picture, against the blending of whole slides, by symmetry."""

import numpy as np
import pytest
import torch
from self_training_fakes import TinySegmentor

from pathzoo.engine.self_training.confidence import levels_of
from pathzoo.engine.self_training.labeller import Tiling, predict_region, probabilities, seen_probabilities
from pathzoo.errors import ConfigError
from pathzoo.wsi.blending import Blender, PlacedTile, canvas
from pathzoo.wsi.tiling import tile_grid


def _image(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Not noise: something with a gradient, so that neighbouring pixels are alike and confidences spread."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3)).astype(np.float64)
    fine = np.kron(coarse, np.ones((8, 8, 1)))[:height, :width] + rng.normal(0, 12, (height, width, 3))
    return fine.clip(0, 255).astype(np.uint8)


def _close(levels: np.ndarray, expected: np.ndarray) -> bool:
    """Equal but for a rare neighbour: sums in another order round to another level now and then."""
    apart = np.abs(levels.astype(int) - expected.astype(int))
    return apart.max(initial=0) <= 1 and (apart > 0).mean() < 1e-3


@pytest.mark.parametrize("size", [(100, 70), (32, 32), (20, 90), (17, 23), (33, 64)])
@pytest.mark.parametrize("stride", [32, 20, 7])
def test_a_network_without_context_gives_what_it_gives_on_the_whole_picture(size, stride):
    model, image = TinySegmentor(context=1).eval(), _image(*size)
    whole = probabilities(model, torch.from_numpy(image).permute(2, 0, 1)[None], 3)[0].detach()
    best, label = whole.max(dim=0)
    predicted, confidence = predict_region(model, image, 3, Tiling(32, stride))
    assert predicted.dtype == confidence.dtype == np.uint8
    assert predicted.shape == confidence.shape == size[::-1]
    assert (predicted == label.numpy()).mean() > 0.999
    assert _close(confidence, levels_of(best).numpy())
    assert len(np.unique(predicted)) > 1 and len(np.unique(confidence)) > 20


def test_overlaps_blend_as_on_whole_slides():
    """`pathzoo.wsi.blending` in numpy, tile by tile, with a network to which its surroundings matter."""
    model, image, tile, stride = TinySegmentor(context=9).eval(), _image(32 + 4 * 20, 32 + 3 * 20), 32, 20
    height, width = image.shape[:2]
    grid = tile_grid((0, 0, width, height), (tile, tile), 1.0, stride=(stride, stride))
    assert grid.shape == (4, 5)
    blended = np.zeros((3, height, width), np.float32)

    def tiles():
        for (row, column), (x, y) in zip(grid.cells.tolist(), grid.corners.tolist(), strict=True):
            crop = torch.from_numpy(image[y : y + tile, x : x + tile].copy()).permute(2, 0, 1)[None]
            yield PlacedTile(row, column, probabilities(model, crop, 3)[0].detach().numpy())

    for block in Blender(canvas(grid), 3).blocks(tiles()):
        place = np.s_[:, block.y : block.y + block.height, block.x : block.x + block.width]
        blended[place] = block.sums / block.weights
    predicted, confidence = predict_region(model, image, 3, Tiling(tile, stride))
    assert (predicted == blended.argmax(axis=0)).mean() > 0.999
    assert _close(confidence, levels_of(torch.from_numpy(blended.max(axis=0))).numpy())
    plain, _ = predict_region(model, image, 3, Tiling(tile, tile))
    assert (plain != predicted).any()  # at the seams, or the test shows nothing


@pytest.mark.parametrize("tta", ["none", "flips", "d4"])
def test_views_are_averaged_in_place(tta):
    model, tiles = TinySegmentor(context=9).eval(), torch.from_numpy(_image(24, 24)).permute(2, 0, 1)[None]
    moves = {"none": [(0, 1)], "flips": [(0, 1), (0, -1), (2, 1), (2, -1)]}
    moves["d4"] = [(turns, step) for turns in range(4) for step in (1, -1)]
    expected = []
    for turns, step in moves[tta]:
        moved = np.rot90(tiles[0].permute(1, 2, 0).numpy()[:, ::step], turns)
        view = torch.from_numpy(moved.copy()).permute(2, 0, 1)[None]
        probs = probabilities(model, view, 3)[0].detach().permute(1, 2, 0).numpy()
        expected.append(np.rot90(probs, -turns)[:, ::step])
    found = seen_probabilities(model, tiles, 3, tta)[0].detach().permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, np.mean(expected, axis=0), atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize("turns", [0, 1])
def test_with_all_views_a_turned_picture_has_the_turned_answer(turns):
    model, image = TinySegmentor(context=9).eval(), _image(72, 72)  # tiles at 0, 20, 40: the same from both ends
    turned = np.rot90(image[:, ::-1], turns).copy()
    answers = {}
    for tta in ("none", "d4"):
        there = predict_region(model, image, 3, Tiling(32, 20, tta))
        here = predict_region(model, turned, 3, Tiling(32, 20, tta))
        answers[tta] = [(np.rot90(a[:, ::-1], turns), b) for a, b in zip(there, here, strict=True)]
    (moved, own), (levels, own_levels) = answers["d4"]
    assert (moved == own).mean() > 0.999
    assert _close(levels, own_levels)
    assert (answers["none"][0][0] != answers["none"][0][1]).mean() > 0.01


def test_batches_do_not_matter_and_nothing_random_is_drawn():
    model, image = TinySegmentor(context=9).eval(), _image(100, 90)
    state = torch.get_rng_state()
    first = predict_region(model, image, 3, Tiling(32, 20, batch_size=1))
    second = predict_region(model, image, 3, Tiling(32, 20, batch_size=7))
    assert torch.equal(torch.get_rng_state(), state)
    assert (first[0] == second[0]).mean() > 0.999
    assert _close(first[1], second[1])


def test_a_diverged_network_and_one_of_other_classes_are_refused():
    model, image = TinySegmentor().eval(), _image(40, 40)
    with pytest.raises(ConfigError, match=r"\(3, 32, 32\).*\(2, 32, 32\)"):
        predict_region(model, image, 2, Tiling(32))
    model.classifier.weight.data.fill_(float("nan"))
    with pytest.raises(ConfigError, match=r"not finite.*diverged"):
        predict_region(model, image, 3, Tiling(32))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"tile": 0}, "tile=0"),
        ({"tile": 32.0}, "tile=32.0"),
        ({"tile": 32, "stride": 33}, "stride=33.*32"),
        ({"stride": 0}, "stride=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"tta": "flip"}, "flips"),
    ],
)
def test_bad_tiling_is_named(arguments, named):
    with pytest.raises(ConfigError, match=named):
        Tiling(**arguments)


def test_overlap_of_a_quarter_is_the_default():
    assert Tiling(256).stride == 192
    assert Tiling(1).stride == 1
