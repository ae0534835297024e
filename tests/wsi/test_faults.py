"""What the stream of tiles makes of broken files and of decoders that hang or crash."""

import json
import shutil

import numpy as np
import openslide
import pytest
from wsi import slide_files
from wsi.faulty_slides import Darker, FaultySlide, SlowToOpen, TiledSlide
from wsi.slide_files import write_slide

from pathzoo.errors import SlideError
from pathzoo.wsi import run, tile_stream
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.tile_stream import read_tiles
from pathzoo.wsi.tiling import tile_grid

SIZE, OVERLAP = (200, 150), 1 / 3


@pytest.fixture
def whole(tissue_image, tmp_path):
    """A JPEG slide of 610 x 500 pixels and two levels: 5 x 4 native tiles of 128 pixels, then 3 x 2."""
    return write_slide(tmp_path / "whole.tif", tissue_image[150:650, 150:760], "jpeg-ycbcr-420", levels=2)


def breaking(whole, change, *arguments):
    return change(shutil.copy(whole, whole.parent / "broken.tif"), *arguments)


def stream(slide, mpp=0.5, **options):
    """The grid, all pixels, all damage, and (n, H, W) of what is damaged."""
    grid = tile_grid(slide.bounds, SIZE, slide.resolve_mpp(mpp) / slide.mpp, OVERLAP)
    pixels, damage = [], {}
    for batch in read_tiles(slide, grid, mpp, 4, **options):
        pixels.append(batch.pixels.copy())
        damage.update(batch.damage)
    pixels = np.concatenate(pixels)
    assert len(pixels) == len(grid)
    masks = np.zeros(pixels.shape[:3], bool)
    for number, (mask, _) in damage.items():
        assert mask.dtype == bool and mask.any()
        masks[number] = mask
    assert (pixels[masks] == 255).all()
    return grid, pixels, damage, masks


def footprints(grid, native_tiles, step=1.0):
    """(n, H, W): the pixels of tiles that lie, be it in part, in native tiles (column, row) of 128 pixels."""
    masks = np.zeros((len(grid), SIZE[1], SIZE[0]), bool)
    for mask, (left, top) in zip(masks, grid.corners.tolist(), strict=True):
        x0, y0 = left + np.arange(SIZE[0]) * step, top + np.arange(SIZE[1]) * step
        for column, row in native_tiles:
            across = (x0 + step > column * 128 + 1e-6) & (x0 < column * 128 + 128 - 1e-6)
            mask |= np.outer((y0 + step > row * 128 + 1e-6) & (y0 < row * 128 + 128 - 1e-6), across)
        mask[:, x0 >= 610] = mask[y0 >= 500] = False
    return masks


def through_openslide(path, grid, level=0):
    with openslide.OpenSlide(path) as slide:
        tiles = [np.asarray(slide.read_region(tuple(c), level, SIZE)) for c in grid.corners.tolist()]
    return np.array([np.where(tile[..., 3:] == 255, tile[..., :3], 255) for tile in tiles])


@pytest.mark.parametrize(
    "change",
    ["break_jpeg_data", "break_tile", "cut_tile", "empty_tile", "move_tile_beyond_end"],
)
def test_a_broken_tile_is_white_where_it_lies_and_all_else_intact(whole, change):
    path = breaking(whole, getattr(slide_files, change), 1 * 5 + 2)  # column 2, row 1
    with Slide(path) as slide:
        assert slide.reader_name == "tiled-tiff"
        grid, pixels, damage, masks = stream(slide)
    assert np.array_equal(masks, footprints(grid, [(2, 1)]))
    assert np.array_equal(pixels[~masks], through_openslide(whole, grid)[~masks])
    for _, reason in damage.values():
        assert reason.startswith("cannot decode tile 2, 1 of level 0: ") and str(path.parent) not in reason


def test_a_broken_tile_of_a_resampled_stream_spoils_only_what_it_touches(whole):
    path = breaking(whole, slide_files.break_jpeg_data, 1 * 5 + 2)
    mpp = 0.83
    with Slide(path) as slide, Slide(whole) as sound:
        grid, pixels, _, masks = stream(slide, mpp)
        assert np.array_equal(masks, footprints(grid, [(2, 1)], mpp / 0.5))
        expected = np.array([sound.read(*corner, *SIZE, mpp) for corner in grid.corners.tolist()])
        assert np.array_equal(pixels[~masks], expected[~masks])
        _, pixels, _, masks = stream(slide, 1.0)  # the other level is sound
        assert not masks.any()


def test_a_file_cut_short_keeps_what_it_holds(tissue_image, tmp_path):
    whole = write_slide(tmp_path / "whole.tif", tissue_image[150:650, 150:760], "jpeg-rgb")
    places = [slide_files.tile_place(whole, index) for index in range(20)]
    end = places[12][0] + places[12][1] // 2
    lost = [index for index, (offset, count) in enumerate(places) if offset + count > end]
    path = breaking(whole, slide_files.cut_file, end)
    assert len(lost) == 8
    with Slide(path) as slide:
        grid, pixels, damage, masks = stream(slide)
    assert np.array_equal(masks, footprints(grid, [(index % 5, index // 5) for index in lost]))
    assert np.array_equal(pixels[~masks], through_openslide(whole, grid)[~masks])
    assert any("(and " in reason for _, reason in damage.values())  # several native tiles: the first is named


def test_without_native_tiles_the_broken_part_is_found_too(whole):
    path = breaking(whole, slide_files.break_jpeg_data, 1 * 5 + 2)
    with Slide(path, reader="openslide") as slide:
        grid, pixels, _, masks = stream(slide)
    exact = footprints(grid, [(2, 1)])
    assert masks[exact].all() and set(masks.any((1, 2)).nonzero()[0]) == set(exact.any((1, 2)).nonzero()[0])
    reach = 128
    near = footprints(grid, [(c, r) for c in (1, 2, 3) for r in (0, 1, 2)])
    assert not masks[~near].any() and masks.sum() < exact.sum() * ((128 + 2 * reach) / 128) ** 2
    assert np.array_equal(pixels[~masks], through_openslide(whole, grid)[~masks])


def test_stain_leaves_damage_white(whole):
    path = breaking(whole, slide_files.break_tile, 1 * 5 + 2)
    with Slide(path) as slide:
        _, plain, _, _ = stream(slide)
        grid, pixels, _, masks = stream(slide, stain=Darker())
    inside = np.broadcast_to(footprints(grid, [(c, r) for c in range(5) for r in range(4)]), masks.shape)
    assert np.array_equal(pixels[inside & ~masks], plain[inside & ~masks] // 2)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("hang", "decoder gave no answer within 0.4 s"),
        ("hang with Python's lock", "decoder gave no answer within 0.4 s"),
        ("segfault", "decoder crashed (SIGSEGV)"),
        ("out of memory", "the reading process was killed (SIGKILL), perhaps for want of memory"),
    ],
)
def test_a_decoder_that_hangs_or_crashes_loses_its_tile_only(whole, tmp_path, fault, reason):
    record = tmp_path / "record"
    slide = TiledSlide(whole, faults={(0, 2, 1): fault}, record=record)
    grid, pixels, damage, masks = stream(slide, timeout=0.4)
    assert np.array_equal(masks, footprints(grid, [(2, 1)]))
    assert np.array_equal(pixels[~masks], through_openslide(whole, grid)[~masks])
    assert {why for _, why in damage.values()} == {f"native tile at column 2, row 1 of level 0: {reason}"}
    tried = [line for line in record.read_text().splitlines() if line.endswith(" 0 2 1")]
    # Where other threads were busy too it is tried again, alone.
    assert len(tried) <= (1 if fault == "hang" else 2)


def test_a_run_over_a_slide_whose_decoder_hangs_ends_with_all_other_tiles(whole, tmp_path, darkness, monkeypatch):
    """End to end: the tiles that touch it are listed, the others predicted as ever."""
    sound = run.predict_slide(whole, darkness(), tmp_path / "sound", tissue=False)
    faults = {(0, 2, 1): "hang"}
    monkeypatch.setattr(run, "Slide", lambda path, mpp, reader: TiledSlide(path, mpp, faults=faults))
    result = run.predict_slide(whole, darkness(), tmp_path / "out", tissue=False, timeout=0.6)
    assert [(tile.x, tile.y) for tile in result.skipped] == [(256, 128)]
    record = json.loads((result.folder / "predict_run.json").read_text())
    assert "decoder gave no answer within 0.6 s" in record["skipped_tiles"][0]["reason"]
    rows, lost = ((folder / "tiles.csv").read_text().splitlines() for folder in (sound.folder, result.folder))
    assert [row for row in rows if not row.startswith("256,128,")] == lost and len(lost) == len(rows) - 1
    assert (result.folder / "overlay.png").is_file() and (result.folder / "prediction.geojson").is_file()


def test_several_faults_of_different_kinds(whole):
    faults = {(0, 2, 1): "segfault", (0, 3, 1): "hang", (0, 0, 3): "corrupt", (0, 4, 2): "bad disk"}
    slide = TiledSlide(whole, faults=faults)
    grid, pixels, damage, masks = stream(slide, timeout=0.4, num_workers=3)
    assert np.array_equal(masks, footprints(grid, [(column, row) for _, column, row in faults]))
    assert np.array_equal(pixels[~masks], through_openslide(whole, grid)[~masks])
    text = " ".join(reason for _, reason in damage.values())
    assert "SIGSEGV" in text and "no answer" in text and "cannot decode this tile" in text
    assert "cannot be read: [Errno 5] Input/output error" in text


@pytest.mark.parametrize(("fault", "reason"), [("hang", "no answer within 0.2 s"), ("segfault", r"SIGSEGV")])
def test_a_slide_that_always_hangs_or_crashes_is_given_up(whole, fault, reason, monkeypatch):
    monkeypatch.setattr(tile_stream, "_STOPS", 2)
    faults = {(0, column, row): fault for column in range(5) for row in range(4)}
    with pytest.raises(SlideError, match=rf"whole\.tif: given up after .* 2 times.*{reason}.*copy the file") as caught:
        stream(TiledSlide(whole, faults=faults), timeout=0.2, num_workers=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", ["hang", "segfault", "corrupt", "bad disk"])
def test_formats_without_native_tiles_lose_the_tile_of_the_grid(whole, fault):
    slide = FaultySlide(whole, point=(5, 5), fault=fault)  # in the first tile of the grid only
    grid, pixels, damage, masks = stream(slide, timeout=0.6)
    assert list(damage) == [0] and (fault == "corrupt" or masks[0].all())
    assert np.array_equal(pixels[1:], through_openslide(whole, grid)[1:])


def test_a_slide_that_hangs_while_it_is_opened_is_an_error(whole):
    with pytest.raises(SlideError, match=r"whole\.tif: decoder gave no answer within 0\.4 s while it was being opened"):
        stream(SlowToOpen(whole), timeout=0.4)


@pytest.mark.parametrize("isolate", [False, True])
def test_a_defect_of_a_reader_is_not_taken_for_damage(whole, isolate):
    slide = TiledSlide(whole, faults={(0, 2, 1): "defect"})
    with pytest.raises(ZeroDivisionError, match="a defect of the reader") as caught:
        stream(slide, isolate=isolate)
    if isolate:
        assert "decode_tile" in str(caught.value.__cause__)  # says where, though it was in another process
