import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openslide
import pytest
from PIL import Image

from pathzoo.errors import SlideError
from pathzoo.wsi import readers
from pathzoo.wsi.readers.base import Level, mpp_from_tiff
from pathzoo.wsi.readers.openslide_reader import _bounds as bounds_of
from pathzoo.wsi.readers.openslide_reader import over_white
from pathzoo.wsi.resample import area_resample
from pathzoo.wsi.slide import Slide


def cell_mean(image: np.ndarray, x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """Area-weighted mean of a rectangle, pixel by pixel."""
    total, weight = np.zeros(3), 0.0
    for row in range(int(np.floor(y0)), int(np.ceil(y1))):
        for column in range(int(np.floor(x0)), int(np.ceil(x1))):
            w = (min(row + 1, y1) - max(row, y0)) * (min(column + 1, x1) - max(column, x0))
            total, weight = total + w * image[row, column], weight + w
    return total / weight


@pytest.mark.parametrize(
    "box", [(0.3, 1.2, 37.9, 30.1), (2.0, 3.0, 38.0, 27.0), (0.0, 0.0, 40.0, 31.0), (5.5, 5.5, 30.5, 20.5)]
)
def test_area_resample_against_a_loop_over_pixels(box):
    image = np.random.default_rng(1).integers(0, 256, (31, 40, 3), dtype=np.uint8)
    width, height = 12, 7
    out = area_resample(image, box, width, height)
    xs, ys = np.linspace(box[0], box[2], width + 1), np.linspace(box[1], box[3], height + 1)
    expected = [[cell_mean(image, xs[j], ys[i], xs[j + 1], ys[i + 1]) for j in range(width)] for i in range(height)]
    assert out.shape == (height, width, 3) and out.dtype == np.uint8
    assert np.abs(out - np.array(expected)).max() <= 0.5 + 1e-3


def test_over_white_blends_and_keeps_opaque_pixels():
    rgba = np.array([[[10, 20, 30, 255], [0, 0, 0, 0], [100, 0, 200, 128]]], np.uint8)
    expected = [[10, 20, 30], [255, 255, 255], np.rint(np.array([100, 0, 200]) * 128 / 255 + 255 * 127 / 255)]
    assert np.abs(over_white(rgba)[0] - np.array(expected)).max() <= 1
    assert over_white(rgba)[0, :2].tolist() == expected[:2]


def test_level_zero_equals_openslide_and_outside_is_white(make_slide, tissue_image):
    path = make_slide(levels=3)
    with Slide(path) as slide:
        assert slide.dimensions == (1000, 800) and slide.bounds == (0, 0, 1000, 800)
        assert slide.mpp == pytest.approx(0.5) and slide.mpp_source == "file"
        assert [level.downsample for level in slide.levels] == [1, 2, 4]
        reference = np.asarray(openslide.OpenSlide(path).read_region((300, 250), 0, (201, 99)))[..., :3]
        assert np.array_equal(slide.read(300, 250, 201, 99), reference)
        edge = slide.read(900, -50, 200, 100, mpp=0.5)
    assert np.array_equal(edge[50:, :100], tissue_image[:50, 900:])
    assert (edge[:50] == 255).all() and (edge[:, 100:] == 255).all()


def test_red_stays_red(make_slide):
    image = np.full((300, 300, 3), (200, 10, 20), np.uint8)
    with Slide(make_slide(image)) as slide:
        assert slide.read(5, 5, 4, 4)[0, 0].tolist() == [200, 10, 20]
        assert slide.thumbnail(32)[0, 0].tolist() == [200, 10, 20]


def test_resolution_of_a_level_gives_that_levels_pixels(make_slide, tissue_image):
    with Slide(make_slide(levels=3)) as slide:
        out = slide.read(400, 200, 100, 90, mpp=1.0)
        near = slide.read(400, 200, 100, 90, mpp=1.01)  # within 2 %: not resampled
    assert np.array_equal(out, tissue_image[200:380:2, 400:600:2])
    assert np.array_equal(near, out)


def test_between_levels_the_finer_one_is_averaged_once(make_slide, tissue_image):
    with Slide(make_slide(levels=3)) as slide:
        out = slide.read(201, 100, 60, 50, mpp=1.5)  # level 1, cells of 1.5 pixels, half a pixel in
    level = tissue_image[::2, ::2]
    for row, column in [(0, 0), (7, 31), (49, 59)]:
        x, y = 100.5 + column * 1.5, 50 + row * 1.5
        assert np.abs(out[row, column] - cell_mean(level, x, y, x + 1.5, y + 1.5)).max() <= 0.5 + 1e-6


def test_neighbouring_tiles_join_without_seam(make_slide, tissue_image):
    with Slide(make_slide()) as slide:
        whole = slide.read(0, 0, 300, 100, mpp=1.25)
        halves = [slide.read(x, 0, 150, 100, mpp=1.25) for x in (0, 375)]
    assert np.array_equal(np.concatenate(halves, axis=1), whole)


def test_finer_than_the_slide_is_refused_beyond_the_tolerance(make_slide):
    with Slide(make_slide(mpp=0.5)) as slide:
        assert slide.resolve_mpp(0.495) == 0.5
        assert slide.resolve_mpp(0.46, tolerance=0.1) == 0.5
        assert slide.resolve_mpp(0.75) == 0.75
        with pytest.raises(SlideError, match=r"slide\.tif: has 0\.5 microns per pixel, coarser than the 0\.25 asked"):
            slide.read(0, 0, 10, 10, mpp=0.25)
        with pytest.raises(SlideError, match="above 0"):
            slide.resolve_mpp(float("nan"))


def test_unknown_resolution_reads_level_zero_only(make_slide):
    with Slide(make_slide(mpp=None)) as slide:
        assert slide.mpp is None and slide.mpp_source is None
        assert slide.read(0, 0, 8, 8).shape == (8, 8, 3)
        with pytest.raises(SlideError, match="--mpp"):
            slide.read(0, 0, 8, 8, mpp=0.5)
    with Slide(slide.path, mpp=0.4) as slide:
        assert (slide.mpp, slide.mpp_source) == (0.4, "argument")


@pytest.mark.parametrize("mpp", [0, -1, float("nan"), float("inf")])
def test_given_mpp_must_be_positive(make_slide, mpp):
    with pytest.raises(SlideError, match="above 0"):
        Slide(make_slide(), mpp=mpp)


def test_tiff_tags_of_editors_are_no_resolution():
    assert mpp_from_tiff(20000, 20000, "centimeter") == (0.5, 0.5)
    assert mpp_from_tiff(50800, 50800, "inch") == (0.5, 0.5)
    assert mpp_from_tiff(72, 72, "inch") is None
    assert mpp_from_tiff(1, 1, "none") is None


def test_bounds_are_openslides_where_they_make_sense():
    stated = {"openslide.bounds-x": "100", "openslide.bounds-y": "40", "openslide.bounds-width": "300"}
    assert bounds_of(stated | {"openslide.bounds-height": "200"}, (600, 400)) == (100, 40, 300, 200)
    for useless in ({}, {"openslide.bounds-height": "x"}, {"openslide.bounds-height": "0"}):
        assert bounds_of(stated | useless, (600, 400)) == (0, 0, 600, 400)


class FakeReader:
    """A reader with what a test sets; pixel (x, y) is (x % 251, y % 251, 0)."""

    name = "fake"
    mpp = (0.5, 0.5)
    levels = (Level(600, 400, 1.0),)
    bounds = (100, 40, 300, 200)

    def __init__(self, path):
        self.path = path
        self.properties = {}

    @staticmethod
    def knows(path):
        return True

    def read_region(self, level, x, y, width, height):
        rows, columns = np.mgrid[y : y + height, x : x + width]
        return np.stack([columns % 251, rows % 251, 0 * rows], axis=-1).astype(np.uint8)

    def close(self):
        pass


def test_rectangular_pixels_are_refused_until_mpp_is_given(tmp_path, monkeypatch):
    path = tmp_path / "x.svs"
    path.write_bytes(b"x")
    monkeypatch.setitem(readers.READERS, "fake", FakeReader)
    monkeypatch.setattr(FakeReader, "mpp", (0.5, 0.6))
    with pytest.raises(SlideError, match=r"not square \(0\.5 x 0\.6 microns\)"):
        Slide(path, reader="fake")
    assert Slide(path, mpp=0.5, reader="fake").mpp == 0.5
    monkeypatch.setattr(FakeReader, "mpp", (0.5, 0.504))
    assert Slide(path, reader="fake").mpp == pytest.approx(0.502)


def test_unreadable_files_give_one_line_that_names_them(tmp_path, tissue_image):
    for name, content in [("junk.svs", b"junk" * 200), ("junk.png", b"junk" * 200), ("empty.png", b"")]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SlideError) as caught:
            Slide(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(SlideError, match=r"none\.svs: no such file"):
        Slide(tmp_path / "none.svs")
    Image.fromarray(tissue_image).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:5000])
    with pytest.raises(SlideError, match=r"cut\.png: damaged"):
        Slide(tmp_path / "cut.png").read(0, 0, 8, 8)
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(SlideError, match="mode I;16 have no plain RGB"):
        Slide(tmp_path / "deep.png").read(0, 0, 8, 8)
    with pytest.raises(SlideError, match="no reader is called 'x'"):
        Slide(tmp_path / "deep.png", reader="x")


_IN_WORKERS = """
import multiprocessing, os, sys
import numpy as np
from pathzoo.wsi.slide import Slide

def inherited(place):
    pixels = slide.read(*place, 64, 64)
    assert slide._process == os.getpid() and slide._reader is not slide._inherited
    return pixels

if __name__ == "__main__":
    with Slide(sys.argv[1], mpp=0.25, reader=sys.argv[3]) as slide:
        expected = slide.read(300, 300, 64, 64)
        with multiprocessing.get_context(sys.argv[2]).Pool(2) as pool:
            results = pool.starmap(slide.read, [(300, 300, 64, 64)] * 4)
            if sys.argv[2] == "fork":  # the arguments of a pool are pickled; this one is open as the fork left it
                results += pool.map(inherited, [(300, 300)] * 4)
        assert all(np.array_equal(result, expected) for result in results)
        assert np.array_equal(slide.read(300, 300, 64, 64), expected)
"""


def test_pickled_slides_reopen(make_slide):
    with Slide(make_slide(), mpp=0.25) as slide:
        again = pickle.loads(pickle.dumps(slide))
        assert again.mpp == 0.25 and np.array_equal(again.read(300, 300, 64, 64), slide.read(300, 300, 64, 64))


@pytest.mark.parametrize("reader", ["tiled-tiff", "openslide"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_slides_read_in_worker_processes(make_slide, tmp_path, method, reader):
    """In a process of its own: this one may have threads of OpenMP and OpenCV, which no fork survives."""
    (tmp_path / "workers.py").write_text(_IN_WORKERS)
    command = [sys.executable, str(tmp_path / "workers.py"), str(make_slide()), method, reader]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_forked_child_does_not_read_through_the_parents_handle(make_slide):
    with Slide(make_slide()) as slide:
        parent = slide._open_reader()
        slide._process = -1  # as it looks after a fork
        assert slide._open_reader() is not parent


def test_threads_read_the_same_pixels(make_slide):
    with Slide(make_slide(compression="jpeg")) as slide:
        places = [(x, y) for x in range(0, 800, 100) for y in range(0, 600, 100)]
        expected = [slide.read(x, y, 100, 100) for x, y in places]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda place: slide.read(*place, 100, 100), places * 3))
    assert all(np.array_equal(a, b) for a, b in zip(found, expected * 3, strict=True))


@pytest.mark.real
def test_real_svs_equals_openslide(real_data):
    path = real_data / "slides" / "cmu_small_region.svs"
    reference = openslide.OpenSlide(path)
    with Slide(path) as slide:
        assert slide.dimensions == reference.dimensions and slide.mpp == pytest.approx(0.499)
        for x, y in [(0, 0), (777, 1234), (2000, 2800)]:
            rgba = np.asarray(reference.read_region((x, y), 0, (300, 250)))
            expected = np.where(rgba[..., 3:] == 255, rgba[..., :3], 255)
            assert np.array_equal(slide.read(x, y, 300, 250, mpp=0.5), expected)


@pytest.mark.real
def test_real_broken_slide_gives_one_line(real_data):
    with pytest.raises(SlideError, match=r"broken\.svs") as caught:
        Slide(real_data / "slides" / "broken.svs")
    assert "\n" not in str(caught.value)
