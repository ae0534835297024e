"""The whole path in small: train, test, publish, then `pathzoo predict` over images and slides, and its exit codes."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pathzoo.apis.predict import predict
from pathzoo.apis.test import test as run_test
from pathzoo.apis.train import train
from pathzoo.cli import main
from pathzoo.datasets.phantom import write_breakhis, write_slide
from pathzoo.errors import DataError, PathzooError, SlideError
from pathzoo.zoo.publish import publish_model

_CONFIG = "breakhis_xception/full_resnet10t_1xb16_20e_phantom40x_small.py"
_CARD = {"description": "A test.", "licence": "Apache-2.0", "commercial_use": True}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A folder with data/, run/, zoo/tiny/1.0.0/ and slide.svs."""
    folder = tmp_path_factory.mktemp("whole")
    write_breakhis(folder / "data", patients=10, images_per_patient=1)
    write_slide(folder / "slide.svs", size=(1024, 1024), mpp=0.5, pieces=1)
    options = {"data_root": str(folder / "data"), "train_cfg.max_epochs": 1}
    train(_CONFIG, folder / "run", options=options, no_validate=True)
    run_test(_CONFIG, work_dir=folder / "run", options=options)
    (folder / "card.json").write_text(json.dumps(_CARD))
    publish_model(folder / "run/epoch_1.pth", "tiny", "1.0.0", folder / "zoo", folder / "card.json")
    return folder


@pytest.fixture
def model(whole, monkeypatch) -> str:
    monkeypatch.setenv("PATHZOO_ZOO", str(whole / "zoo"))
    return "tiny"


def _rows(path: Path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_published_model_predicts_what_the_test_run_predicted(whole, model, tmp_path):
    """From the file to the probability by two ways: the config's test pipeline, and the published model's own rules."""
    tested = {row["item"]: float(row["prob_malignant"]) for row in _rows(whole / "run/test/predictions.csv")}
    predict([whole / "data" / item for item in tested], model, tmp_path / "out", mpp=0.98)
    predicted = _rows(tmp_path / "out/predictions.csv")
    assert len(predicted) == len(tested) >= 2
    for row in predicted:
        item = str(Path(row["path"]).relative_to(whole / "data"))
        assert float(row["prob_malignant"]) == pytest.approx(tested[item], abs=2e-5)


def test_slide_leaves_its_four_files(whole, model, tmp_path, capsys):
    assert main(["predict", "-i", str(whole / "slide.svs"), "-m", model, "-o", str(tmp_path / "out")]) == 0
    assert "slide: " in capsys.readouterr().out
    folder = tmp_path / "out/slide"
    assert {f.name for f in folder.iterdir()} == {"tiles.csv", "prediction.geojson", "overlay.png", "predict_run.json"}
    record = json.loads((folder / "predict_run.json").read_text())
    assert record["model"]["name"] == "tiny"
    assert str(tmp_path) not in json.dumps(record)
    assert len(_rows(folder / "tiles.csv")) > 0


def test_existing_output_is_kept_and_replaced_only_when_asked(whole, model, tmp_path):
    out = tmp_path / "out"
    predict(whole / "slide.svs", model, out)
    before = (out / "slide/tiles.csv").read_bytes()
    assert predict(whole / "slide.svs", model, out, batch_size=1).reused == 1  # the batch does not change the result
    with pytest.raises(SlideError, match="other options; choose another output, or pass --overwrite"):
        predict(whole / "slide.svs", model, out, overlap=0.5)
    assert (out / "slide/tiles.csv").read_bytes() == before
    predict(whole / "slide.svs", model, out, overwrite=True)
    assert (out / "slide/tiles.csv").read_bytes() == before  # the same input gives the same bytes


def test_bad_slide_alone_ends_with_2_and_writes_nothing(model, tmp_path, capsys):
    (tmp_path / "bad.svs").write_bytes(b"no slide at all")
    assert main(["predict", "-i", str(tmp_path / "bad.svs"), "-m", model, "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "bad.svs" in error
    assert not (tmp_path / "out").exists()


def test_bad_slide_among_others_is_named_and_ends_with_4(whole, model, tmp_path, capsys):
    shutil.copy(whole / "slide.svs", tmp_path / "good.svs")
    (tmp_path / "bad.svs").write_bytes(b"no slide at all")
    assert main(["predict", "-i", str(tmp_path), "-m", model, "-o", str(tmp_path / "out")]) == 4
    assert "bad.svs" in capsys.readouterr().err
    assert (tmp_path / "out/good/tiles.csv").exists()
    assert not (tmp_path / "out/bad").exists()


def test_unreadable_tiles_end_with_3(whole, model, tmp_path):
    """Some JPEG tiles of level 0 are overwritten: the rest of the slide is predicted and the loss is listed."""
    import tifffile

    with tifffile.TiffFile(whole / "slide.svs") as file:
        page = file.pages[0]
        places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    data = bytearray((whole / "slide.svs").read_bytes())
    for offset, size in places[len(places) // 2 : len(places) // 2 + 2]:
        data[offset : offset + size] = b"\0" * size
    (tmp_path / "torn.svs").write_bytes(data)
    assert main(["predict", "-i", str(tmp_path / "torn.svs"), "-m", model, "-o", str(tmp_path / "out")]) == 3
    record = json.loads((tmp_path / "out/torn/predict_run.json").read_text())
    assert record["skipped_tiles"]
    assert record["tiles"]["laid"] == record["tiles"]["predicted"] + len(record["skipped_tiles"])
    assert _rows(tmp_path / "out/torn/tiles.csv")


def test_images_that_cannot_be_used_are_listed(whole, model, tmp_path):
    image = next((whole / "data").rglob("*.png"))
    (tmp_path / "damaged.png").write_bytes(image.read_bytes()[:500])
    shutil.copy(image, tmp_path / "sound.png")
    result = predict(tmp_path, model, tmp_path / "out", mpp=0.98)
    assert result.exit_code == 4
    assert [path.name for path, _ in result.failed] == ["damaged.png"]
    assert len(_rows(tmp_path / "out/predictions.csv")) == 1


def test_image_without_resolution_is_refused_with_the_remedy(whole, model, tmp_path):
    image = next((whole / "data").rglob("*.png"))
    with pytest.raises(PathzooError, match="mpp"):
        predict(image, model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_mpp_csv_speaks_for_each_file(whole, model, tmp_path):
    image = next((whole / "data").rglob("*.png"))
    table = tmp_path / "mpp.csv"
    table.write_text(f"slide,mpp\n{image.stem},0.98\n")
    assert predict(image, model, tmp_path / "out", mpp_csv=table).n_images == 1
    table.write_text("slide,mpp\na,zero\n")
    with pytest.raises(DataError, match=r"mpp\.csv, line 2: mpp 'zero'"):
        predict(image, model, tmp_path / "out2", mpp_csv=table)
    table.write_text("name,mpp\na,1\n")
    with pytest.raises(DataError, match="needs the columns slide,mpp"):
        predict(image, model, tmp_path / "out2", mpp_csv=table)


def test_slide_too_coarse_for_the_model_is_refused(whole, model, tmp_path):
    with pytest.raises(SlideError, match=r"0\.98"):
        predict(whole / "slide.svs", model, tmp_path / "out", mpp=2.0)


def test_two_slides_of_one_name_are_refused_before_anything_runs(whole, model, tmp_path):
    (tmp_path / "other").mkdir()
    shutil.copy(whole / "slide.svs", tmp_path / "other/slide.svs")
    with pytest.raises(SlideError, match="same folder"):
        predict([whole / "slide.svs", tmp_path / "other/slide.svs"], model, tmp_path / "out")


def test_red_image_gives_the_model_red(whole, model, tmp_path):
    """Channels swapped on the way would show: red and blue swapped by hand give another probability."""
    red = np.zeros((230, 350, 3), np.uint8)
    red[..., 0] = 220
    red[40:90, 50:200] = (90, 40, 140)
    Image.fromarray(red).save(tmp_path / "red.png")
    predict(tmp_path / "red.png", model, tmp_path / "out", mpp=0.98)
    from pathzoo.zoo.load import get_model

    loaded = get_model(model)
    tile = loaded.prepare(red, 0.98)
    found = float(_rows(tmp_path / "out/predictions.csv")[0]["prob_malignant"])
    assert found == pytest.approx(float(loaded(tile[None]).probs[0, 1]), abs=2e-6)
    assert found != pytest.approx(float(loaded(tile[None, ..., ::-1].copy()).probs[0, 1]), abs=1e-6)


@pytest.mark.real
def test_real_slide_and_broken_slide(real_data, model, tmp_path, capsys):
    """A real Aperio slide of 0.499 um per pixel, and a file that is no slide, through the same command."""
    slide = real_data / "slides/cmu_small_region.svs"
    assert main(["predict", "-i", str(slide), "-m", model, "-o", str(tmp_path / "out")]) == 0
    assert len(_rows(tmp_path / "out/cmu_small_region/tiles.csv")) > 10
    capsys.readouterr()
    assert main(["predict", "-i", str(real_data / "slides/broken.svs"), "-m", model, "-o", str(tmp_path / "b")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "broken.svs" in error
