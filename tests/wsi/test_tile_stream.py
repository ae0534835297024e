from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import openslide
import pytest
from PIL import Image
from wsi.faulty_slides import Darker, TiledSlide
from wsi.slide_files import STORAGES, write_slide

from pathzoo.errors import SlideError
from pathzoo.wsi import slide as slide_module
from pathzoo.wsi.native_band import NativeBand, native_use
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.tile_sources import tile_sources
from pathzoo.wsi.tile_stream import _most_held, estimate_memory, read_tiles
from pathzoo.wsi.tiling import TileGrid, tile_grid


def lay(slide: Slide, size, mpp: float, overlap: float = 0.0, mask=None, region=None) -> TileGrid:
    return tile_grid(region or slide.bounds, size, slide.resolve_mpp(mpp) / slide.mpp, overlap, mask)


def stream(slide, grid, mpp, batch_size=5, **options) -> dict[int, np.ndarray]:
    """All tiles by number; checks that they come in order, whole, and in batches of the size asked for."""
    tiles, sizes = {}, []
    for batch in read_tiles(slide, grid, mpp, batch_size, **options):
        assert batch.pixels.dtype == np.uint8
        assert batch.pixels.shape == (len(batch), grid.tile_size[1], grid.tile_size[0], 3)
        assert not batch.damage
        assert batch.numbers.tolist() == list(range(len(tiles), len(tiles) + len(batch)))
        tiles.update(zip(batch.numbers.tolist(), batch.pixels.copy(), strict=True))
        sizes.append(len(batch))
    assert len(tiles) == len(grid) and all(size == batch_size for size in sizes[:-1])
    return tiles


def same_as_read(slide: Slide, grid: TileGrid, mpp: float, tiles: dict[int, np.ndarray]) -> bool:
    corners = grid.corners.tolist()
    return all(np.array_equal(slide.read(*corners[n], *grid.tile_size, mpp), tile) for n, tile in tiles.items())


@pytest.mark.parametrize("isolate", [False, True])
def test_any_grid_at_any_resolution_gives_the_pixels_of_slide_read(make_slide, isolate):
    path, rng = make_slide(levels=3), np.random.default_rng(4)
    for native in ((128, 128), (64, 96)):
        slide = TiledSlide(path, tile=native)
        for _ in range(6):
            mpp = float(rng.choice([0.5, 1.0, 2.0, rng.uniform(0.5, 3.5)]))
            size = tuple(rng.integers(40, 300, 2).tolist())
            x, y = rng.integers(-150, 700, 2).tolist()
            region = (x, y, *rng.integers(300, 900, 2).tolist())  # stands out of the slide on most sides
            grid = lay(slide, size, mpp, float(rng.uniform(0, 0.7)), region=region)
            tiles = stream(slide, grid, mpp, int(rng.integers(1, 9)), num_workers=3, isolate=isolate)
            assert same_as_read(slide, grid, mpp, tiles), (native, mpp, size, region)


def test_very_large_sources_are_resampled_in_bands_as_slide_read_does(make_slide, monkeypatch):
    slide = TiledSlide(make_slide())
    monkeypatch.setattr(slide_module, "_BAND_PIXELS", 20_000)
    for mpp in (0.5, 0.9, 2.7):
        grid = lay(slide, (210, 170), mpp, 0.2)
        assert same_as_read(slide, grid, mpp, stream(slide, grid, mpp, isolate=False))


@pytest.mark.parametrize("storage", sorted(STORAGES))
def test_streams_of_real_files_equal_openslide(tissue_image, tmp_path, storage):
    image = tissue_image[:500, :610] if "grey" not in storage else tissue_image[:500, :610, 1]
    path = write_slide(tmp_path / "slide.tif", image, storage, levels=2)
    tolerance = int(storage.startswith("jpeg2k-ycbcr"))  # see TiledTiffReader
    with Slide(path) as slide, openslide.OpenSlide(path) as reference:
        assert slide.reader_name == "tiled-tiff"
        for mpp, level in ((0.5, 0), (1.0, 1)):
            grid = lay(slide, (200, 150), mpp, 1 / 3)
            for number, tile in stream(slide, grid, mpp).items():
                rgba = np.asarray(reference.read_region(tuple(grid.corners[number].tolist()), level, (200, 150)))
                expected = np.where(rgba[..., 3:] == 255, rgba[..., :3], 255).astype(int)
                assert np.abs(expected - tile).max() <= tolerance


@pytest.mark.parametrize("isolate", [False, True])
def test_formats_without_native_tiles_are_read_tile_by_tile(make_slide, tissue_image, tmp_path, isolate):
    Image.fromarray(tissue_image).save(tmp_path / "photo.png")
    for slide in (Slide(make_slide(levels=2), reader="openslide"), Slide(tmp_path / "photo.png", mpp=0.5)):
        for mpp in (0.5, 0.8, 1.0):
            grid = lay(slide, (150, 170), mpp, 0.25)
            assert same_as_read(slide, grid, mpp, stream(slide, grid, mpp, isolate=isolate))


def test_each_native_tile_is_decoded_once_and_only_where_tissue_is(make_slide):
    path = make_slide()  # 1000 x 800: 8 x 7 native tiles
    for mpp in (0.5, 0.8):
        slide = TiledSlide(path)
        stream(slide, lay(slide, (160, 120), mpp, 0.4), mpp, isolate=False)
        assert len(slide.cut.decoded) == 56 and set(slide.cut.decoded.values()) == {1}
    mask = np.zeros((8, 10), bool)
    mask[1, 1] = mask[6, 8] = True
    slide = TiledSlide(path)
    grid = lay(slide, (100, 100), 0.5, 0, mask)
    assert len(stream(slide, grid, 0.5, isolate=False)) == 2
    # (100, 100) and (800, 600): the corners of the native tiles lie at multiples of 128.
    touched = {(0, 0), (0, 1), (1, 0), (1, 1), (6, 4), (6, 5), (7, 4), (7, 5)}
    assert set(slide.cut.decoded) == {(0, *place) for place in touched | {(c, r) for c, r in touched if c < 2}}


def high_slide(folder, rows: int) -> TiledSlide:
    pixels = np.random.default_rng(rows).integers(0, 256, (rows, 640, 3)).astype(np.uint8)
    return TiledSlide(write_slide(folder / f"{rows}.tif", pixels, "none"), tile=(64, 64))  # 10 native tiles in a row


@pytest.mark.parametrize("overlap", [0, 0.5])
def test_what_is_held_is_a_band_whatever_the_height(tmp_path, overlap):
    most = []
    for rows in (640, 2560):
        slide = high_slide(tmp_path, rows)
        stream(slide, lay(slide, (128, 128), 0.5, overlap), 0.5, isolate=False)
        assert set(slide.cut.decoded.values()) == {1} and slide.cut.held == 0
        most.append(slide.cut.most_held)
    # One row of native tiles is shared by two rows of the grid where they overlap; the rest is what threads are at.
    assert max(most) <= (10 if overlap else 0) + 24
    assert most[1] <= most[0] + 8


def test_nothing_is_kept_where_threads_finish_in_another_order(make_slide):
    slide = TiledSlide(make_slide())
    sources = tile_sources(slide, lay(slide, (160, 120), 0.5, 0.4), 0.5)
    with ThreadPoolExecutor(1) as pool:
        band = NativeBand(
            sources, slide.cut.native_grid(0), lambda column, row: slide.cut.decode_tile(0, column, row), pool
        )
        for number in range(len(sources.corners)):
            band.prefetch(number)
        for number in reversed(range(len(sources.corners))):
            assert band.assemble(number, np.empty((120, 160, 3), np.uint8)) == []
    assert slide.cut.held == 0


def test_tiles_column_by_column_stay_within_the_limit_and_are_decoded_again(tmp_path):
    slide = high_slide(tmp_path, 2560)
    grid = lay(slide, (150, 150), 0.5, 0.3)
    grid = replace(grid, cells=grid.cells[np.lexsort(grid.cells.T)])
    assert same_as_read(slide, grid, 0.5, stream(slide, grid, 0.5, 2, isolate=False))
    unlimited, slide = slide.cut, high_slide(tmp_path, 2560)
    limit = 20 * 64 * 64 * 3
    assert same_as_read(slide, grid, 0.5, stream(slide, grid, 0.5, 2, isolate=False, band_bytes=limit))
    assert set(unlimited.decoded.values()) == {1} and unlimited.most_held >= 40
    # Above the limit: the native tiles of the six tiles that are asked for ahead, at most.
    assert slide.cut.most_held <= 20 + 6 * 16 < max(slide.cut.decoded.values()) * 64
    assert max(slide.cut.decoded.values()) > 1


def test_memory_is_estimated_by_what_the_band_needs(tmp_path, make_slide):
    def parts(slide, overlap, batch=4):
        return estimate_memory(slide, lay(slide, (128, 128), 0.5, overlap), 0.5, batch, 1)

    low, high = high_slide(tmp_path, 640), high_slide(tmp_path, 2560)
    assert parts(low, 0.5) == parts(high, 0.5) > parts(high, 0)  # the band, not the slide
    batch = 128 * 128 * 3
    assert parts(high, 0, 8) - parts(high, 0, 4) == 3 * 4 * batch  # three buffers
    grid = lay(high, (128, 128), 0.5, 0.5)
    stream(high, grid, 0.5, 4, isolate=False)
    spans, last = native_use(tile_sources(high, grid, 0.5), high.cut.native_grid(0))
    assert 10 <= _most_held(spans, last) <= high.cut.most_held + 8
    plain = Slide(make_slide(), reader="openslide")
    assert estimate_memory(plain, lay(plain, (128, 128), 0.5), 0.5, 4) > 12 * batch
    Image.fromarray(np.zeros((800, 1000, 3), np.uint8)).save(tmp_path / "photo.png")
    photo = Slide(tmp_path / "photo.png", mpp=0.5)
    of_both = [estimate_memory(slide, lay(slide, (128, 128), 0.5), 0.5, 4) for slide in (photo, plain)]
    assert of_both[0] - of_both[1] == 7 * 800 * 1000  # it is decoded as a whole
    assert estimate_memory(plain, replace(grid, cells=grid.cells[:0]), 0.5, 4) > 0


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize("kind", [TiledSlide, Slide])
def test_stain_changes_tissue_and_leaves_padding_white(make_slide, kind, isolate):
    slide = kind(make_slide())
    for mpp in (0.5, 0.9):
        grid = lay(slide, (300, 300), mpp, region=(-100, -50, 1300, 1200))
        tiles = stream(slide, grid, mpp, stain=Darker(), isolate=isolate)
        scale = mpp / slide.mpp
        for number, tile in tiles.items():
            x, y = grid.corners[number].tolist()
            expected = slide.read(x, y, 300, 300, mpp) // 2
            edges_x, edges_y = x + np.arange(301) * scale, y + np.arange(301) * scale
            expected[:, (edges_x[1:] <= 1e-6) | (edges_x[:-1] >= 1000 - 1e-6)] = 255
            expected[(edges_y[1:] <= 1e-6) | (edges_y[:-1] >= 800 - 1e-6)] = 255
            assert np.array_equal(tile, expected)


def test_nothing_to_read_and_senseless_numbers(make_slide):
    slide = Slide(make_slide())
    grid = lay(slide, (100, 100), 0.5)
    assert list(read_tiles(slide, replace(grid, cells=grid.cells[:0]), 0.5, 4)) == []
    for arguments in ({"batch_size": 0}, {"batch_size": 4, "num_workers": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            next(read_tiles(slide, grid, 0.5, **arguments))
    for isolate in (False, True):
        with pytest.raises(SlideError, match=r"slide\.tif: has 0\.5 microns per pixel, coarser than the 0\.1"):
            next(read_tiles(slide, grid, 0.1, 4, isolate=isolate))


def test_stopping_early_frees_what_is_held(make_slide):
    slide = TiledSlide(make_slide())
    batches = read_tiles(slide, lay(slide, (100, 100), 0.5, 0.5), 0.5, 4, isolate=False)
    next(batches)
    assert slide.cut.held
    batches.close()
    assert slide.cut.held == 0
