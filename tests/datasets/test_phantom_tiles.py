"""Phantom tiles: three classes of breast that colour does not tell, kidney without classes, and noise."""

import csv

import cv2
import numpy as np
import pytest
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pathzoo.datasets import BreastTiles
from pathzoo.datasets.phantom import write_tiles
from pathzoo.datasets.phantom.tiles import CLASSES, TISSUES, draw_patient_tiles
from pathzoo.errors import DataError
from pathzoo.fileio import sha256_file


def rows(table):
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def digests(root):
    return {path.name: sha256_file(path) for path in sorted((root / "tiles").iterdir())}


def test_a_cohort_reads_as_breast_tiles(tmp_path):
    table = write_tiles(tmp_path, 1, patients=6, tiles_per_patient=4)
    data = BreastTiles(str(table), split={"scheme": "patient_ratio", "ratios": {"train": 0.5, "val": 0.5, "test": 0}})
    counts = data.describe()
    assert data.metainfo["classes"] == CLASSES == ("benign", "ADH", "DCIS")
    assert {name: count["n_images"] for name, count in counts["per_class"].items()} == dict.fromkeys(CLASSES, 8)
    found = rows(table)
    for number in range(6):
        own = [row for row in found if row["patient"] == f"B{number + 1:03d}"]
        assert {row["label"] for row in own} == {CLASSES[number % 3]} and len({row["slide"] for row in own}) == 2
        places = {(row["slide"], row["x"], row["y"]) for row in own}
        assert len(places) == 4, "no place is cut twice"
    assert (tmp_path / "phantom.json").is_file()


@pytest.mark.parametrize("tissue", TISSUES)
def test_tiles_depend_on_their_seed_alone(tmp_path, tissue):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_tiles(tmp_path / name, seed, tissue, patients=3, tiles_per_patient=3)
    a, b, c = (digests(tmp_path / name) for name in "abc")
    assert a == b and not set(a.values()) & set(c.values()) and len(set(a.values())) == 9
    picture = cv2.imread(str(next((tmp_path / "a" / "tiles").iterdir())))
    assert picture.shape == (64, 64, 3)
    label = {row["label"] for row in rows(tmp_path / "a" / "tiles.csv")}
    assert label == (set(CLASSES) if tissue == "breast" else {tissue})


def test_tissues_share_no_patient(tmp_path):
    names = [
        {row["patient"] for row in rows(write_tiles(tmp_path / t, tissue=t, patients=3, tiles_per_patient=1))}
        for t in TISSUES
    ]
    assert len(set().union(*names)) == 9


@pytest.fixture(scope="module")
def breast():
    """Tiles, labels and patients of 84 patients."""
    found = [(t.picture, t.label, n) for n in range(84) for t in draw_patient_tiles(11, "breast", n, 8, 64, 1.0)]
    pictures, labels, patients = zip(*found, strict=True)
    return pictures, np.array(labels), np.array(patients)


def colours(picture):
    return picture.reshape(-1, 3).mean(0)


def nuclei(picture):
    """Number and sizes of the dark blobs."""
    red = cv2.GaussianBlur(np.ascontiguousarray(picture[..., 0]), (0, 0), 0.8)
    _, dark = cv2.threshold(red, 0, 255, cv2.THRESH_BINARY_INV + cv2.THRESH_OTSU)
    depth = cv2.distanceTransform(dark, cv2.DIST_L2, 5)
    peaks = depth[(depth == ndimage.maximum_filter(depth, 5)) & (depth > 1.2)]
    if not len(peaks):
        return np.zeros(6)
    return np.array([*np.percentile(peaks, [50, 75, 90]), peaks.std(), len(peaks), peaks.max()])


def accuracy(features, labels, patients):
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    folds = GroupKFold(6, shuffle=True, random_state=0)
    return (cross_val_predict(model, features, labels, groups=patients, cv=folds) == labels).mean()


def test_colour_does_not_tell_the_classes_but_nuclei_do(breast):
    pictures, labels, patients = breast
    by_colour = accuracy(np.array([colours(p) for p in pictures]), labels, patients)
    by_nuclei = accuracy(np.array([nuclei(p) for p in pictures]), labels, patients)
    assert by_colour < 0.42, "chance is 1/3; 84 patients leave it some room"
    assert by_nuclei > by_colour + 0.08 and 0.42 < by_nuclei < 0.9, "learnable, not trivial"


def test_difficulty_brings_the_classes_together():
    def gap(difficulty):
        sizes = {0: [], 2: []}
        for n in range(24):
            if n % 3 != 1:
                drawn = draw_patient_tiles(5, "breast", n, 6, 64, 1.0, difficulty)
                sizes[n % 3] += [nuclei(tile.picture)[2] for tile in drawn]
        return np.mean(sizes[2]) - np.mean(sizes[0])

    assert gap(0.0) > gap(1.0) + 0.2 and abs(gap(1.0)) < 0.35


def test_noise_has_the_colours_of_tissue_and_no_direction(breast):
    noise = [t.picture for n in range(30) for t in draw_patient_tiles(2, "noise", n, 4, 64, 1.0)]
    kidney = [t.picture for n in range(30) for t in draw_patient_tiles(2, "kidney", n, 4, 64, 1.0)]
    means = [np.mean([colours(p) for p in part], axis=0) for part in (noise, breast[0], kidney)]
    assert np.abs(means[0] - means[1]).max() < 10 and np.abs(means[0] - means[2]).max() < 12

    def uneven(pictures):
        """How much more a tile varies along one axis than along the other, or along one diagonal."""
        found = []
        for p in pictures:
            grey = p.astype(float).mean(2)
            down, right = np.diff(grey, axis=0).var(), np.diff(grey, axis=1).var()
            found.append(abs(np.log(down / right)))
        return np.mean(found)

    assert uneven(noise) < 0.5 * uneven(breast[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tissue": "liver"}, "tissue 'liver': there are breast, kidney, noise"),
        ({"patients": 2}, "2 patients with 20 tiles each: breast needs 3 patients"),
        ({"tiles_per_patient": 0}, "30 patients with 0 tiles each"),
        ({"size": 20}, "tiles of 20 px at 1.0 um are too small"),
    ],
)
def test_cohorts_that_cannot_be_are_refused(tmp_path, arguments, message):
    with pytest.raises(DataError, match=message):
        write_tiles(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()
