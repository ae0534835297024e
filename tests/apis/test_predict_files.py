"""What `pathzoo predict` is given and where it writes: images made once, names that cannot serve, several processes."""

import csv
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from rule_models import publish_rule_model

from pathzoo.cli import main


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Path:
    """rule-classifier and rule-detector for tiles of 64 px. Read only."""
    folder = tmp_path_factory.mktemp("zoo")
    for kind in ("classifier", "detector"):
        publish_rule_model(kind, folder, tile=64, mpp=0.5)
    return folder


@pytest.fixture(autouse=True)
def in_zoo(zoo, monkeypatch):
    monkeypatch.setenv("PATHZOO_ZOO", str(zoo))


def pixels(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (np.array([200, 80, 160]) + rng.integers(-20, 20, (160, 192, 3))).astype(np.uint8)


def image(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels(seed)).save(path)
    return path


def slide(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(exist_ok=True)
    resolution = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels(seed), tile=(64, 64), photometric="rgb", compression="deflate", **resolution)
    return path


def rows(path: Path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def predict(inputs, out, *options, model="rule-classifier") -> int:
    return main(["predict", "-i", *map(str, inputs), "-m", model, "-o", str(out), *options])


def test_slides_and_images_together_go_on_by_the_same_command(tmp_path, capsys):
    folder, out = tmp_path / "in", tmp_path / "out"
    slide(folder / "a.tif"), image(folder / "b.png")
    (folder / "c.tif").write_bytes(b"no slide")
    assert predict([folder], out, "--mpp", "0.5") == 4
    before = (out / "predictions.csv").stat().st_mtime_ns
    slide(folder / "c.tif", 1)
    assert predict([folder], out, "--mpp", "0.5") == 0, capsys.readouterr().err
    assert (out / "predictions.csv").stat().st_mtime_ns == before, "made before, of the same images"
    assert {path.name for path in out.iterdir()} == {"a", "c", "predictions.csv", "predict_run.json"}
    capsys.readouterr()
    image(folder / "d.png")
    assert predict([folder], out, "--mpp", "0.5") == 2
    assert "predictions.csv: exists already, of other images" in capsys.readouterr().err
    assert predict([folder], out, "--mpp", "0.5", "--overwrite") == 0
    assert len(rows(out / "predictions.csv")) == 2


def test_images_that_failed_are_tried_again(tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    image(folder / "a.png")
    (folder / "b.png").write_bytes(b"no image")
    assert predict([folder], out, "--mpp", "0.5") == 4
    assert predict([folder], out, "--mpp", "0.5") == 4
    record = json.loads((out / "predict_run.json").read_text())
    assert [entry["image"] for entry in record["failed"]] == [str(folder / "b.png")]


def test_an_image_given_twice_is_one_and_a_table_that_cannot_be_written_is_named(tmp_path, monkeypatch, capsys):
    one = image(tmp_path / "a.png")
    assert predict([one, one], tmp_path / "out", "--mpp", "0.5") == 0
    assert len(rows(tmp_path / "out/predictions.csv")) == 1
    assert predict([one], one / "out", "--mpp", "0.5") == 2
    assert "cannot be written" in capsys.readouterr().err

    def full(path, predictions):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathzoo.apis.predict_images.write_image_predictions", full)
    assert predict([one], tmp_path / "full", "--mpp", "0.5") == 2
    assert "predictions.csv: cannot be written: No space left" in capsys.readouterr().err
    assert not (tmp_path / "full").exists()


def test_a_reader_can_be_asked_to_take_an_image_as_a_slide(tmp_path):
    one = image(tmp_path / "a.png")
    assert predict([one], tmp_path / "out", "--mpp", "0.5", "--reader", "image") == 0
    assert rows(tmp_path / "out/a/tiles.csv")


def test_anonymised_images_of_one_name_are_refused_and_the_table_never_lies_in_the_output(
    tmp_path, monkeypatch, capsys
):
    pair = [image(tmp_path / "p/SMITH.png"), image(tmp_path / "q/SMITH.png", 1)]
    assert predict(pair, tmp_path / "out", "--mpp", "0.5", "--anonymise") == 2
    assert "would have the same pseudonym" in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert predict(pair[:1], ".", "--mpp", "0.5", "--anonymise") == 0
    assert rows(tmp_path / "here.names.csv")[0]["slide"] == "SMITH.png"
    for path in (tmp_path / "here").rglob("*"):
        assert "SMITH" not in path.name and b"SMITH" not in path.read_bytes()


def test_input_that_cannot_serve_is_one_line_and_2(tmp_path, capsys):
    one = slide(tmp_path / "a.tif")
    table = tmp_path / "mpp.csv"
    table.write_bytes("slide,mpp\nM\u00fcller,0.5\n".encode("latin-1"))
    odd = slide(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.tif")))
    (tmp_path / "file").write_text("")
    for words, text in (
        ([[one], tmp_path / "out", "--mpp-csv", str(table)], "mpp.csv: is no CSV in UTF-8"),
        ([[odd], tmp_path / "out"], "its name is no UTF-8"),
        ([[one], tmp_path / "out", "--score-threshold", "0.5"], "score_threshold means nothing to"),
        ([[one], tmp_path / "file"], "is a file; name a folder"),
        ([[one], tmp_path / "file", "--dry-run"], "is a file; name a folder"),
    ):
        assert predict(*words) == 2
        error = capsys.readouterr().err
        assert text in error and error.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_two_processes_of_torchrun_do_each_slide_once_and_the_first_speaks_for_both(tmp_path, zoo):
    for number in range(4):
        slide(tmp_path / f"in/s{number}.tif", number)
    (tmp_path / "in/bad.svs").write_bytes(b"no slide")
    image(tmp_path / "in/i.png")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "pathzoo", "predict"]
    command += ["-i", str(tmp_path / "in"), "-m", "rule-classifier", "-o", str(tmp_path / "out"), "--mpp", "0.5"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "--launcher", "pytorch"], capture_output=True, text=True, env=environment)
    assert "exitcode  : 4" in done.stderr and "4 slides done" in done.stdout, done.stderr
    assert "ended by SIGTERM" not in done.stderr, "nobody was ended while it was at work"
    assert done.stderr.count("bad.svs") == 1 and done.stdout.count("4 slides done") == 1
    assert sum(f"s{n}.tif: 9/9 tiles" in line for line in done.stderr.splitlines() for n in range(4)) == 4
    wanted = {"s0", "s1", "s2", "s3", "predictions.csv", "predict_run.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == wanted
