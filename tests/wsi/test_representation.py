"""Vectors of a slide's tiles: the right row for the right place, streamed, and a picture of how they differ."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from pathzoo.errors import SlideError
from pathzoo.wsi.images import represent_images, write_image_predictions
from pathzoo.wsi.npy_stream import NpyWriter
from pathzoo.wsi.predictor import ClassProbs, Embeddings, InputSpec
from pathzoo.wsi.principal import principal_components
from pathzoo.wsi.representation import component_colors
from pathzoo.wsi.run import predict_slide


class Means:
    """An encoder by rule: the mean of each channel in each half of the tile, left and right: 6 numbers."""

    name, version, digest, task = "means", "1.0.0", "", "representation"
    classes = ()

    def __init__(self, tile=64, mpp=0.5, bad=None):
        self.input = InputSpec((tile, tile), mpp)
        self.bad = bad
        self.sizes = []

    def __call__(self, tiles, /):
        self.sizes.append(len(tiles))
        if self.bad is not None:
            return self.bad(len(tiles))
        return Embeddings(np.array([self.rule(tile) for tile in tiles], np.float32).reshape(len(tiles), 6))

    @staticmethod
    def rule(tile):
        half = tile.shape[1] // 2
        return [*tile[:, :half].mean(axis=(0, 1)), *tile[:, half:].mean(axis=(0, 1))]


def places(folder):
    with (folder / "tiles.csv").open(newline="") as file:
        return [{key: int(value) for key, value in row.items()} for row in csv.DictReader(file)]


def test_every_row_is_the_vector_of_its_place(make_slide, tissue_image, tmp_path):
    encoder = Means()
    result = predict_slide(make_slide(), encoder, tmp_path / "out", batch_size=7)
    files = {path.name for path in result.folder.iterdir()}
    assert files == {"embeddings.npy", "tiles.csv", "overlay.png", "predict_run.json"}
    vectors, rows = np.load(result.folder / "embeddings.npy"), places(result.folder)
    assert vectors.dtype == np.float32 and vectors.shape == (len(rows), 6) and len(rows) == result.tiles > 20
    assert max(encoder.sizes) == 7, "all of them are never held at once"
    for row, vector in zip(rows, vectors, strict=True):
        x, y = row["minx"], row["miny"]
        tile = np.full((64, 64, 3), 255, np.uint8)
        seen = tissue_image[y : y + 64, x : x + 64]
        tile[: seen.shape[0], : seen.shape[1]] = seen
        np.testing.assert_allclose(vector, Means.rule(tile), atol=1e-4)
    record = json.loads((result.folder / "predict_run.json").read_text())
    assert record["embeddings"]["rows"] == len(rows) and record["embeddings"]["dimensions"] == 6
    assert record["tiles"]["predicted"] == len(rows) and record["tiles"]["by_class"] == {"embedded": len(rows)}
    assert record["model"]["task"] == "representation"


def test_the_overlay_tells_unlike_tissue_apart(make_slide, tmp_path):
    """The purple middle and the pink ring around it get different colours; glass keeps its own."""
    result = predict_slide(make_slide(), Means(32), tmp_path / "out")
    picture = np.asarray(Image.open(result.folder / "overlay.png").convert("RGB")).astype(int)
    top, left = picture.shape[0] - 28 - 800, 28  # the margins of every page
    middle, ring, glass = (picture[top + 400 + 100, left + x] for x in (450, 450 + 220, 990))
    assert np.abs(middle - ring).max() > 60
    assert glass.min() > 200


def test_tiles_that_cannot_be_decoded_have_no_row(make_slide, tmp_path):
    import tifffile

    path = make_slide()
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        offset, size = page.dataoffsets[3 * 8 + 3], page.databytecounts[3 * 8 + 3]
    data = bytearray(path.read_bytes())
    data[offset : offset + size] = b"\xff" * size
    path.write_bytes(data)
    result = predict_slide(path, Means(), tmp_path / "out")
    rows = places(result.folder)
    skipped = {(tile.x, tile.y) for tile in result.skipped}
    assert skipped and not skipped & {(row["minx"], row["miny"]) for row in rows}
    assert len(rows) == len(np.load(result.folder / "embeddings.npy")) == result.tiles - len(skipped)


def test_a_slide_without_tissue_is_an_empty_table(make_slide, tmp_path):
    path = make_slide(np.full((300, 400, 3), 244, np.uint8))
    result = predict_slide(path, Means(), tmp_path / "out")
    assert result.tiles == 0 and places(result.folder) == []
    assert len(np.load(result.folder / "embeddings.npy")) == 0


@pytest.mark.parametrize(
    ("bad", "error", "match"),
    [
        (lambda n: Embeddings(np.full((n, 3), np.nan, np.float32)), SlideError, "vectors hold values that are no numb"),
        (lambda n: Embeddings(np.zeros((n + 1, 3), np.float32)), ValueError, r"expected \(\d+, D\)"),
        (lambda n: ClassProbs(np.zeros((n, 3), np.float32)), TypeError, "expected Embeddings"),
    ],
)
def test_answers_that_cannot_be_kept(make_slide, tmp_path, bad, error, match):
    with pytest.raises(error, match=match):
        predict_slide(make_slide(), Means(bad=bad), tmp_path / "out")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_images_get_a_row_each_and_those_that_fail_none(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for number in range(5):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(paths[-1])
    paths[2].write_bytes(b"no image")
    seen = []
    inputs = (paths, Means(), lambda image, mpp: image, tmp_path / "v.npy")
    found = represent_images(*inputs, batch_size=2, progress=lambda *n: seen.append(n))
    assert [path.name for path, _ in found.failed] == ["2.png"] and seen == [(2, 5), (4, 5), (5, 5)]
    vectors = np.load(tmp_path / "v.npy")
    write_image_predictions(tmp_path / "p.csv", found)
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [str(path) for path in paths if path.name != "2.png"]
    for row in rows:
        expected = Means.rule(np.asarray(Image.open(row["path"])))
        np.testing.assert_allclose(vectors[int(row["row"])], expected, atol=1e-4)
    with pytest.raises(SlideError, match="its task is classification; only representation takes images here"):
        encoder = Means()
        encoder.task = "classification"
        represent_images(paths, encoder, lambda image, mpp: image, tmp_path / "v.npy")


def test_a_table_written_in_parts_is_numpys_own(tmp_path):
    data = np.random.default_rng(0).normal(size=(1000, 7)).astype(np.float32)
    with NpyWriter(tmp_path / "a.npy") as table:
        for start in range(0, 1000, 33):
            table.append(data[start : start + 33])
        with pytest.raises(ValueError, match=r"\(3, 5\) do not continue a table of 7"):
            table.append(np.zeros((3, 5), np.float32))
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy", mmap_mode="r"), data)
    np.save(tmp_path / "b.npy", data)
    ours, numpys = (np.lib.format.open_memmap(tmp_path / name, mode="r") for name in ("a.npy", "b.npy"))
    assert (ours.dtype, ours.shape, ours.flags.c_contiguous) == (numpys.dtype, numpys.shape, numpys.flags.c_contiguous)
    with NpyWriter(tmp_path / "c.npy"):
        pass
    assert np.load(tmp_path / "c.npy").shape == (0, 0)


def test_components_are_the_eigenvectors_of_the_covariance():
    rng = np.random.default_rng(1)
    data = (rng.normal(size=(300, 5)) * [5, 3, 2, 1, 0.5] @ np.linalg.qr(rng.normal(size=(5, 5)))[0]).astype(np.float32)
    found = principal_components(data, 3)
    values, vectors = np.linalg.eigh(np.cov(data.astype(float).T))
    np.testing.assert_allclose(found.share, values[::-1][:3] / values.sum(), atol=1e-6)
    np.testing.assert_allclose(np.abs(np.diag(found.axes @ vectors[:, ::-1][:, :3])), 1, atol=1e-5)
    projected = found.project(data)
    np.testing.assert_allclose(projected.var(axis=0, ddof=1), values[::-1][:3], rtol=1e-4)
    np.testing.assert_allclose(projected.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(principal_components(data[::-1], 3).axes, found.axes, atol=1e-6)


@pytest.mark.parametrize("n", [1, 2])
def test_few_or_equal_vectors_have_colours_too(n):
    colors, components = component_colors(np.ones((n, 4), np.float32))
    np.testing.assert_array_equal(colors, np.full((n, 3), 127.5))
    np.testing.assert_array_equal(components.share, 0)


def test_colours_stretch_over_the_whole_range():
    data = np.random.default_rng(0).normal(size=(5000, 8)).astype(np.float32)
    colors, components = component_colors(data)
    assert colors.min() == 0 and colors.max() == 255 and colors.shape == (5000, 3)
    first = components.project(data)[:, 0]
    inner = (colors[:, 0] > 0) & (colors[:, 0] < 255)
    assert inner.mean() == pytest.approx(0.96, abs=0.005)
    assert np.corrcoef(first[inner], colors[inner, 0])[0, 1] > 0.9999
