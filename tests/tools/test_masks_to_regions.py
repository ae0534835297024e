"""tools/dataset_converters/masks_to_regions.py: what goes in comes out, at another resolution too."""

import csv
import json
import re

import numpy as np
import pytest
from dataset_converters import masks_to_regions
from PIL import Image

from pathzoo.datasets import RegionSegmentation


def _pair(root, name, size=(64, 48), n=2, values=(0, 255)):
    rng = np.random.default_rng(len(name) + n)
    for part in ("images", "masks"):
        (root / name / part).mkdir(parents=True)
    for number in range(n):
        width, height = size
        image = rng.integers(0, 255, (height, width, 3), np.uint8)
        mask = np.kron(rng.choice(values, (height // 8, width // 8)), np.ones((8, 8), int)).astype(np.uint8)
        Image.fromarray(image).save(root / name / "images" / f"{number}.png")
        Image.fromarray(mask).save(root / name / "masks" / f"{number}.png")
    return [name, str(root / name / "images"), str(root / name / "masks")]


def _words(*pairs, **more):
    words = [word for pair in pairs for word in ("--pair", *pair)]
    return [*words, "--classes", "rest", "tumour", "--value-map", "0=0", "255=tumour", *more.get("more", [])]


def test_the_same_pixels_come_out(tmp_path, capsys):
    pairs = [_pair(tmp_path, "a"), _pair(tmp_path, "bb", size=(40, 32))]
    assert masks_to_regions.main([*_words(*pairs), "--out", str(tmp_path / "out")]) == 0
    assert "4 regions, 4 with a mask, of 2 known patients\n" in capsys.readouterr().out
    data = RegionSegmentation(str(tmp_path / "out"))
    assert data.metainfo["classes"] == ("rest", "tumour") or list(data.metainfo["classes"]) == ["rest", "tumour"]
    assert sorted(region.item for region in data.regions) == [
        "images/a_0.png", "images/a_1.png", "images/bb_0.png", "images/bb_1.png"
    ]  # fmt: skip
    for number, region in enumerate(data.regions):
        source = tmp_path / region.patient
        name = f"{region.image.stem.split('_')[1]}.png"
        assert np.array_equal(data.read_image(number), np.asarray(Image.open(source / "images" / name)))
        assert np.array_equal(data.read_labels(number) * 255, np.asarray(Image.open(source / "masks" / name)))


def test_half_the_resolution(tmp_path):
    words = [*_words(_pair(tmp_path, "a")), "--mpp", "0.25", "--to-mpp", "0.5", "--out", str(tmp_path / "out")]
    assert masks_to_regions.main(words) == 0
    data = RegionSegmentation(str(tmp_path / "out"))
    assert {(region.width, region.height, region.mpp) for region in data.regions} == {(32, 24, 0.5)}
    image = np.asarray(Image.open(tmp_path / "a/images/0.png")).astype(float)
    mean = image.reshape(24, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(data.read_image(0) - mean).max() <= 0.51
    assert np.array_equal(data.read_labels(0), np.asarray(Image.open(tmp_path / "a/masks/0.png"))[::2, ::2] // 255)


def test_labels_shrink_by_majority():
    labels = np.array([[0, 1, 1, 1], [0, 1, 255, 255]], np.uint8)
    assert masks_to_regions.shrink_labels(labels, 2, 1, 2).tolist() == [[0, 1]]  # ties go to the smaller value
    assert masks_to_regions.shrink_labels(np.full((4, 4), 255, np.uint8), 2, 2, 2).tolist() == [[255] * 2] * 2


def test_a_picture_without_a_mask_is_unlabelled(tmp_path):
    pair = _pair(tmp_path, "a")
    (tmp_path / "a/masks/1.png").unlink()
    assert masks_to_regions.main([*_words(pair), "--out", str(tmp_path / "out")]) == 0
    with (tmp_path / "out/regions.csv").open(newline="") as file:
        assert [row["mask"] for row in csv.DictReader(file)] == ["masks/0.png", ""]
    assert json.loads((tmp_path / "out/classes.json").read_text())["classes"] == ["rest", "tumour"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda words, root: [*words, "--to-mpp", "0.5"], "its resolution is not known"),
        (lambda words, root: [*words, "--mpp", "1", "--to-mpp", "0.5"], "coarser than --to-mpp 0.5"),
        (lambda words, root: [*words, "--value-map", "0=none"], "'0=none': expected VALUE=CLASS"),
        (lambda words, root: [*words, "--value-map", "255=1"], "value 0 at x="),
        (lambda words, root: [*words, "--table", "x.csv"], "either --pair .* or --table"),
        (
            lambda words, root: (root / "a/images/0.png").unlink() or words,
            "masks/0.png: no picture in .* has this name",
        ),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(tmp_path, capsys, change, message):
    words = change(_words(_pair(tmp_path, "a")), tmp_path)
    assert masks_to_regions.main([*words, "--out", str(tmp_path / "out")]) == 2
    error = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    assert re.search(message, error)
    assert not (tmp_path / "out").exists()
