"""The phantom cohort of regions: the layout, the same pixels for the same seed, labels that follow the picture."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from pathzoo.datasets import BreastLesions
from pathzoo.datasets.phantom import draw_region, write_regions
from pathzoo.datasets.phantom.lesions import draw_patient
from pathzoo.datasets.phantom.regions import as_palette
from pathzoo.errors import DataError
from pathzoo.fileio import sha256_file

SIZE = (360, 270)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    told = []
    root = tmp_path_factory.mktemp("cohort")
    table = write_regions(
        root, patients=4, regions_per_patient=2, size=SIZE, mpp=1.5, progress=lambda *done: told.append(done)
    )
    assert table == root / "regions.csv" and told == [(number, 8) for number in range(1, 9)]
    return root


def masks(root):
    return {path.stem: np.asarray(Image.open(path)) for path in sorted((root / "masks").iterdir())}


def pictures(root):
    return {path.stem: np.asarray(Image.open(path)) for path in sorted((root / "images").iterdir())}


def test_the_layout(cohort):
    with (cohort / "regions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[2] == {
        "image": "images/P002_1.png",
        "mask": "masks/P002_1.png",
        "patient": "P002",
        "slide": "P002-A",
        "mpp": "1.5",
    }
    assert len(rows) == 8 and len({row["patient"] for row in rows}) == 4
    for row in rows:
        with Image.open(cohort / row["image"]) as image, Image.open(cohort / row["mask"]) as mask:
            assert image.size == mask.size == SIZE and image.mode == "RGB" and mask.mode == "P"
    described = json.loads((cohort / "classes.json").read_text())
    assert described["classes"] == ["normal", "benign", "malignant"] and described["ignore_index"] == 255
    assert json.loads((cohort / "phantom.json").read_text())["phantom"] == "regions"
    names = sorted(path.name for path in cohort.iterdir())
    assert names == ["classes.json", "images", "masks", "phantom.json", "regions.csv"]


def test_the_data_set_reads_it(cohort):
    data = BreastLesions(str(cohort), patch_size=64)
    assert len(data.regions) == 8 and data.regions[0].mpp == 1.5
    drawn = masks(cohort)
    for number, region in enumerate(data.regions):
        np.testing.assert_array_equal(data.read_labels(number), drawn[region.image.stem])


def test_every_class_is_there_and_in_every_first_region(cohort):
    shown = {name: set(np.unique(mask).tolist()) for name, mask in masks(cohort).items()}
    assert all(values <= {0, 1, 2} and 0 in values for values in shown.values())
    assert all(shown[name] == {0, 1, 2} for name in shown if name.endswith("_1"))
    shares = np.mean([np.bincount(mask.ravel(), minlength=3) / mask.size for mask in masks(cohort).values()], axis=0)
    assert (shares > 0.05).all()


def test_same_seed_same_bytes_whatever_is_drawn_beside_it(cohort, tmp_path):
    write_regions(tmp_path / "again", patients=1, regions_per_patient=2, size=SIZE, mpp=1.5)
    for name in ("images/P001_1.png", "images/P001_2.png", "masks/P001_1.png", "masks/P001_2.png"):
        assert sha256_file(tmp_path / "again" / name) == sha256_file(cohort / name)
    write_regions(tmp_path / "other", seed=1, patients=1, regions_per_patient=1, size=SIZE, mpp=1.5)
    assert (pictures(tmp_path / "other")["P001_1"] != pictures(cohort)["P001_1"]).mean() > 0.5
    assert (masks(tmp_path / "other")["P001_1"] != masks(cohort)["P001_1"]).any()


def test_labels_follow_the_picture(cohort):
    """Lesions are full of nuclei, which are dark in red light; the other ground of a region has few."""
    inside, outside, moved = [], [], []
    drawn = masks(cohort)
    for name, picture in pictures(cohort).items():
        dark = ndimage.uniform_filter((picture[..., 0] < 140).astype(float), 25)
        lesion = drawn[name] > 0
        if not lesion.any():
            continue
        tissue = ndimage.uniform_filter(picture.min(axis=2).astype(float), 25) < 225  # no glass
        inside.append(dark[lesion].mean())
        outside.append(dark[~lesion & tissue].mean())
        moved.append(dark[np.roll(lesion, lesion.shape[1] // 2, axis=1)].mean())
    assert np.mean(inside) > 2 * np.mean(outside)
    assert np.mean(inside) > np.mean(moved)
    assert np.mean(np.array(inside) > np.array(outside)) > 0.9


def test_lesions_are_painted_for_their_kind():
    patient = draw_patient(np.random.default_rng(3))
    shown = {}
    for kind, value in (("benign", 1), ("malignant", 2)):
        picture, labels = draw_region(5, patient, (300, 220), 1.5, [kind])
        assert picture.shape == (220, 300, 3) and picture.dtype == labels.dtype == np.uint8
        assert set(np.unique(labels).tolist()) == {0, value}
        shown[kind] = picture
        again = draw_region(5, patient, (300, 220), 1.5, [kind])
        np.testing.assert_array_equal(picture, again[0])
        np.testing.assert_array_equal(labels, again[1])
    assert (shown["benign"] != shown["malignant"]).any()


def test_indices_and_colours_of_a_palette():
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    picture = as_palette(labels, [(1, 2, 3), (4, 5, 6)])
    np.testing.assert_array_equal(np.asarray(picture), labels)
    colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert colours[:2].tolist() == [[1, 2, 3], [4, 5, 6]] and (colours[2:] == 255).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patients": 0}, "0 patients with 2 regions each: give at least 1 of both"),
        ({"regions_per_patient": 0}, "give at least 1 of both"),
        ({"size": (500, 100)}, "regions of 500x100 px at 1.0 um are too small: give at least 128 um each way"),
    ],
)
def test_what_cannot_be_drawn(tmp_path, arguments, message):
    with pytest.raises(DataError, match=message):
        write_regions(tmp_path / "none", **arguments)
    assert not (tmp_path / "none").exists()
