"""BreakHis: the file-name grammar, both trees, and all real images at hand."""

import csv
import io
import logging
from collections import Counter, defaultdict

import cv2
import numpy as np
import pytest
from mmengine.logging import MMLogger

from pathzoo.datasets import BreakHis
from pathzoo.datasets.breakhis import parse_name, pixel_size
from pathzoo.datasets.splits import SplitWarning
from pathzoo.datasets.transforms import LoadTile, ResizeToMpp
from pathzoo.errors import ConfigError, DataError
from pathzoo.registry import DATASETS

FOLDER = {"A": "benign/SOB/adenosis", "F": "benign/SOB/fibroadenoma", "PT": "benign/SOB/phyllodes_tumor"}
FOLDER |= {"DC": "malignant/SOB/ductal_carcinoma", "LC": "malignant/SOB/lobular_carcinoma"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PATHZOO_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def log():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield stream
    logger.removeHandler(handler)


def draw(path, seed, width=70, height=46):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def write_tree(root, slides, magnifications=(40, 100)):
    """The official tree with tiny pictures: two of each of `slides` (code, slide id) at each magnification."""
    seed = 0
    for code, slide in slides:
        kind = FOLDER[code][0].upper()
        folder = root / "BreaKHis_v1/histology_slides/breast" / FOLDER[code] / f"SOB_{kind}_{code}_14-{slide}"
        for magnification in magnifications:
            for number in (1, 2):
                name = f"SOB_{kind}_{code}-14-{slide}-{magnification}-{number:03d}.png"
                draw(folder / f"{magnification}X" / name, seed)
                seed += 1
    return root


SLIDES = [("A", "22549AB"), ("A", "22549CD"), ("PT", "29315EF"), ("DC", "2523"), ("DC", "13412"), ("LC", "13412")]


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path, SLIDES)


def test_official_tree(tree):
    data = BreakHis(str(tree), magnification=40, exclude=())
    assert len(data) == 12 and data.metainfo["classes"] == ("benign", "malignant")
    sample = next(data[n] for n in range(12) if "PT" in data[n]["item"])
    assert sample["item"].startswith(
        "BreaKHis_v1/histology_slides/breast/benign/SOB/phyllodes_tumor/SOB_B_PT_14-29315EF"
    )
    assert (sample["gt_label"], sample["subtype"], sample["slide"], sample["patient"], sample["magnification"]) == (
        0, "phyllodes_tumor", "29315EF", "29315", 40,
    )  # fmt: skip
    assert sample["mpp"] == pytest.approx(4.9)  # 70 pixels wide in place of 700
    assert {data[n]["patient"] for n in range(12)} == {"22549", "29315", "2523", "13412"}


def test_flat_folder_and_the_registered_name(tree, tmp_path_factory):
    flat = tmp_path_factory.mktemp("flat")
    for path in tree.rglob("*.png"):
        path.rename(flat / path.name)
    data = DATASETS.build(
        {"type": "pathzoo.BreakHis", "data_root": str(flat), "task": "subtype", "magnification": (100,)}
    )
    assert len(data) == 10
    assert Counter(data.metainfo["classes"][data[n]["gt_label"]] for n in range(10)) == {
        "adenosis": 4, "phyllodes_tumor": 2, "ductal_carcinoma": 2, "lobular_carcinoma": 2,
    }  # fmt: skip


def test_the_mislabelled_duplicate_is_left_out_and_named(tree, log):
    data = BreakHis(str(tree))
    assert "left out 4 images of DC-14-13412" in log.getvalue()
    left = {(data[n]["subtype"], data[n]["slide"]) for n in range(len(data))}
    assert ("lobular_carcinoma", "13412") in left and ("ductal_carcinoma", "13412") not in left


def test_slides_of_one_patient_stay_together(tmp_path):
    slides = [(code, f"{n}{part}") for n in range(10, 22) for code in (["A", "DC"][n % 2],) for part in ("AB", "CD")]
    root = write_tree(tmp_path, slides, (40,))
    split = BreakHis(str(root), split={"scheme": "patient_kfold"}).split
    places = defaultdict(set)
    for name, part in split.subsets.items():
        for item in part.items:
            places[item.split("/")[-1].split("-")[2][:2]].add(name)
    assert len(places) == 12 and all(len(names) == 1 for names in places.values())


def test_one_saved_split_serves_every_magnification(tmp_path):
    root = write_tree(tmp_path, [(["A", "DC"][n % 2], str(100 + n)) for n in range(10)])
    BreakHis(str(root), split={"scheme": "patient_kfold"}).split.save(tmp_path / "s.json")
    parts = {m: BreakHis(str(root), magnification=m, subset="test", split=str(tmp_path / "s.json")) for m in (40, 100)}
    patients = {m: {data[n]["patient"] for n in range(len(data))} for m, data in parts.items()}
    assert patients[40] == patients[100] and len(parts[40]) == 4


@pytest.mark.parametrize(
    "name",
    [
        "SOB_B_A-14-22549AB-40.png",
        "SOB_B_A-14-22549AB-50-001.png",
        "SOB_M_A-14-22549AB-40-001.png",  # adenosis is benign
        "SOB_B_XX-14-22549AB-40-001.png",
        "SOB_B_A-14-AB-40-001.png",
        "SOB_B_A-14-22549AB-40-001.csv",
        "copy of SOB_B_A-14-22549AB-40-001.png",
    ],
)
def test_names_outside_the_grammar(name):
    assert parse_name(name) is None


def test_a_foreign_name_is_an_error_or_left_out_and_counted(tree, log):
    draw(tree / "BreaKHis_v1" / "holiday.png", 1)
    (tree / "BreaKHis_v1" / "README.txt").write_text("not an image")
    (tree / "BreaKHis_v1" / "._SOB_B_A-14-22549AB-40-001.png").touch()  # what macOS adds to archives
    with pytest.raises(
        DataError, match=r"holiday.png: not a BreakHis file name .*\(1 such files\).*ignore_unknown_names"
    ):
        BreakHis(str(tree))
    assert len(BreakHis(str(tree), ignore_unknown_names=True)) == 20
    assert "left out 1 images whose names are not BreakHis's, first holiday.png" in log.getvalue()


def test_one_name_in_two_folders(tree):
    draw(tree / "fold1/train/40X/SOB_B_A-14-22549AB-40-001.png", 1)
    with pytest.raises(
        DataError, match=r"SOB_B_A-14-22549AB-40-001.png stands in .* and in .*: point data_root at one"
    ):
        BreakHis(str(tree))


def test_folder_against_name(tmp_path):
    draw(tmp_path / "malignant" / "SOB_B_A-14-22549AB-40-001.png", 1)
    with pytest.raises(DataError, match=r"the name says benign, the folder malignant"):
        BreakHis(str(tmp_path))


def test_wrong_arguments(tree, tmp_path):
    with pytest.raises(ConfigError, match=r"no such folder; give the one that holds BreaKHis_v1"):
        BreakHis(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"task='subtypes': give one of 'binary', 'subtype'"):
        BreakHis(str(tree), task="subtypes")
    with pytest.raises(ConfigError, match=r"magnification=50: give 40, 100, 200, 400, unknown"):
        BreakHis(str(tree), magnification=50)
    with pytest.raises(DataError, match=r"no image of magnification \(400,\) among 24 \(there are 100, 40\)"):
        BreakHis(str(tree), magnification=400)


def test_damaged_image_is_named(tree):
    path = next(tree.rglob("SOB_B_PT*-40-002.png"))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"SOB_B_PT-14-29315EF-40-002.png: truncated or damaged"):
        BreakHis(str(tree))
    assert BreakHis(str(tree), on_bad_image="skip").skipped[0].path == str(path)


def test_pixel_size_follows_the_optics_that_the_paper_names():
    for magnification, objective in ((40, 4), (100, 10), (200, 20), (400, 40)):
        optics = 6.5 / (3.3 * objective)  # camera pixel in um, relay lens, objective
        assert pixel_size(magnification, 700, 460) == pytest.approx(optics, rel=0.02)
    assert pixel_size(40, 500, 328) == pytest.approx(0.49 * 1.4)
    assert pixel_size(None, 700, 460) is None
    assert pixel_size(40, 224, 224) is None  # a crop: nobody knows whether it was scaled before


@pytest.mark.real
def test_every_real_image_agrees_with_the_manifest(real_data):
    root = real_data / "breakhis"
    with (root / "manifest.csv").open() as file:
        truth = {row["path"]: row for row in csv.DictReader(file)}
    data = BreakHis(str(root), exclude=())
    assert len(data) == len(truth) == 97
    for n in range(97):
        info, row = data[n], truth[data[n]["item"]]
        assert data.metainfo["classes"][info["gt_label"]] == row["label"]
        assert (info["subtype"], info["slide"], info["patient"]) == (
            row["subtype"],
            row["slide"],
            row["patient_number"],
        )
        assert str(info["magnification"] or "unknown") == row["magnification"]
        nominal = {"40": 0.49, "100": 0.20, "200": 0.10, "400": 0.05}.get(row["magnification"])
        assert info["mpp"] == (nominal and pytest.approx(nominal * 700 / int(row["width"])))
    assert data.describe()["n_patients"] == 21
    default = BreakHis(str(root))
    without = sum(row["subtype"] != "ductal_carcinoma" or row["slide"] != "13412" for row in truth.values())
    assert len(default) == without == 96 and not default.skipped
    assert default.describe()["n_patients"] == 21  # LC-14-13412 stays


@pytest.mark.real
def test_five_folds_over_the_real_images_test_each_once(real_data):
    tested = Counter()
    for fold in range(5):
        split = {"scheme": "patient_kfold", "k": 5, "fold": fold}
        data = BreakHis(str(real_data / "breakhis"), subset="test", split=split)
        tested.update(data[n]["item"] for n in range(len(data)))
        assert all(counts["n_patients"] >= 1 for counts in data.describe()["per_class"].values())
    assert set(tested.values()) == {1} and len(tested) == 96


def items_of(root):
    data = BreakHis(str(root))
    return [data.get_data_info(n)["item"] for n in range(len(data))]


def test_linked_folders_are_entered_once_and_do_not_rename_what_lies_there(tree, tmp_path_factory):
    before = items_of(tree)
    other = write_tree(tmp_path_factory.mktemp("other"), [("F", "14134")])
    (tree / "AA_link").symlink_to(other, target_is_directory=True)
    (tree / "BB_link").symlink_to(other, target_is_directory=True)  # the same a second time
    (other / "back").symlink_to(tree, target_is_directory=True)  # a circle
    (tree / "AA_own").symlink_to(tree / "BreaKHis_v1", target_is_directory=True)
    after = items_of(tree)
    assert [item for item in after if not item.startswith("AA_link/")] == before
    assert len(after) == len(before) + 4 and after == sorted(after) and after == items_of(tree)


def test_a_data_set_made_of_links_is_whole(tree, tmp_path_factory):
    links = tmp_path_factory.mktemp("links")
    for folder in (tree / "BreaKHis_v1/histology_slides/breast").glob("*/SOB/*"):
        (links / folder.name).symlink_to(folder, target_is_directory=True)
    assert len(BreakHis(str(links))) == len(BreakHis(str(tree))) == 20


def test_official_groups_without_validation_say_how_to_get_one(tree):
    names = sorted(path.name for path in tree.rglob("*.png"))
    lines = [f"{n}|{n.split('-')[3]}|1|{'test' if '-29315EF-' in n or '-2523-' in n else 'train'}" for n in names]
    (tree / "dsfold1.txt").write_text("\n".join(lines) + "\n")
    split = {"scheme": "official_slide_groups", "file": str(tree / "dsfold1.txt")}
    with pytest.raises(ConfigError, match=r"val_ratio, e\.g\. 0\.15,.*--no-validate"):
        BreakHis(str(tree), subset="val", split=split)
    with pytest.warns(SplitWarning):
        assert len(BreakHis(str(tree), subset="val", split={**split, "val_ratio": 0.5}))


def test_unknown_pixel_sizes_name_the_remedy_of_this_data_set(tree):
    draw(tree / "SOB_B_A_14-22549AB_0.png", 5)
    with pytest.raises(DataError, match=r"SOB_B_A_14-22549AB_0.png and 1 of 21 images in all.*choose magnifications"):
        BreakHis(str(tree), pipeline=[LoadTile(), ResizeToMpp(6.0)])
    assert len(BreakHis(str(tree), magnification=(40, 100), pipeline=[LoadTile(), ResizeToMpp(6.0)])) == 20
