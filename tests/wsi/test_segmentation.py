"""Segmentation of whole slides by rules that look at one pixel: the mask must be the rule's answer to the slide."""

import errno
import json

import numpy as np
import pytest
import shapely
import tifffile
from PIL import Image
from wsi.segmenters import Bins, Mirror, draw, mask_of, read, run

from pathzoo.errors import SlideError
from pathzoo.wsi import segmentation
from pathzoo.wsi.blending import Blender, canvas
from pathzoo.wsi.geojson import read_annotations
from pathzoo.wsi.job import SlideJob
from pathzoo.wsi.mask_tiff import NOT_PREDICTED
from pathzoo.wsi.outputs import atomic_folder
from pathzoo.wsi.predictor import ClassProbs, SegProbs
from pathzoo.wsi.segmentation import check_maps, placed_tiles, segment
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.tiling import tile_grid


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("overlap", [0.0, 1 / 3, 0.5, 0.75])
def test_mask_is_the_rule_on_the_slide(tmp_path, make_slide, overlap, classes):
    image, predictor = draw(203, 151), Bins(classes)
    outcome = run(make_slide(image), tmp_path / "out", predictor, overlap)
    expected = predictor.rule(image)
    np.testing.assert_array_equal(mask_of(tmp_path / "out"), expected)
    assert outcome.unit == "µm²"
    areas = np.bincount(expected.ravel(), minlength=classes) * 0.25
    assert outcome.counts == dict(zip(predictor.classes, areas.tolist(), strict=True))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "mask.tif",
        "overlay.png",
        "prediction.geojson",
    ]


@pytest.mark.parametrize("overlap", [0.0, 1 / 3, 0.6])
def test_a_model_that_returns_its_input_gives_the_slide_back(tmp_path, make_slide, overlap):
    image, predictor = draw(170, 120), Mirror()
    tissue = np.random.default_rng(1).random((6, 9)) < 0.4
    with Slide(make_slide(image)) as slide:
        grid = tile_grid(slide.bounds, (48, 32), 1.0, overlap, tissue)
        job = SlideJob(slide, grid, 0.5, predictor, tissue, slide.thumbnail(1400, slide.bounds), tmp_path, "slide")
        seen = np.zeros(image.shape[:2], bool)
        for block in Blender(canvas(grid), 3).blocks(placed_tiles(job, read(slide, grid, 0.5, 5), [])):
            if block.sums is None:
                continue
            at = slice(block.y, block.y + block.height), slice(block.x, block.x + block.width)
            known = block.weights > 0
            with np.errstate(invalid="ignore"):
                pixels = np.rint(block.sums / block.weights * 255).transpose(1, 2, 0)
            np.testing.assert_array_equal(pixels[known], image[at][known])
            seen[at] = known
    wanted = np.zeros_like(seen)
    for x, y in grid.corners:
        wanted[y : y + 32, x : x + 48] = True
    np.testing.assert_array_equal(seen, wanted)


@pytest.mark.parametrize("bounds", [(0, 0, 340, 240), (3, 5, 331, 229), (2, 7, 200, 150)])
@pytest.mark.parametrize("overlap", [0.0, 1 / 3, 0.6])
def test_at_the_resolution_of_a_level_the_mask_is_the_rule_on_the_level(tmp_path, make_slide, overlap, bounds):
    """Whatever corner the bounds have: tiles are read at the nearest whole pixel of the level, and laid there."""
    image, predictor = draw(340, 240), Bins(5, (47, 33), mpp=1.0)
    path = make_slide(image, levels=2)
    with Slide(path) as slide:
        assert slide.levels[1].downsample == 2
    run(path, tmp_path / "out", predictor, overlap, bounds=bounds)
    mask, (x, y) = mask_of(tmp_path / "out"), ((bounds[0] + 1) // 2, (bounds[1] + 1) // 2)
    expected = predictor.rule(np.pad(image[::2, ::2], ((0, 9), (0, 9), (0, 0)), constant_values=255))
    np.testing.assert_array_equal(mask, expected[y : y + mask.shape[0], x : x + mask.shape[1]])


def test_batch_size_does_not_change_a_byte(tmp_path, make_slide):
    path = make_slide(draw(203, 151))
    for size in (1, 3, 50):
        run(path, tmp_path / str(size), Bins(), 0.4, size)
    for name in ("mask.tif", "prediction.geojson", "overlay.png"):
        assert len({(tmp_path / str(size) / name).read_bytes() for size in (1, 3, 50)}) == 1


@pytest.mark.parametrize("size", [(1, 1), (200, 1), (1, 90), (30, 20), (48, 32)])
@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_tiny_slides(tmp_path, size, overlap):
    image, predictor = draw(*size), Bins()
    Image.fromarray(image).save(tmp_path / "slide.png")
    with Slide(tmp_path / "slide.png", mpp=0.5) as slide:
        grid = tile_grid(slide.bounds, (48, 32), 1.0, overlap)
        job = SlideJob(slide, grid, 0.5, predictor, None, slide.thumbnail(1400, slide.bounds), tmp_path, "slide")
        segment(job, read(slide, grid, 0.5, 2))
    np.testing.assert_array_equal(mask_of(tmp_path), predictor.rule(image))


def test_coarser_models_make_coarser_masks(tmp_path, make_slide):
    """As the slide read in one piece, but for the rounding of tile corners to whole level-0 pixels."""
    path, predictor = make_slide(draw(640, 480)), Bins(mpp=0.8)
    outcome = run(path, tmp_path / "out", predictor, 0.25)
    mask = mask_of(tmp_path / "out")
    assert mask.shape == (300, 400)
    with Slide(path) as slide:
        expected = predictor.rule(slide.read(0, 0, 400, 300, 0.8))
    assert (mask == expected).mean() > 0.95
    assert sum(outcome.counts.values()) == pytest.approx(640 * 480 * 0.25)
    with tifffile.TiffFile(tmp_path / "out" / "mask.tif") as file:
        n, d = file.pages[0].tags["XResolution"].value
    assert 1e4 / (n / d) == pytest.approx(0.8)


def test_beside_the_tiles_nothing_is_predicted(tmp_path, make_slide):
    image, predictor = draw(200, 130), Bins()
    tissue = np.zeros((13, 20), bool)
    tissue[6, 5] = tissue[12, 19] = True
    outcome = run(make_slide(image), tmp_path / "out", predictor, tissue=tissue)
    expected = np.full((130, 200), NOT_PREDICTED)
    for y, x in ((32, 48), (64, 48), (96, 144), (128, 144), (96, 192), (128, 192)):
        part = predictor.rule(image[y : y + 32, x : x + 48])
        touched = tissue[y // 10 : -(-(y + 32) // 10), x // 10 : -(-(x + 48) // 10)].any()
        if touched:
            expected[y : y + 32, x : x + 48] = part
    np.testing.assert_array_equal(mask_of(tmp_path / "out"), expected)
    assert outcome.record["mask"]["not_predicted_pixels"] == (expected == NOT_PREDICTED).sum() > 0


def test_no_tissue_still_writes_whole_files(tmp_path, make_slide):
    outcome = run(make_slide(draw(200, 130)), tmp_path / "out", Bins(), tissue=np.zeros((4, 4), bool))
    assert (mask_of(tmp_path / "out") == NOT_PREDICTED).all()
    assert set(outcome.counts.values()) == {0.0}
    assert read_annotations(tmp_path / "out" / "prediction.geojson") == []


@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_damage_is_not_predicted_unless_a_neighbour_covers_it(tmp_path, make_slide, overlap):
    image, predictor = draw(200, 130), Bins()
    with Slide(make_slide(image)) as slide:
        grid = tile_grid(slide.bounds, (48, 32), 1.0, overlap)
    part = np.zeros((32, 48), bool)
    part[20:30, 5:40] = True
    damage = {7: part, 8: np.ones((32, 48), bool)}
    outcome = run(tmp_path / "slide.tif", tmp_path / "out", predictor, overlap, damage=damage)
    known = np.zeros((130, 200), bool)
    for number, (x, y) in enumerate(grid.corners):
        good = ~damage.get(number, np.zeros((32, 48), bool))[: 130 - y, : 200 - x]
        known[y : y + 32, x : x + 48] |= good
    assert known.all() == (overlap == 0.5)
    np.testing.assert_array_equal(mask_of(tmp_path / "out"), np.where(known, predictor.rule(image), NOT_PREDICTED))
    assert [(tile.x, tile.y, tile.reason) for tile in outcome.skipped] == [
        (*grid.corners[n].tolist(), "corrupt JPEG tile") for n in (7, 8)
    ]
    assert sum(predictor.calls) == len(grid) - 1  # nothing to see in tile 8


def test_a_slide_without_a_readable_tile_is_an_error(tmp_path, make_slide):
    make_slide(draw(60, 40))
    damage = {n: np.ones((32, 48), bool) for n in range(4)}
    with pytest.raises(SlideError, match=r"slide\.tif: none of 4 tiles can be decoded; the first: corrupt JPEG tile"):
        run(tmp_path / "slide.tif", tmp_path / "out", Bins(), damage=damage)


def test_geojson_holds_the_regions_of_the_mask(tmp_path, make_slide):
    """In level-0 pixels from the corner of the bounds, with exact areas, and none for the background."""
    path, bounds = make_slide(draw(260, 210)), (40, 30, 200, 160)
    settings = {"outline_tolerance": 0, "min_region_pixels": 1}
    outcome = run(path, tmp_path / "out", Bins(mpp=1.0), 0.25, bounds=bounds, **settings)
    mask = mask_of(tmp_path / "out")
    found = read_annotations(tmp_path / "out" / "prediction.geojson")
    assert {name for _, name in found} == {"class 1", "class 2"}
    assert outcome.record["outlines"] == {"tolerance_pixels": 0, "min_pixels": 1, "regions": len(found)}
    x, y = np.meshgrid(np.arange(100) * 2 + 1, np.arange(80) * 2 + 1)
    for label in (1, 2):
        figures = [figure for figure, name in found if name == f"class {label}"]
        inside = np.any([shapely.contains_xy(figure, x, y) for figure in figures], axis=0)
        np.testing.assert_array_equal(inside, mask == label)
    features = json.loads((tmp_path / "out" / "prediction.geojson").read_text())["features"]
    for feature, (figure, name) in zip(features, found, strict=True):
        properties = feature["properties"]
        assert properties["objectType"] == "annotation"
        area = figure.area * 0.25
        assert properties["measurements"] == pytest.approx(
            {"Area µm^2": area, "Diameter µm": (area / np.pi) ** 0.5 * 2}
        )
        assert figure.is_valid
        assert name == properties["classification"]["name"]
    assert len({feature["id"] for feature in features}) == len(features)


@pytest.mark.parametrize("mpp", [0.5, 0.83])
def test_simplified_regions_are_valid_and_inside_the_slide(tmp_path, make_slide, mpp):
    run(make_slide(draw(301, 243)), tmp_path / "out", Bins(5, mpp=mpp), 0.25)
    found = read_annotations(tmp_path / "out" / "prediction.geojson")
    features = json.loads((tmp_path / "out" / "prediction.geojson").read_text())["features"]
    assert len(found) > 10
    for feature, (figure, _) in zip(features, found, strict=True):
        assert shapely.geometry.shape(feature["geometry"]).is_valid
        x0, y0, x1, y1 = figure.bounds
        assert min(x0, y0) >= 0
        assert (x1 <= 301, y1 <= 243) == (True, True)
        assert feature["properties"]["measurements"]["Area µm^2"] >= 16 * mpp**2


def test_answers_are_checked():
    predictor, tiles = Bins(3), np.zeros((2, 32, 48, 3), np.uint8)
    good = predictor(tiles).probs
    assert check_maps(predictor, SegProbs(good.astype(np.float16)), tiles).dtype == np.float32
    with pytest.raises(TypeError, match="ClassProbs"):
        check_maps(predictor, ClassProbs(good[:, :, 0, 0]), tiles)
    with pytest.raises(ValueError, match="shape"):
        check_maps(predictor, SegProbs(good[..., ::2, ::2]), tiles)
    with pytest.raises(ValueError, match=r"0\.\.9"):
        check_maps(predictor, SegProbs(np.where(good > 0.5, 9, 0.4).astype(np.float32)), tiles)
    for value in (np.nan, np.inf, -np.inf):
        bad = good.copy()
        bad[1, 2, 3, 4] = value
        with pytest.raises(SlideError, match="not finite"):
            check_maps(predictor, SegProbs(bad), tiles)


@pytest.mark.parametrize("where", ["write_features", "overlay_mask"])
def test_a_full_disk_leaves_nothing(tmp_path, make_slide, monkeypatch, where):
    path = make_slide(draw(60, 40))

    def fail(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(segmentation, where, fail)
    with pytest.raises(SlideError, match="is full"), atomic_folder(tmp_path / "out" / "slide") as folder:
        run(path, folder, Bins())
    assert not (tmp_path / "out").exists()


def test_background_is_pale_in_the_mask(tmp_path, make_slide):
    run(make_slide(draw(60, 40)), tmp_path / "out", Bins())
    with Image.open(tmp_path / "out" / "mask.tif") as image:
        colors = np.array(image.getpalette()).reshape(-1, 3)
    assert (colors[0] > 200).all()
    assert (colors[1] < 200).any()
    assert (colors[NOT_PREDICTED] == 255).all()


@pytest.mark.real
def test_a_real_slide(tmp_path, real_data):
    path, predictor = real_data / "slides" / "cmu_small_region.svs", Bins(3, (256, 256), 2.0)
    outcome = run(path, tmp_path / "out", predictor, 0.25)
    mask = mask_of(tmp_path / "out")
    with Slide(path) as slide:
        expected = predictor.rule(slide.read(0, 0, *mask.shape[::-1], 2.0))
    assert (mask == expected).mean() > 0.95
    assert sum(outcome.counts.values()) == pytest.approx(2220 * 2967 * 0.499**2, rel=2e-3)
