"""Tissue is known again by its slide where nobody wrote down the patients."""

import pytest
from split_cohorts import CLASSES
from tile_stores import SIZE, write

from pathzoo.datasets.leakage import blind_to, held_out_by, refuse_overlap
from pathzoo.datasets.slide_names import Origins, slide_key
from pathzoo.datasets.splits import Split, SplitItem, Subset, check_leakage
from pathzoo.datasets.tiles import TileClassification
from pathzoo.datasets.unlabelled import UnlabelledTiles
from pathzoo.errors import LeakageError


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("S-17.svs", "S-17"),
        ("2021/S-17.tiff", "S-17"),
        ("C:\\scans\\S-17.NDPI", "S-17"),
        ("TCGA-A1-A0SB-01Z-00-DX1.B34C267B", "TCGA-A1-A0SB-01Z-00-DX1.B34C267B"),
    ],
)
def test_a_slide_has_one_name_whatever_its_folder_and_ending(name, key):
    assert slide_key(name) == key


def test_what_a_subset_comes_from():
    found = Origins.of([("a.svs", None), ("x/a.svs", "p1"), ("b", None), (None, "p2"), (None, None)])
    assert found == Origins({"a": "p1", "b": None}, without_slide=2, without_patient=3)
    assert Origins(**found.to_json()) == found


def split_of(test, train=(("t0", "T", "q"),)):
    """Rows (item, slide, patient)."""
    parts = {"test": test, "train": train}
    items = {name: [SplitItem(i, 0, f"{name}{i}", p, slide=s) for i, s, p in rows] for name, rows in parts.items()}
    return Split("patient_ratio", {name: Subset.of(rows) for name, rows in items.items()}, CLASSES)


def info(slide, patient):
    return {"item": "new.png", "slide": slide, "patient": patient, "sha256": "new"}


@pytest.mark.parametrize(
    ("slide", "patient", "of_split", "held"),
    [
        ("S.svs", None, None, True),
        ("S", None, "p", True),
        ("S", "p2", None, True),
        ("S", "p2", "p", False),  # two hospitals number their slides alike
        ("R", None, None, False),
        (None, None, None, False),
    ],
)
def test_a_slide_is_held_out_unless_patients_say_that_it_is_another(slide, patient, of_split, held):
    split = split_of([("a", "S", of_split)])
    assert bool(held_out_by(split, [info(slide, patient)])) == held
    if held:
        assert "slide 'S' (new.png) stands in 'test'" in held_out_by(split, [info(slide, patient)])[0][1]
        refuse_overlap(split, [info(slide, patient)], "val", "s.json")
        with pytest.raises(LeakageError, match=r"slide 'T' \(new\.png\) stands in 'train'"):
            refuse_overlap(split, [info("T", None)], "val", "s.json")


@pytest.mark.parametrize(
    ("slide", "patient", "test", "blind"),
    [
        ("R", None, [("a", "S", None)], False),
        ("R", "p2", [("a", None, "p")], False),
        (None, "p2", [("a", "S", "p")], False),
        (None, None, [("a", "S", "p")], True),
        ("R", None, [("a", "S", None), ("b", None, None)], True),
        (None, "p2", [("a", "S", "p"), ("b", "U", None)], True),
    ],
)
def test_what_no_name_tells_apart_is_counted(slide, patient, test, blind):
    assert blind_to(split_of(test), [info(slide, patient)], kept_out=True) == blind
    older = Split("patient_ratio", {"test": Subset({"a": "1"}, ("p",))}, CLASSES)
    assert blind_to(older, [info(slide, patient)], kept_out=True) == 1, "a file that tells neither"


def test_a_slide_whose_patient_is_known_on_one_side_only_stands_on_two_sides():
    rows = [SplitItem("a", 0, "1", "p", slide="S.svs"), SplitItem("b", 0, "2", None, slide="S")]
    split = Split("patient_ratio", {"train": Subset.of(rows[:1]), "test": Subset.of(rows[1:])}, CLASSES)
    with pytest.raises(
        LeakageError, match=r"slide 'S' stands in train \(a, patient 'p'\) and in test \(b, .* fill the"
    ):
        check_leakage(split, rows)
    check_leakage(split, [rows[0], SplitItem("b", 0, "2", None, slide="R")])


def test_tiles_of_a_tested_slide_are_not_learnt_from_and_what_names_nothing_leaves_a_caveat(tmp_path):
    """The labelled table knows patients and slides, the unlabelled one slides alone, the folder nothing."""
    for number in range(8):
        write(tmp_path / "lab" / f"{number}.png", number)
        write(tmp_path / "pool" / f"{number}.png", 50 + number)
    lines = [f"{n}.png,{'ab'[n % 2]},P{n // 2},S{n // 2}.svs" for n in range(8)]
    (tmp_path / "lab/tiles.csv").write_text("\n".join(["path,label,patient,slide", *lines]) + "\n")
    split = {"scheme": "held_out_patients", "test": ["P0"], "val": ["P1"]}
    TileClassification(str(tmp_path / "lab/tiles.csv"), split=split, subset="train").split.save(tmp_path / "s.json")
    folder = UnlabelledTiles(str(tmp_path / "pool"), SIZE, held_out=tmp_path / "s.json")
    assert ["8 of 8 tiles may be of patients" in text for text in folder.describe()["caveats"]] == [True]
    lines = [f"{n}.png,S{n // 2}" for n in range(8)]
    (tmp_path / "pool/tiles.csv").write_text("\n".join(["path,slide", *lines]) + "\n")
    with pytest.raises(LeakageError, match=r"4 of 8 tiles .* slide 'S0' \(0\.png\) stands in 'test'"):
        UnlabelledTiles(str(tmp_path / "pool"), SIZE, held_out=tmp_path / "s.json")
    rest = UnlabelledTiles(str(tmp_path / "pool"), SIZE, held_out=tmp_path / "s.json", leave_out_tested=True)
    assert len(rest) == 4 and rest.describe()["caveats"] == []
