import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest
import shapely
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pathzoo.datasets.phantom import draw_slide, draw_tissue, write_breakhis, write_slide
from pathzoo.datasets.phantom.breakhis import NOMINAL_MPP, SUBTYPES
from pathzoo.datasets.phantom.epithelium import epithelial_nucleus
from pathzoo.datasets.phantom.nuclei import NucleusBank, NucleusKind
from pathzoo.datasets.phantom.stain import Stain, render
from pathzoo.datasets.phantom.tissue import draw_atypia
from pathzoo.errors import DataError
from pathzoo.fileio import sha256_file

_SMALL = {"patients": 8, "images_per_patient": 2, "size": (175, 115)}


def _files(root):
    return sorted(path for path in Path(root).rglob("*") if path.is_file())


# One section --------------------------------------------------------------------------------------------------------


def test_same_seed_same_picture():
    one, again, other = (draw_tissue(seed, "malignant", (120, 80), 1.0) for seed in (5, 5, 6))
    assert one.shape == (80, 120, 3) and one.dtype == np.uint8
    np.testing.assert_array_equal(one, again)
    assert (one != other).mean() > 0.5


def test_light_follows_beer_and_lambert():
    haematoxylin, eosin = np.full((8, 8), 0.7, np.float32), np.full((8, 8), 0.4, np.float32)
    stain = Stain(haematoxylin_gain=1.2, eosin_gain=0.9, white=(240.0, 241.0, 239.0))
    got = render(haematoxylin, eosin, stain, np.random.default_rng(0), noise=0).reshape(-1, 3).mean(0)
    density = 0.7 * 1.2 * np.array(stain.haematoxylin) + 0.4 * 0.9 * np.array(stain.eosin)
    np.testing.assert_allclose(got, np.array(stain.white) * np.exp(-density), rtol=0.08)  # the lamp is uneven


@pytest.mark.parametrize("mpp", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("diameter", [6.6, 10.8])
def test_nuclei_have_their_physical_size(mpp, diameter):
    bank = NucleusBank(np.random.default_rng(0), NucleusKind(diameter, size_spread=0.0, chromatin=0.0), mpp, 30)
    areas = [(stamp > 0.5 * stamp.max()).sum() * mpp**2 for stamp in bank.stamps]
    measured = 2 * np.sqrt(np.mean(areas) / np.pi)
    assert abs(measured / diameter - 1) < 0.06
    assert abs(np.mean(areas) / bank.areas.mean() - 1) < 0.12


def test_atypia_makes_nuclei_larger_and_more_varied():
    benign, malignant = (
        NucleusBank(np.random.default_rng(1), epithelial_nucleus(atypia), 0.5, 200) for atypia in (0.15, 0.85)
    )
    sizes = [2 * np.sqrt(bank.areas / np.pi) for bank in (benign, malignant)]
    assert 6 < sizes[0].mean() < 8 and 8 < sizes[1].mean() < 14
    assert sizes[1].std() > 3 * sizes[0].std()


def test_difficulty_is_the_overlap_of_the_classes():
    def apart(difficulty):
        rng = np.random.default_rng(0)
        draws = {kind: [draw_atypia(rng, kind, difficulty) for _ in range(500)] for kind in ("benign", "malignant")}
        return np.mean(draws["malignant"]) - np.mean(draws["benign"])

    assert apart(0.0) > apart(0.35) > apart(0.7) > abs(apart(1.0))
    assert abs(apart(1.0)) < 0.03
    with pytest.raises(ValueError, match="'maligant'"):
        draw_tissue(0, "maligant")


# A cohort -----------------------------------------------------------------------------------------------------------


def test_breakhis_tree_and_names(tmp_path):
    calls = []
    top = write_breakhis(tmp_path, 1, **_SMALL, magnifications=(40, 400), progress=lambda *call: calls.append(call))
    files = _files(top)
    assert top == tmp_path / "BreaKHis_v1" and len(files) == 8 * 2 * 2
    assert calls[-1] == (32, 32) and [done for done, _ in calls] == list(range(1, 33))
    letters, patients = set(), {}
    for path in files:
        parts = path.relative_to(top).parts
        assert parts[:2] == ("histology_slides", "breast") and parts[3] == "SOB"
        name = re.fullmatch(r"SOB_([BM])_([A-Z]+)-14-((9\d{4})[A-F]*)-(40|400)-(\d{3})\.png", parts[-1])
        kind, subtype, slide, patient, magnification, _ = name.groups()
        assert parts[2] == {"B": "benign", "M": "malignant"}[kind] and parts[4] == SUBTYPES[parts[2]][subtype]
        assert parts[5] == f"SOB_{kind}_{subtype}_14-{slide}" and parts[6] == f"{magnification}X"
        letters.add(subtype)
        patients.setdefault(patient, set()).add(slide)
        assert cv2.imread(str(path)).shape == (115, 175, 3)
    assert letters == {"A", "F", "PT", "TA", "DC", "LC", "MC", "PC"}
    assert len(patients) == 8
    assert sorted(len(slides) for slides in patients.values()) == [1] * 6 + [2, 2], "some patients have two folders"


def test_breakhis_cohort_depends_on_its_seed_alone(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_breakhis(tmp_path / name, seed, **_SMALL)
    a, b, c = ({path.name: sha256_file(path) for path in _files(tmp_path / name)} for name in "abc")
    assert a == b
    assert not set(a.values()) & set(c.values())
    assert len(set(a.values())) == len(a), "no two images are alike"


def test_breakhis_reads_as_breakhis():
    breakhis = pytest.importorskip("pathzoo.datasets.breakhis")
    assert breakhis.PIXEL_SIZE == NOMINAL_MPP
    assert SUBTYPES["benign"] | SUBTYPES["malignant"] == breakhis.SUBTYPES
    assert breakhis.pixel_size(40, 350, 230) == pytest.approx(0.98)
    parsed = breakhis.parse_name("SOB_M_DC-14-90001AB-40-001.png")
    assert (parsed["patient"], parsed["label"], parsed["magnification"]) == ("90001", "malignant", 40)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"magnifications": (40, 50)}, "magnification 50"),
        ({"patients": 1}, "1 patients"),
        ({"size": (300, 300)}, "300x300"),
    ],
)
def test_cohorts_that_cannot_be_are_refused(tmp_path, arguments, message):
    with pytest.raises(DataError, match=message):
        write_breakhis(tmp_path, **arguments)
    assert not _files(tmp_path)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Pictures, labels and patients of 40 patients."""
    return _read(write_breakhis(tmp_path_factory.mktemp("cohort"), 0, patients=40, images_per_patient=4))


def _read(top):
    paths = _files(top)
    labels = np.array(["malignant" in path.parts for path in paths])
    patients = np.array([re.search(r"-(9\d{4})", path.name)[1] for path in paths])
    return [cv2.imread(str(path))[..., ::-1] for path in paths], labels, patients


def _colours(picture):
    pixels = picture.reshape(-1, 3) / 255
    return np.concatenate([pixels.mean(0), pixels.std(0)])


def _shapes(picture):
    """Sizes of the dark blobs and local binary patterns: what a pathologist's eye and a texture filter see."""
    red = cv2.GaussianBlur(np.ascontiguousarray(picture[..., 0]), (0, 0), 1)
    _, dark = cv2.threshold(red, 0, 255, cv2.THRESH_BINARY_INV + cv2.THRESH_OTSU)
    depth = cv2.distanceTransform(dark, cv2.DIST_L2, 3)
    peaks = depth[(depth == ndimage.maximum_filter(depth, 5)) & (depth > 1.2)]
    blobs = np.log(np.maximum(np.bincount(ndimage.label(dark)[0].ravel())[1:], 8))
    sizes = [*np.percentile(peaks, [25, 50, 75, 90]), peaks.std(), len(peaks) / 1000, blobs.mean(), blobs.std()]
    grey = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
    patterns = []
    for step in (1, 2, 4):
        ring = [
            (-step, -step),
            (-step, 0),
            (-step, step),
            (0, step),
            (step, step),
            (step, 0),
            (step, -step),
            (0, -step),
        ]
        bits = np.stack([np.roll(grey, shift, (0, 1)) > grey for shift in ring])[:, step:-step, step:-step]
        code = np.where((bits != np.roll(bits, 1, 0)).sum(0) <= 2, bits.sum(0), 9)
        patterns.append(np.bincount(code.ravel(), minlength=10) / code.size)
    return np.concatenate([sizes, *patterns])


def _unseen_patients_auc(features, labels, patients):
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    folds = GroupKFold(5, shuffle=True, random_state=0)
    found = cross_val_predict(model, features, labels, groups=patients, cv=folds, method="predict_proba")
    return roc_auc_score(labels, found[:, 1])


def test_the_classes_can_be_learnt_but_not_by_colour(cohort):
    pictures, labels, patients = cohort
    by_shape = _unseen_patients_auc(np.array([_shapes(p) for p in pictures]), labels, patients)
    by_colour = _unseen_patients_auc(np.array([_colours(p) for p in pictures]), labels, patients)
    assert 0.85 < by_shape < 0.999, "learnable, not trivial"
    assert by_colour < 0.65, "stain, brightness and mean colour say nothing about the class"


def test_shuffled_labels_leave_nothing_to_learn(cohort):
    pictures, labels, patients = cohort
    numbers, first = np.unique(patients, return_index=True)
    dealt = dict(zip(numbers, np.random.default_rng(1).permutation(labels[first]), strict=True))
    shuffled = np.array([dealt[patient] for patient in patients])
    assert 0.3 < _unseen_patients_auc(np.array([_shapes(p) for p in pictures]), shuffled, patients) < 0.7


def test_shuffling_moves_patients_between_folders_and_draws_the_same(tmp_path):
    plain = _files(write_breakhis(tmp_path / "plain", 0, 16, 1, size=(175, 115)))
    dealt = _files(write_breakhis(tmp_path / "dealt", 0, 16, 1, size=(175, 115), shuffle_labels=True))
    folder = [{sha256_file(path): "malignant" in path.parts for path in paths} for paths in (plain, dealt)]
    assert folder[0].keys() == folder[1].keys()
    moved = sum(folder[0][digest] != folder[1][digest] for digest in folder[0])
    assert 3 <= moved <= 13 and sum(folder[1].values()) == 8


def test_phantoms_need_no_torch():
    code = "import sys, pathzoo.datasets.phantom; print([m for m in ('torch', 'mmengine', 'mmcv') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# A slide ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".svs", ".tif"])
def test_openslide_reads_the_slide(tmp_path, suffix):
    path = tmp_path / f"slide{suffix}"
    size, mpp = (1600, 1200), 0.5
    annotations = write_slide(path, 2, size, mpp, pieces=2)
    picture, regions = draw_slide(2, size, mpp, pieces=2)
    with openslide.OpenSlide(path) as slide:
        assert slide.dimensions == size and slide.level_count >= 2
        assert slide.level_dimensions[1] == (400, 300)
        assert float(slide.properties[openslide.PROPERTY_NAME_MPP_X]) == pytest.approx(mpp)
        assert float(slide.properties[openslide.PROPERTY_NAME_MPP_Y]) == pytest.approx(mpp)
        level0 = np.asarray(slide.read_region((0, 0), 0, size))[..., :3]
        level1 = np.asarray(slide.read_region((0, 0), 1, (400, 300)))[..., :3]
    difference = np.abs(level0.astype(int) - picture)
    assert difference.mean() < 4 and np.percentile(difference, 99) < 25, "the same pixels, but for JPEG"
    small = cv2.resize(picture, (400, 300), interpolation=cv2.INTER_AREA)
    assert np.abs(level1.astype(int) - small).mean() < 4
    assert annotations == tmp_path / "annotations.geojson"
    assert (regions > 0).mean() > 0.25


def test_annotations_outline_the_tissue(tmp_path):
    path, size, mpp = tmp_path / "slide.svs", (2400, 1600), 0.5
    features = json.loads(write_slide(path, 4, size, mpp, pieces=3).read_text())["features"]
    picture, regions = draw_slide(4, size, mpp, pieces=3)
    names = [feature["properties"]["classification"]["name"] for feature in features]
    assert set(names) == {"benign", "malignant"}
    assert len({feature["id"] for feature in features}) == len(features)
    shapes = [shapely.geometry.shape(feature["geometry"]) for feature in features]
    for shape, name in zip(shapes, names, strict=True):
        assert shape.is_valid and shapely.box(0, 0, *size).contains(shape)
        mask = np.zeros((size[1], size[0]), np.uint8)
        cv2.fillPoly(mask, [np.array(shape.exterior.coords).round().astype(np.int32)], 1)
        coarse = cv2.resize(mask, regions.shape[::-1], interpolation=cv2.INTER_AREA) > 0
        assert (regions[coarse] == (1 if name == "benign" else 2)).mean() > 0.97
        assert picture[mask > 0].mean() < picture[_enlarged(regions, size) == 0].mean() - 15
    assert sum(a.intersection(b).area for i, a in enumerate(shapes) for b in shapes[:i]) == 0
    covered = sum(shape.area for shape in shapes) * mpp**2
    assert covered > 0.8 * (regions > 0).sum() * 64


def _enlarged(regions, size):
    return cv2.resize(regions, size, interpolation=cv2.INTER_NEAREST)


def test_slides_depend_on_their_seed_alone(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_slide(tmp_path / name / "s.svs", seed, (1000, 900))
    a, b, c = (sha256_file(tmp_path / name / "s.svs") for name in "abc")
    assert a == b != c
    texts = [(tmp_path / name / "annotations.geojson").read_text() for name in "abc"]
    assert texts[0] == texts[1] != texts[2]


def test_slides_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"s\.png: a phantom slide"):
        write_slide(tmp_path / "s.png")
    with pytest.raises(DataError, match="too small"):
        write_slide(tmp_path / "s.svs", size=(500, 5000))
    assert not _files(tmp_path)
