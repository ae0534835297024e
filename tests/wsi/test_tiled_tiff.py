"""The native-grid reader against OpenSlide, and which reader takes which file."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image
from wsi.slide_files import STORAGES, edit_tile, never_written_tile, set_tag, write_slide

from pathzoo.errors import SlideError
from pathzoo.wsi.readers import TiledReader, open_reader, tiled_tiff
from pathzoo.wsi.readers.tile_cache import TileCache
from pathzoo.wsi.slide import Slide

#: Storages whose pixels may differ from OpenSlide's, and by how many grey levels at most: see `TiledTiffReader`.
_NEAR = {"jpeg2k-ycbcr": 1, "jpeg2k-ycbcr-422": 1}


def texture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Strong colours that change within a few pixels, so that an error in chroma shows."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 1.5).astype(int)
    return np.clip((smooth - 128) * 4 + 150, 0, 255).astype(np.uint8)


def by_openslide(path, x, y, level, width, height) -> np.ndarray:
    with openslide.OpenSlide(path) as slide:
        down = slide.level_downsamples[level]
        rgba = np.asarray(slide.read_region((round(x * down), round(y * down)), level, (width, height)))
    return np.where(rgba[..., 3:] == 255, rgba[..., :3], 255).astype(np.uint8)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("aperio", [False, True])
def test_pixels_equal_openslides(tmp_path, storage, aperio):
    image = texture(430, 300)[..., 1] if "grey" in storage else texture(430, 300)
    path = write_slide(tmp_path / "slide.svs", image, storage, levels=2, aperio=aperio, quality=75)
    reader, worst = open_reader(path), 0
    assert reader.name == "tiled-tiff" and isinstance(reader, TiledReader)
    for level in range(2):
        width, height = reader.levels[level].width, reader.levels[level].height
        # All of it with its white surroundings, and a piece within tiles.
        for box in [(-5, -7, width + 20, height + 30), (37, 99, 111, 45)]:
            found = reader.read_region(level, *box).astype(int)
            x, y = max(box[0], 0), max(box[1], 0)
            expected = np.full(found.shape, 255)
            part = by_openslide(path, x, y, level, box[2] + box[0] - x, box[3] + box[1] - y)
            expected[y - box[1] :, x - box[0] :] = part
            worst = max(worst, int(np.abs(found - expected).max()))
    assert worst <= _NEAR.get(storage, 0)
    if STORAGES[storage]["compression"] not in ("jpeg", "jpeg2000"):
        pixels = reader.read_region(0, 0, 0, 430, 300)
        assert np.array_equal(pixels, image if image.ndim == 3 else np.dstack([image] * 3))


def test_bigtiff(tmp_path):
    with Slide(write_slide(tmp_path / "big.tif", texture(300, 200), "jpeg-rgb", bigtiff=True)) as slide:
        assert slide.reader_name == "tiled-tiff"
        assert np.array_equal(slide.read(0, 0, 300, 200), by_openslide(slide.path, 0, 0, 0, 300, 200))


def test_native_tiles_are_whole_and_white_beyond_the_edge(tmp_path):
    image = texture(300, 200)
    reader = open_reader(write_slide(tmp_path / "a.tif", image, "deflate"))
    grid = reader.native_grid(0)
    assert (grid.tile_width, grid.tile_height, grid.columns, grid.rows) == (128, 128, 3, 2)
    for column, row in itertools.product(range(3), range(2)):
        tile = reader.decode_tile(0, column, row)
        part = image[row * 128 : row * 128 + 128, column * 128 : column * 128 + 128]
        assert tile.shape == (128, 128, 3) and tile.dtype == np.uint8
        assert np.array_equal(tile[: part.shape[0], : part.shape[1]], part)
        assert (tile[part.shape[0] :] == 255).all() and (tile[:, part.shape[1] :] == 255).all()
    with pytest.raises(ValueError, match="it has 3 x 2"):
        reader.decode_tile(0, 3, 0)


def test_what_was_never_written_is_white_as_in_openslide(tmp_path):
    path = never_written_tile(write_slide(tmp_path / "sparse.tif", texture(300, 200), "jpeg-rgb"), 1)
    pixels = Slide(path).read(0, 0, 300, 200)
    assert (pixels[:128, 128:256] == 255).all()
    assert np.array_equal(pixels, by_openslide(path, 0, 0, 0, 300, 200))


def _without_reader(path, image, **settings):
    with tifffile.TiffWriter(path) as writer:
        writer.write(image, metadata=None, **{"tile": (64, 64), "photometric": "rgb", **settings})
    return path


def _mirrored(path, image):
    _without_reader(path, image, extratags=[(274, 3, 1, 2, True)])
    return path


_LEFT_TO_OPENSLIDE = {
    "apart": lambda path: _without_reader(path, texture(200, 100).transpose(2, 0, 1), planarconfig="separate"),
    "orientation 2": lambda path: _mirrored(path, texture(200, 100)),
    "compression 32773": lambda path: _without_reader(path, texture(200, 100), compression="packbits"),
    "4 samples": lambda path: _without_reader(
        path, np.dstack([texture(200, 100), np.full((100, 200), 255, np.uint8)]), extrasamples=["unassalpha"]
    ),
}


@pytest.mark.parametrize("reason", _LEFT_TO_OPENSLIDE)
def test_other_storage_is_left_to_openslide(tmp_path, reason):
    path = _LEFT_TO_OPENSLIDE[reason](tmp_path / "slide.tif")
    with Slide(path, mpp=0.5) as slide:
        assert slide.reader_name == "openslide" and slide.native is None
        assert np.array_equal(slide.read(10, 20, 90, 60), by_openslide(path, 10, 20, 0, 90, 60))
    with pytest.raises(SlideError, match=rf"slide\.tif: reader 'tiled-tiff' cannot read it: .*{reason}.*; choose none"):
        Slide(path, reader="tiled-tiff")


@pytest.mark.parametrize("grey", [False, True])
def test_deeper_pixels_are_refused_by_every_reader(tmp_path, grey):
    """OpenSlide would give their upper bytes: an instrument's 12 bits as black."""
    pixels = texture(200, 100).astype(np.uint16) * 16
    kind = {"photometric": "minisblack"} if grey else {}
    path = _without_reader(tmp_path / "deep.tif", pixels[..., 0] if grey else pixels, **kind)
    for reader in (None, "openslide", "tiled-tiff"):
        with pytest.raises(SlideError, match=r"deep\.tif: pixels of mode TIFF .*16 bits per channel.* save it as"):
            Slide(path, reader=reader)


def test_other_vendors_are_left_to_openslide(tmp_path):
    path = _without_reader(
        tmp_path / "trestle.tif",
        texture(200, 100),
        software="MedScan",
        description="OverlapsXY= 0 0",
        compression="lzw",
    )
    with Slide(path) as slide:
        assert slide.reader_name == "openslide"
    with pytest.raises(SlideError, match="a TIFF of trestle"):
        Slide(path, reader="tiled-tiff")


def test_a_reader_can_be_forced_and_says_why_it_cannot(tmp_path):
    path = write_slide(tmp_path / "a.tif", texture(200, 100), "jpeg-ycbcr-420")
    Image.fromarray(texture(200, 100)).save(tmp_path / "a.png")
    Image.fromarray(texture(200, 100)).save(tmp_path / "strips.tif")
    with Slide(path) as native, Slide(path, reader="openslide") as forced:
        assert (native.reader_name, forced.reader_name) == ("tiled-tiff", "openslide")
        assert native.native is not None and forced.native is None
        assert np.array_equal(native.read(10, 10, 100, 80), forced.read(10, 10, 100, 80))
    assert Slide(tmp_path / "strips.tif").reader_name == "image"
    for name, reader, reason in [
        ("a.png", "tiled-tiff", "not a TIFF"),
        ("strips.tif", "tiled-tiff", "not tiled"),
        ("a.png", "openslide", "knows no format"),
    ]:
        with pytest.raises(SlideError, match=rf"{name}: reader '{reader}' cannot read it: .*{reason}.*; choose none"):
            Slide(tmp_path / name, reader=reader)


def test_properties_and_resolution_are_openslides(tmp_path):
    path = write_slide(tmp_path / "a.svs", texture(200, 100), "jpeg-rgb", levels=2, aperio=True, mpp=0.25)
    with Slide(path) as slide, openslide.OpenSlide(path) as reference:
        assert slide.mpp == 0.25 and slide.mpp_source == "file" and slide.bounds == (0, 0, 200, 100)
        assert [(level.width, level.height) for level in slide.levels] == list(reference.level_dimensions)
        assert tuple(level.downsample for level in slide.levels) == reference.level_downsamples


def test_tiles_with_data_after_the_picture_are_read_where_all_have_them(tmp_path):
    """Some writers pad with bytes before the end mark; that is no damage, but in a file of others it is."""
    path = write_slide(tmp_path / "a.tif", texture(300, 200), "jpeg-rgb")
    expected = by_openslide(path, 0, 0, 0, 300, 200)
    edit_tile(path, 2, lambda data: data[:-2] + b"\x12\x34\x56" * 40 + data[-2:])
    with Slide(path) as slide, pytest.raises(SlideError, match=r"tile 2, 0 of level 0: its data go on"):
        slide.read(0, 0, 300, 200)
    for index in (0, 1, 3, 4, 5):
        edit_tile(path, index, lambda data: data[:-2] + b"\x12\x34\x56" * 40 + data[-2:])
    with Slide(path) as slide:
        assert np.array_equal(slide.read(0, 0, 300, 200), expected)


def test_a_sound_tile_that_ends_grey_keeps_its_pixels(tmp_path):
    """Its data look as if they ended early, so OpenSlide is asked; of a level of odd size it would answer blurred."""
    image = texture(861, 601)
    image[470:520, 470:520] = 128
    for storage in ("jpeg-rgb-420", "jpeg-ycbcr-420", "jpeg-rgb"):
        path = write_slide(tmp_path / "a.svs", image, storage, levels=2, aperio=True)
        expected = by_openslide(path, 0, 0, 1, 431, 301)
        assert (expected[248:256, 248:256] == 128).all()
        with Slide(path) as slide:
            assert np.array_equal(slide.native.decode_tile(1, 1, 1), expected[128:256, 128:256])
    for index in range(12):  # of level 1
        edit_tile(path, index, lambda data: data[:-2] + b"\x12\x34\x56" * 40 + data[-2:], directory=1)
    with Slide(path) as slide:
        assert np.array_equal(slide.native.decode_tile(1, 1, 1), expected[128:256, 128:256])


@pytest.mark.parametrize("storage", ["jpeg-rgb", "lzw"])
def test_levels_of_odd_size_show_what_the_file_holds(tmp_path, storage):
    """OpenSlide interpolates there between pixels: its level-0 corners lie between those of the level."""
    path = write_slide(tmp_path / "a.svs", texture(431, 301), storage, levels=2, aperio=True)
    expected = tifffile.imread(path, key=1)
    with Slide(path) as slide:
        reader = slide._open_reader()
        assert slide.levels[1].downsample != 2 and np.array_equal(reader.read_region(1, 0, 0, 216, 151), expected)
        assert np.array_equal(reader.read_region(1, 101, 57, 90, 80), expected[57:137, 101:191])
        assert np.array_equal(expected, by_openslide(path, 0, 0, 1, 216, 151))  # from the corner on, they agree


def test_a_tile_is_decoded_once_however_many_threads_ask(tmp_path, monkeypatch):
    path, decoded, lock = write_slide(tmp_path / "a.tif", texture(512, 512), "jpeg-rgb"), [], threading.Lock()
    real = tiled_tiff.decode

    def counted(page, data, strict=True):
        with lock:
            decoded.append(len(data))
        return real(page, data, strict)

    monkeypatch.setattr(tiled_tiff, "decode", counted)
    with Slide(path) as slide, ThreadPoolExecutor(8) as pool:
        places = [(x, y) for x in range(0, 400, 50) for y in range(0, 400, 50)]
        tiles = list(pool.map(lambda place: slide.read(*place, 100, 100), places))
        assert len(decoded) == 16  # 4 x 4 native tiles
        whole = slide.read(0, 0, 512, 512)
    assert all(
        np.array_equal(tile, whole[y : y + 100, x : x + 100]) for (x, y), tile in zip(places, tiles, strict=True)
    )


def test_the_cache_holds_what_it_may_and_no_failures():
    cache, made = TileCache(3 * 300), []

    def make(key):
        made.append(key)
        if key == "bad":
            raise SlideError("no")
        return np.zeros((10, 10, 3), np.uint8)

    for key in "abcabcdd":
        cache.get(key, lambda key=key: make(key))
    assert made == ["a", "b", "c", "d"] and cache.peek("a") is None and cache.peek("d") is not None
    for _ in range(2):
        with pytest.raises(SlideError):
            cache.get("bad", lambda: make("bad"))
    assert made[4:] == ["bad", "bad"]


def test_reading_leaves_no_descriptor_open(tmp_path):
    path = write_slide(tmp_path / "a.tif", texture(200, 100), "jpeg-rgb")
    opened = Path("/proc/self/fd")
    before = len(list(opened.iterdir())) if opened.is_dir() else 0
    with Slide(path) as slide:
        slide.read(0, 0, 50, 50)
    Slide(path)  # not closed, but no longer used
    set_tag(write_slide(tmp_path / "b.tif", texture(200, 100), "jpeg-rgb"), 0, 282, 10000)  # the resolution along x
    with pytest.raises(SlideError, match="not square"):
        Slide(tmp_path / "b.tif")
    assert (len(list(opened.iterdir())) if before else 0) <= before
    with pytest.raises(SlideError, match=r"after it was closed"):
        slide.read(0, 0, 50, 50)


@pytest.mark.real
@pytest.mark.parametrize("name", ["slides/cmu_small_region.svs", "glomeruli/aidpath_regions/region_A_2048x2048.tiff"])
def test_real_slides_equal_openslide(real_data, name):
    with Slide(real_data / name, mpp=0.5) as slide:
        if slide.reader_name == "tiled-tiff":
            for level, size in enumerate(slide.levels):
                found = slide._open_reader().read_region(level, 0, 0, size.width, size.height)
                assert np.array_equal(found, by_openslide(slide.path, 0, 0, level, size.width, size.height))
        else:
            assert np.array_equal(slide.read(300, 400, 500, 600), np.array(Image.open(slide.path))[400:1000, 300:800])
