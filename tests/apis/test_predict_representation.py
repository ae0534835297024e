"""`pathzoo predict` with an encoder: vectors of slides and images, by all the rules of the other tasks."""

import csv
import errno
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from pathzoo.apis.dry_run import dry_run
from pathzoo.cli import main
from pathzoo.zoo.load import get_model
from pathzoo.zoo.publish import publish_model

_NORMS = {"mean": [180.0, 130.0, 170.0], "std": [40.0, 50.0, 35.0]}
_MODEL = {
    "type": "mmpretrain.ImageClassifier",
    "backbone": {"type": "pathzoo.TimmBackbone", "name": "test_resnet"},
    "neck": {"type": "mmpretrain.GlobalAveragePooling"},
    "data_preprocessor": {"type": "mmpretrain.ClsDataPreprocessor", **_NORMS, "to_rgb": False},
}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Path:
    """`encoder` for tiles of 64 px at 0.5 microns per pixel: random weights, 96 numbers. Read only."""
    from pathzoo.zoo.allowlist import build_from_data

    root = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    run = {
        "task": "representation",
        "model": _MODEL,
        "model_input": {"tile_size": [64, 64], "mpp": 0.5, **_NORMS, "resize": {"kind": "mpp"}},
        "classes": [],
        "data": {"synthetic": True},
    }
    (root / "train_run.json").write_text(json.dumps(run))
    torch.save({"state_dict": build_from_data(_MODEL).state_dict()}, root / "last.pth")
    card = {"description": "Random vectors.", "licence": "CC0-1.0", "commercial_use": True}
    publish_model(root / "last.pth", "encoder", "1.0.0", root / "zoo", card)
    return root / "zoo"


@pytest.fixture(autouse=True)
def in_zoo(zoo, monkeypatch):
    monkeypatch.setenv("PATHZOO_ZOO", str(zoo))


def pixels(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (np.array([200, 80, 160]) + rng.integers(-40, 40, (160, 192, 3))).clip(0, 255).astype(np.uint8)


def slide(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(exist_ok=True)
    resolution = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels(seed), tile=(64, 64), photometric="rgb", compression="deflate", **resolution)
    return path


def image(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels(seed)[:64, :64]).save(path)
    return path


def rows(path: Path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def predict(inputs, out, *options) -> int:
    return main(["predict", "-i", *map(str, inputs), "-m", "encoder", "-o", str(out), *options])


def test_slides_and_images_get_their_vectors_and_a_rerun_leaves_them(tmp_path, capsys):
    out = tmp_path / "out"
    inputs = [slide(tmp_path / "in/a.tif"), image(tmp_path / "in/b.png", 1), image(tmp_path / "in/c.png", 2)]
    assert predict([tmp_path / "in"], out, "--mpp", "0.5") == 0
    shown = capsys.readouterr().out
    assert "9 tiles (tiles: embedded 9), 0 damaged" in shown and "predictions.csv: 2 images" in shown
    assert {path.name for path in out.iterdir()} == {"a", "predictions.csv", "embeddings.npy", "predict_run.json"}
    assert {path.name for path in (out / "a").iterdir()} == {
        "embeddings.npy",
        "tiles.csv",
        "overlay.png",
        "predict_run.json",
    }
    vectors, table = np.load(out / "embeddings.npy"), rows(out / "predictions.csv")
    assert list(table[0]) == ["path", "row"] and vectors.shape == (2, 96)
    model = get_model("encoder")
    for row, path in zip(table, inputs[1:], strict=True):
        assert row["path"] == str(path)
        expected = model(np.asarray(Image.open(path))[None]).vectors[0]
        np.testing.assert_allclose(vectors[int(row["row"])], expected, atol=1e-4)
    of_slide = np.load(out / "a/embeddings.npy")
    corner = next(i for i, row in enumerate(rows(out / "a/tiles.csv")) if (row["minx"], row["miny"]) == ("64", "64"))
    np.testing.assert_allclose(of_slide[corner], model(pixels(0)[None, 64:128, 64:128]).vectors[0], atol=1e-4)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.npy")}
    assert predict([tmp_path / "in"], out, "--mpp", "0.5") == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.npy")} == before
    (out / "embeddings.npy").write_bytes(b"exchanged")
    assert predict([tmp_path / "in"], out, "--mpp", "0.5") == 2
    assert "predictions.csv: exists already, of other images" in capsys.readouterr().err
    assert predict([tmp_path / "in"], out, "--mpp", "0.5", "--overwrite") == 0
    np.testing.assert_allclose(np.load(out / "embeddings.npy"), vectors, atol=1e-6)


def test_nothing_half_written_stays(tmp_path, monkeypatch, capsys):
    one = image(tmp_path / "a.png")

    def full(path, predictions):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("pathzoo.apis.predict_images.write_image_predictions", full)
        assert predict([one], tmp_path / "out", "--mpp", "0.5") == 2
    assert "predictions.csv: cannot be written: No space left" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "bad.png").write_bytes(b"no image")
    (tmp_path / "worse.png").write_bytes(b"no image")
    assert predict([tmp_path / "bad.png", tmp_path / "worse.png"], tmp_path / "out", "--mpp", "0.5") == 2
    assert not list(tmp_path.glob("out/*"))
    assert predict([tmp_path / "bad.png", one], tmp_path / "out", "--mpp", "0.5") == 4
    assert np.load(tmp_path / "out/embeddings.npy").shape == (1, 96)


def test_anonymised_outputs_name_nothing(tmp_path):
    secret = "SMITH_JOHN_1950"
    slide(tmp_path / f"in/{secret}.tif"), image(tmp_path / f"in/{secret}.png", 1)
    assert predict([tmp_path / "in"], tmp_path / "out", "--mpp", "0.5", "--anonymise") == 0
    for path in (tmp_path / "out").rglob("*"):
        assert secret not in path.name
        assert path.is_dir() or secret.encode() not in path.read_bytes(), path
    named = {row["slide"]: row["pseudonym"] for row in rows(tmp_path / "out.names.csv")}
    assert rows(tmp_path / "out/predictions.csv")[0]["path"] == named[f"{secret}.png"]


def test_a_dry_run_counts_tiles_and_bytes_and_writes_nothing(tmp_path, capsys):
    slide(tmp_path / "a.tif")
    assert predict([tmp_path / "a.tif"], tmp_path / "out", "--dry-run") == 0
    assert "9" in capsys.readouterr().out and not (tmp_path / "out").exists()
    plan = dry_run([tmp_path / "a.tif"], "encoder", tmp_path / "out").slides[0]
    assert plan.tiles == 9
    assert predict([tmp_path / "a.tif"], tmp_path / "out") == 0
    written = sum(path.stat().st_size for path in (tmp_path / "out/a").iterdir())
    assert written < plan.disk_bytes
    vectors = (tmp_path / "out/a/embeddings.npy").stat().st_size - 128
    assert vectors == 9 * 96 * 4


def test_what_means_nothing_to_an_encoder_is_refused(tmp_path, capsys):
    slide(tmp_path / "a.tif")
    assert predict([tmp_path / "a.tif"], tmp_path / "out", "--score-threshold", "0.5") == 2
    assert "score_threshold means nothing to representation" in capsys.readouterr().err
    assert predict([tmp_path / "a.tif"], tmp_path / "out", "--mpp", "2.0") == 2
    assert "2" in capsys.readouterr().err and not (tmp_path / "out").exists()
