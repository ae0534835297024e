"""The official hold-out files: read as they are, and what is wrong with them said."""

import pytest
from split_cohorts import CLASSES, patients_of

from pathzoo.datasets.splits import SplitItem, SplitWarning, caveats, resolve_split
from pathzoo.errors import ConfigError, DataError

FOLDERS = {
    "SOB_B_A-14-22549AB": "train",
    "SOB_B_A-14-22549CD": "test",
    "SOB_B_F-14-9133": "train",
    "SOB_M_DC-14-2523": "train",
    "SOB_M_LC-14-15570C": "test",
    "SOB_M_LC-14-15570": "test",
}


def official(tmp_path, extra=""):
    names = [f"{folder}-{mag}-{n:03d}.png" for folder in FOLDERS for mag in (40, 100) for n in (1, 2)]
    file = tmp_path / "dsfold1.txt"
    lines = [f"{name}|{name.split('-')[3]}|1|{FOLDERS[name.rsplit('-', 2)[0]]}" for name in names]
    file.write_text("\n".join(lines) + "\n" + extra)
    items = []
    for name in names:
        digits = "".join(c for c in name.split("-")[2] if c.isdigit())
        items.append(SplitItem(f"some/folder/{name}", int("_M_" in name), f"sha {name}", digits))
    return file, items


def test_official_holdout_warns_with_the_straddling_digits_and_nothing_else(tmp_path):
    file, items = official(tmp_path)
    with pytest.warns(SplitWarning) as caught:
        split = resolve_split(items, {"scheme": "official_slide_groups", "file": str(file)}, CLASSES)
    said = [str(warning.message) for warning in caught]
    assert said == [
        "official_slide_groups: 1 patients (slide digits) stand on two sides",
        "patients on two sides: 22549 (SOB_B_A-14-22549AB train, SOB_B_A-14-22549CD test)",
    ]
    assert caveats(split, items) == said[:1], "records name nobody"
    assert split.group_key == "slide" and split.parameters["file"] == "dsfold1.txt"
    assert set(split.subsets["train"].groups) == {f for f, side in FOLDERS.items() if side == "train"}
    assert {n.split("/")[-1].rsplit("-", 2)[0] for n in split.subsets["test"].items} == set(
        split.subsets["test"].groups
    )


def test_official_holdout_may_validate_on_training_patients(tmp_path):
    file, items = official(tmp_path)
    wanted = {"scheme": "official_slide_groups", "file": file, "fold": 1, "val_ratio": 0.3}
    with pytest.warns(SplitWarning):
        split = resolve_split(items, wanted, CLASSES)
    held = patients_of(split, items)
    assert held["val"] and not held["val"] & held["train"]
    assert len(split.subsets["test"].items) == 12


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (
            "SOB_B_A-14-22549AB-40-001.png|40|1|test\n",
            r"dsfold1.txt:25: SOB_B_A-14-22549AB-40-001.png stands in train and in",
        ),
        ("what is this\n", r"dsfold1.txt:25: 'what is this' is not of the form IMAGE\|MAGNIFICATION"),
        ("SOB_B_A-14-1-40-001.png|40|2|test\n", r"holds hold-outs \[1, 2\]: choose one"),
    ],
)
def test_official_file_that_cannot_be_right(tmp_path, extra, message):
    file, items = official(tmp_path, extra)
    with pytest.raises(DataError, match=message):
        resolve_split(items, {"scheme": "official_slide_groups", "file": file}, CLASSES)


def test_official_file_missing_wrong_fold_or_not_listing_an_image(tmp_path):
    file, items = official(tmp_path)
    with pytest.raises(ConfigError, match=r"no line of hold-out 4, but of \[1\]"):
        resolve_split(items, {"scheme": "official_slide_groups", "file": file, "fold": 4}, CLASSES)
    with pytest.raises(ConfigError, match=r"nowhere.txt: no such hold-out file"):
        resolve_split(items, {"scheme": "official_slide_groups", "file": tmp_path / "nowhere.txt"}, CLASSES)
    with pytest.raises(DataError, match=r"does not list 1 of 25 images .first: x/SOB_M_DC_14-12312_0.png"):
        stray = SplitItem("x/SOB_M_DC_14-12312_0.png", 1, "stray", "12312")
        resolve_split([*items, stray], {"scheme": "official_slide_groups", "file": file}, CLASSES)


def test_same_slide_number_under_two_subtypes_is_two_official_groups_of_one_patient(tmp_path):
    file = tmp_path / "f.txt"
    names = [
        "SOB_M_DC-14-13412-40-001.png",
        "SOB_M_LC-14-13412-40-001.png",
        "SOB_B_A-14-1-40-001.png",
        "SOB_B_A-14-2-40-001.png",
    ]
    file.write_text("\n".join(f"{n}|40|1|{s}" for n, s in zip(names, ["train", "test"] * 2, strict=True)))
    items = [SplitItem(n, int("_M_" in n), n, n.split("-")[2]) for n in names]
    with pytest.warns(SplitWarning, match=r"13412 \(SOB_M_DC-14-13412 train, SOB_M_LC-14-13412 test\)"):
        resolve_split(items, {"scheme": "official_slide_groups", "file": file}, CLASSES)
