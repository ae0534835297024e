import csv
import json
import resource
import subprocess
import sys

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image
from shapely.geometry import shape

from pathzoo.errors import OutputError, SlideError
from pathzoo.wsi.overview import take_overview
from pathzoo.wsi.predictor import ClassProbs, InputSpec
from pathzoo.wsi.readers.base import Level
from pathzoo.wsi.run import predict_slide
from pathzoo.wsi.slide import Slide

FILES = ["overlay.png", "predict_run.json", "prediction.geojson", "tiles.csv"]


def rows_of(folder):
    with (folder / "tiles.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def through_openslide(path, x, y, size):
    """A level-0 tile, white where there is nothing."""
    rgba = np.asarray(openslide.OpenSlide(path).read_region((x, y), 0, (size, size)))
    return np.where(rgba[..., 3:] == 255, rgba[..., :3], 255).astype(np.uint8)


def test_every_tile_equals_a_plain_loop_over_openslide(make_slide, darkness, tmp_path):
    path = make_slide(levels=3)
    result = predict_slide(path, darkness(96), tmp_path / "out", tissue=False, batch_size=7)
    expected = []
    for y in range(0, 800, 96):
        for x in range(0, 1000, 96):
            expected.append([x, y, 96, 96, *darkness.rule(through_openslide(path, x, y, 96))])
    rows = rows_of(result.folder)
    assert list(rows[0]) == ["minx", "miny", "width", "height", "prob_benign", "prob_malignant"]
    assert np.allclose([[float(v) for v in row.values()] for row in rows], expected, atol=2e-6)
    assert result.tiles == len(expected) == sum(result.counts.values()) and not result.skipped


def test_tissue_is_covered_and_glass_left_out(make_slide, darkness, tmp_path):
    path = make_slide()
    result = predict_slide(path, darkness(64), tmp_path / "out")
    assert sorted(p.name for p in result.folder.iterdir()) == FILES
    covered = np.zeros((800, 1000), bool)
    for row in rows_of(result.folder):
        x, y, w, h = (int(row[k]) for k in ("minx", "miny", "width", "height"))
        covered[y : y + h, x : x + w] = True
    y, x = np.mgrid[:800, :1000]
    disc = np.hypot(x - 450, y - 400) < 298
    assert covered[disc].all() and covered.mean() < 0.6


def test_batch_size_and_threads_do_not_change_the_result(make_slide, darkness, tmp_path):
    path, texts = make_slide(compression="jpeg"), []
    for i, (batch, workers) in enumerate([(1, 1), (5, 4), (1000, 2)]):
        predictor = darkness(100, mpp=0.8)
        result = predict_slide(path, predictor, tmp_path / str(i), batch_size=batch, num_workers=workers, overlap=0.25)
        texts.append(
            [(result.folder / name).read_bytes() for name in ("tiles.csv", "prediction.geojson", "overlay.png")]
        )
        assert max(predictor.sizes) <= batch and sum(predictor.sizes) == result.tiles
    assert texts[0] == texts[1] == texts[2]


def test_model_resolution_sets_the_extent(make_slide, darkness, tmp_path):
    result = predict_slide(make_slide(levels=2), darkness(64, mpp=1.0), tmp_path / "out")
    assert {(row["width"], row["height"]) for row in rows_of(result.folder)} == {("128", "128")}
    record = json.loads((result.folder / "predict_run.json").read_text())
    assert record["read_mpp"] == 1.0 and record["slide"]["mpp"] == 0.5


def test_run_record_says_what_was_run(make_slide, darkness, tmp_path):
    seen = []
    result = predict_slide(
        make_slide(),
        darkness(),
        tmp_path / "out",
        batch_size=4,
        progress=lambda *n: seen.append(n),
        arguments={"device": "cpu"},
    )
    text = (result.folder / "predict_run.json").read_text()
    record = json.loads(text)
    assert record["model"]["name"] == "darkness" and record["model"]["input"]["tile_size"] == [128, 128]
    assert record["arguments"]["batch_size"] == 4 and record["arguments"]["device"] == "cpu"
    assert record["tiles"]["predicted"] == result.tiles and record["skipped_tiles"] == []
    assert {"python", "pathzoo", "numpy", "openslide-python"} <= set(record["versions"])
    assert {"model", "all"} <= set(record["seconds"])
    assert str(tmp_path) not in text
    assert seen[-1] == (result.tiles, result.tiles) and [n for n, _ in seen] == sorted(n for n, _ in seen)


def test_plain_image_with_mpp_is_a_slide(tissue_image, darkness, tmp_path):
    Image.fromarray(tissue_image).save(tmp_path / "photo.png")
    with pytest.raises(SlideError, match=r"photo\.png: states no resolution.*--mpp"):
        predict_slide(tmp_path / "photo.png", darkness(), tmp_path / "out")
    assert predict_slide(tmp_path / "photo.png", darkness(), tmp_path / "out", mpp=0.5).tiles > 0


def test_refusals_name_the_reason_and_write_nothing(make_slide, darkness, tmp_path):
    path, out = make_slide(mpp=0.5), tmp_path / "out"
    with pytest.raises(SlideError, match="takes images, not slides"):
        predict_slide(path, darkness(mpp=None), out)
    with pytest.raises(SlideError, match=r"0\.5 microns per pixel, coarser than the 0\.25"):
        predict_slide(path, darkness(mpp=0.25), out)
    assert predict_slide(path, darkness(mpp=0.46), tmp_path / "tolerated").tiles > 0
    translator = darkness()
    translator.task = "translation"
    with pytest.raises(SlideError, match="task is translation"):
        predict_slide(path, translator, out)
    for arguments in ({"overlap": 1.0}, {"batch_size": 0}, {"num_workers": 0}):
        with pytest.raises(SlideError, match="must be at least"):
            predict_slide(path, darkness(), out, **arguments)
    with pytest.raises(SlideError, match=r"overlap is 0\.999; tiles of 128 x 128 px would lie under one pixel apart"):
        predict_slide(path, darkness(), out, overlap=0.999)
    with pytest.raises(SlideError, match="score_threshold means nothing to classification; it takes no settings"):
        predict_slide(path, darkness(), out, settings={"score_threshold": 0.5})
    with pytest.raises(SlideError, match="no such file"):
        predict_slide(tmp_path / "none.svs", darkness(), out)
    assert not out.exists()


def test_existing_output_is_kept_unless_overwritten_by_a_whole_one(make_slide, darkness, tmp_path):
    path, out = make_slide(), tmp_path / "out"
    folder = predict_slide(path, darkness(), out).folder
    before = (folder / "tiles.csv").read_bytes()
    with pytest.raises(SlideError, match="--overwrite"):
        predict_slide(path, darkness(64), out)

    class Fails(darkness):
        def __call__(self, tiles):
            if len(self.sizes) == 2:
                raise RuntimeError("out of memory")
            return super().__call__(tiles)

    with pytest.raises(RuntimeError, match="out of memory"):
        predict_slide(path, Fails(64), out, overwrite=True, batch_size=2)
    assert (folder / "tiles.csv").read_bytes() == before
    predict_slide(path, darkness(64), out, overwrite=True)
    assert (folder / "tiles.csv").read_bytes() != before
    assert [p.name for p in out.iterdir()] == ["slide"]
    with pytest.raises(RuntimeError):
        predict_slide(path, Fails(64), tmp_path / "new" / "deep", batch_size=2)
    assert not (tmp_path / "new").exists()


def test_a_full_disk_is_one_line_and_leaves_nothing(make_slide, darkness, tmp_path):
    """A limit on the size of files stands in for the disk: the system refuses the write in the same way."""
    path = make_slide()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"out/slide: cannot be written: .*give the same command again") as error:
            predict_slide(path, darkness(), tmp_path / "out", isolate=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_wrong_answers_of_a_model_are_caught(make_slide, darkness, tmp_path):
    class Answers(darkness):
        def __init__(self, probs):
            super().__init__()
            self.probs = probs

        def __call__(self, tiles):
            return self.probs(len(tiles))

    for probs, error, message in [
        (lambda n: ClassProbs(np.zeros((n, 3), np.float32)), ValueError, "expected"),
        (lambda n: ClassProbs(np.full((n, 2), np.nan, np.float32)), SlideError, "not finite"),
        (lambda n: np.zeros((n, 2)), TypeError, "expected ClassProbs"),
    ]:
        with pytest.raises(error, match=message):
            predict_slide(make_slide(), Answers(probs), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_blank_slide_gives_empty_files_and_a_note(make_slide, darkness, tmp_path):
    path = make_slide(np.full((400, 500, 3), 244, np.uint8))
    result = predict_slide(path, darkness(), tmp_path / "out")
    assert result.tiles == 0 and "no tissue" in result.notes[0] and not result.skipped
    assert rows_of(result.folder) == []
    assert json.loads((result.folder / "prediction.geojson").read_text())["features"] == []
    assert sorted(p.name for p in result.folder.iterdir()) == FILES


def corrupt_tile(path, index):
    with tifffile.TiffFile(path) as tiff:
        offset, size = tiff.pages[0].dataoffsets[index], tiff.pages[0].databytecounts[index]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\0" * size)


def test_a_damaged_tile_is_skipped_listed_and_the_rest_unharmed(make_slide, darkness, tmp_path):
    path = make_slide(compression="jpeg")
    whole = predict_slide(path, darkness(), tmp_path / "whole")
    corrupt_tile(path, 3 * 8 + 3)  # the native tile at (384, 384), inside the tissue
    result = predict_slide(path, darkness(), tmp_path / "out", num_workers=3)
    assert [(t.x, t.y) for t in result.skipped] == [(384, 384)] and result.tiles == whole.tiles
    record = json.loads((result.folder / "predict_run.json").read_text())
    assert record["skipped_tiles"][0]["x"] == 384 and "decode" in record["skipped_tiles"][0]["reason"]
    assert str(tmp_path) not in json.dumps(record)
    assert record["tiles"]["predicted"] == whole.tiles - 1
    kept = [row for row in rows_of(whole.folder) if (row["minx"], row["miny"]) != ("384", "384")]
    assert rows_of(result.folder) == kept
    for index in range(56):
        corrupt_tile(path, index)
    with pytest.raises(SlideError, match="none of 56 tiles can be decoded"):
        predict_slide(path, darkness(), tmp_path / "dead")


class BoundedReader:
    """Tissue around (350, 250) in a slide scanned at bounds (200, 100, 400, 300); white outside."""

    name, mpp, levels, bounds = "fake", (0.5, 0.5), (Level(1000, 800, 1.0),), (200, 100, 400, 300)

    def __init__(self, path):
        self.path, self.properties = path, {}

    def read_region(self, level, x, y, width, height):
        rows, columns = np.mgrid[y : y + height, x : x + width]
        out = np.full((height, width, 3), 245, np.uint8)
        out[np.hypot(columns - 350, rows - 250) < 90] = (180, 60, 150)
        return out

    def close(self):
        pass


def test_tiles_are_level_zero_and_geojson_starts_at_the_bounds(tmp_path, darkness, monkeypatch):
    path = tmp_path / "bounded.svs"
    path.touch()
    monkeypatch.setattr("pathzoo.wsi.slide.open_reader", lambda path, name: BoundedReader(path))
    result = predict_slide(path, darkness(50), tmp_path / "out", isolate=False)  # the reader is of this process
    rows = rows_of(result.folder)
    assert all((int(row["minx"]) - 200) % 50 == 0 and (int(row["miny"]) - 100) % 50 == 0 for row in rows)
    boxes = {(int(row["minx"]) - 200, int(row["miny"]) - 100) for row in rows}
    features = json.loads((result.folder / "prediction.geojson").read_text())["features"]
    assert sum(shape(f["geometry"]).area for f in features) == len(boxes) * 2500
    for f in features:
        x0, y0, x1, y1 = shape(f["geometry"]).bounds
        assert x0 >= min(x for x, _ in boxes) and x1 <= max(x for x, _ in boxes) + 50
        assert y0 >= min(y for _, y in boxes) and y1 <= max(y for _, y in boxes) + 50
    assert min(shape(f["geometry"]).bounds[0] for f in features) == 50  # tissue begins at 260 - 200


class Encoded:
    """Reads its own place out of the pixels: probability = x of the tile / 1000."""

    name, version, digest, task, classes = "place", "1", "", "classification", ("rest", "x")
    input = InputSpec((100, 100), 0.5)

    def __call__(self, tiles):
        p = (tiles[:, 0, 0, 0].astype(np.float32) * 4) / 1000
        return ClassProbs(np.stack([1 - p, p], axis=1))


def test_probabilities_stand_at_their_own_place(make_slide, tmp_path):
    image = np.zeros((300, 1000, 3), np.uint8)
    image[..., 0] = np.arange(1000) // 4
    result = predict_slide(make_slide(image), Encoded(), tmp_path / "out", tissue=False, batch_size=4)
    assert [float(row["prob_x"]) for row in rows_of(result.folder)] == pytest.approx(
        [x / 1000 for x in range(0, 1000, 100)] * 3
    )
    malignant = [
        shape(f["geometry"]).bounds
        for f in json.loads((result.folder / "prediction.geojson").read_text())["features"]
        if f["properties"]["classification"]["name"] == "x"
    ]
    assert malignant == [(600, 0, 1000, 300)]


@pytest.mark.real
def test_real_slide(real_data, darkness, tmp_path):
    path = real_data / "slides" / "cmu_small_region.svs"
    result = predict_slide(path, darkness(224), tmp_path / "out")
    rows = rows_of(result.folder)
    for row in rows:
        pixels = through_openslide(path, int(row["minx"]), int(row["miny"]), 224)
        assert float(row["prob_malignant"]) == pytest.approx(darkness.rule(pixels)[1], abs=2e-6)
    with Slide(path) as slide:
        mask = take_overview(slide).tissue
    places = np.argwhere(mask) * [2967 / mask.shape[0], 2220 / mask.shape[1]]
    corners = np.array([[int(row["miny"]), int(row["minx"])] for row in rows])
    inside = ((places[:, None] >= corners) & (places[:, None] < corners + 224)).all(axis=2)
    assert inside.any(axis=1).all()
    script = real_data.parent / "checks" / "qupath_geojson.py"
    if script.is_file():
        command = [sys.executable, str(script), str(result.folder / "prediction.geojson"), "--type", "annotation"]
        done = subprocess.run([*command, "--width", "2220", "--height", "2967"], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.real
def test_real_broken_slide_writes_nothing(real_data, darkness, tmp_path):
    with pytest.raises(SlideError, match=r"broken\.svs"):
        predict_slide(real_data / "slides" / "broken.svs", darkness(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
