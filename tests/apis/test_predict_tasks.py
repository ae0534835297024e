"""`pathzoo predict` with every kind of model, from published folder to the files that QuPath opens."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
from PIL import Image
from rule_models import publish_rule_model
from shapely.geometry import shape

from pathzoo.apis.dry_run import dry_run
from pathzoo.cli import main
from pathzoo.errors import SlideError
from pathzoo.wsi.slide import Slide

_CHECK = Path(__file__).parents[3] / "shared/checks/qupath_geojson.py"


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Path:
    """rule-classifier, rule-segmenter and rule-detector for tiles of 128 px at 0.5 microns per pixel. Read only."""
    folder = tmp_path_factory.mktemp("zoo")
    for kind in ("classifier", "segmenter", "detector"):
        publish_rule_model(kind, folder, tile=128, mpp=0.5)
    return folder


@pytest.fixture(autouse=True)
def in_zoo(zoo, monkeypatch):
    monkeypatch.setenv("PATHZOO_ZOO", str(zoo))


def draw(path: Path) -> np.ndarray:
    """A slide of 0.5 microns per pixel: glass, a pink square of 300 px at (200, 100), five dark purple discs in it."""
    pixels = np.full((512, 640, 3), 243, np.uint8)
    pixels[100:400, 200:500] = (225, 150, 190)
    y, x = np.mgrid[:512, :640]
    for number in range(5):
        pixels[np.hypot(x - 230 - 55 * number, y - 150 - 50 * number) < 9] = (80, 40, 120)
    resolution = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels, tile=(64, 64), photometric="rgb", compression="deflate", **resolution)
    return pixels


def features(folder: Path) -> list[dict]:
    """What QuPath would load; its own rules are asked where the checker is at hand."""
    path = folder / "prediction.geojson"
    if _CHECK.exists():
        done = subprocess.run([sys.executable, str(_CHECK), str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(path.read_text())["features"]


def test_a_segmenter_leaves_a_mask_whose_regions_stand_in_the_geojson(tmp_path, capsys):
    draw(tmp_path / "a.tif")
    assert main(["predict", "-i", str(tmp_path / "a.tif"), "-m", "rule-segmenter", "-o", str(tmp_path / "out")]) == 0
    folder = tmp_path / "out/a"
    assert {f.name for f in folder.iterdir()} == {"mask.tif", "prediction.geojson", "overlay.png", "predict_run.json"}
    mask = tifffile.imread(folder / "mask.tif")
    assert mask.shape == (512, 640)
    assert mask[120, 250] == 1 and mask[150, 230] == 2  # pink, and a disc
    with Slide(folder / "mask.tif") as written:
        assert written.mpp == pytest.approx(0.5, rel=1e-4)
    pink = [shape(f["geometry"]) for f in features(folder) if f["properties"]["classification"]["name"] == "pink"]
    area = shapely.union_all(pink).area
    assert area == pytest.approx(int((mask == 1).sum()), rel=0.02)
    assert 80_000 < area < 95_000
    assert "µm²" in capsys.readouterr().out


def test_a_detector_finds_every_disc_once(tmp_path):
    draw(tmp_path / "a.tif")
    assert main(["predict", "-i", str(tmp_path / "a.tif"), "-m", "rule-detector", "-o", str(tmp_path / "out")]) == 0
    folder = tmp_path / "out/a"
    with (folder / "detections.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    centres = sorted(((float(r["x0"]) + float(r["x1"])) / 2, (float(r["y0"]) + float(r["y1"])) / 2) for r in rows)
    assert np.allclose(centres, [(230 + 55 * n, 150 + 50 * n) for n in range(5)], atol=2)
    found = features(folder)
    assert len(found) == 5 and {f["properties"]["objectType"] for f in found} == {"detection"}
    measured = found[0]["properties"]["measurements"]
    assert any("µm" in name for name in measured)


@pytest.mark.parametrize("kind", ["segmenter", "detector"])
def test_an_image_with_an_mpp_is_a_slide_of_one_level(tmp_path, kind):
    pixels = draw(tmp_path / "a.tif")
    Image.fromarray(pixels).save(tmp_path / "b.png")
    words = ["-m", f"rule-{kind}", "-o", str(tmp_path / "out")]
    assert main(["predict", "-i", str(tmp_path / "b.png"), *words]) == 2, "no resolution"
    assert main(["predict", "-i", str(tmp_path / "b.png"), *words, "--mpp", "0.5"]) == 0
    assert main(["predict", "-i", str(tmp_path / "a.tif"), *words]) == 0
    geometry = [[f["geometry"] for f in features(tmp_path / "out" / name)] for name in "ab"]
    assert geometry[0] == geometry[1] and geometry[0]


def test_anonymised_outputs_say_nothing_of_the_slide_and_a_table_beside_them_leads_back(tmp_path, capsys):
    secret = "SMITH_JOHN_1950"
    for number in range(2):
        draw(tmp_path / f"{secret}_{number}.tif")
    words = ["predict", "-i", *map(str, sorted(tmp_path.glob("*.tif"))), "-o", str(tmp_path / "out"), "--anonymise"]
    for kind in ("segmenter", "detector", "classifier"):
        words[words.index("-o") + 1] = str(tmp_path / f"out_{kind}")
        assert main([*words, "-m", f"rule-{kind}"]) == 0
        out = tmp_path / f"out_{kind}"
        for path in out.rglob("*"):
            assert secret not in path.name
            assert path.is_dir() or secret.encode() not in path.read_bytes(), path
        with (tmp_path / f"out_{kind}.names.csv").open(newline="") as file:
            table = {row["slide"]: row["pseudonym"] for row in csv.DictReader(file)}
        assert set(table) == {f"{secret}_0.tif", f"{secret}_1.tif"}
        counted = {"counts.csv"} if kind == "detector" else set()
        assert {path.name for path in out.iterdir()} == set(table.values()) | counted
    capsys.readouterr()
    assert main([*words, "-m", "rule-classifier"]) == 0
    assert "2 slides done (2 before)" in capsys.readouterr().out


def test_a_dry_run_writes_nothing_and_counts_the_tiles_that_a_run_lays(tmp_path, capsys):
    draw(tmp_path / "a.tif")
    (tmp_path / "bad.svs").write_bytes(b"no slide")
    slides = [str(tmp_path / "a.tif"), str(tmp_path / "bad.svs")]
    for kind in ("classifier", "segmenter", "detector"):
        before = set(tmp_path.rglob("*"))
        assert main(["predict", "-i", *slides, "-m", f"rule-{kind}", "-o", str(tmp_path / kind), "--dry-run"]) == 0
        shown = capsys.readouterr().out
        assert set(tmp_path.rglob("*")) == before
        assert re.search(r"bad\.svs +would fail: .*bad\.svs", shown)
        plan = dry_run(slides[:1], f"rule-{kind}", tmp_path / kind).slides[0]
        assert plan.memory_bytes > 0 and plan.disk_bytes > 0 and plan.seconds > 0
        assert main(["predict", "-i", slides[0], "-m", f"rule-{kind}", "-o", str(tmp_path / kind)]) == 0
        record = json.loads((tmp_path / kind / "a/predict_run.json").read_text())
        assert record["tiles"]["laid"] == plan.tiles
        assert f"{plan.tiles:,}" in shown
        capsys.readouterr()


def test_a_dry_run_opens_slides_where_they_may_hang(tmp_path, monkeypatch, capsys):
    def probe(path, mpp, reader, timeout):
        raise SlideError(f"{path}: decoder gave no answer within {timeout:g} s")

    draw(tmp_path / "a.tif")
    monkeypatch.setattr("pathzoo.apis.dry_run.probe", probe)
    words = ["predict", "-i", str(tmp_path / "a.tif"), "-m", "rule-segmenter", "-o", str(tmp_path / "out")]
    assert main([*words, "--dry-run", "--timeout", "7"]) == 0
    shown = capsys.readouterr()
    assert "a.tif: decoder gave no answer within 7 s" in shown.out
    assert "dry run: 1/1 slides" in shown.err


def test_bad_numbers_are_one_line_and_2(tmp_path, capsys):
    draw(tmp_path / "a.tif")
    words = ["predict", "-i", str(tmp_path / "a.tif"), "-m", "rule-segmenter", "-o", str(tmp_path / "out")]
    for option, text in (
        (["--overlap", "1"], "overlap is 1.0"),
        (["--stride", "0"], "stride is 0"),
        (["--stride", "129"], "would leave gaps"),
        (["--timeout", "0"], "timeout is 0.0"),
        (["--batch-size", "0"], "batch size is 0"),
        (["--launcher", "slurm"], "srun"),
    ):
        assert main([*words, *option]) == 2, option
        error = capsys.readouterr().err
        assert text in error and error.count("\n") == 1, error
        assert not (tmp_path / "out").exists()


@pytest.mark.real
@pytest.mark.parametrize("kind", ["classifier", "segmenter", "detector"])
@pytest.mark.parametrize(
    ("name", "mpp"), [("slides/cmu_small_region.svs", None), ("glomeruli/aidpath_regions/region_A_2048x2048.tiff", 0.5)]
)
def test_real_slides_go_through_every_kind_of_model(real_data, tmp_path, kind, name, mpp):
    words = ["predict", "-i", str(real_data / name), "-m", f"rule-{kind}", "-o", str(tmp_path / "out")]
    assert main([*words, *([] if mpp is None else ["--mpp", str(mpp)])]) == 0
    assert len(features(tmp_path / "out" / Path(name).stem)) > 3


@pytest.mark.parametrize("kind", ["classifier", "segmenter", "detector"])
@pytest.mark.parametrize("reader", ["tiled-tiff", "openslide"])
def test_a_slide_of_which_nothing_can_be_decoded_is_no_result(tmp_path, capsys, kind, reader):
    """Tiles at the edge stand out of the slide; their white padding is nothing that was decoded."""
    draw(tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        places = list(zip(file.pages[0].dataoffsets, file.pages[0].databytecounts, strict=True))
    data = bytearray((tmp_path / "a.tif").read_bytes())
    for offset, size in places:
        data[offset : offset + size] = b"\xff" * size
    (tmp_path / "a.tif").write_bytes(data)
    words = ["predict", "-i", str(tmp_path / "a.tif"), "-m", f"rule-{kind}", "-o", str(tmp_path / "out")]
    assert main([*words, "--reader", reader]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "a.tif: none of" in error and "can be decoded" in error
    assert not (tmp_path / "out").exists()
