"""Splits: property tests, an exhaustive search as the yardstick, and every error by what it says."""

import itertools
import json
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathzoo.datasets.leakage import group_of, refuse_overlap
from pathzoo.datasets.splits import Split, SplitItem, SplitWarning, Subset, check_leakage, resolve_split
from pathzoo.errors import ConfigError, DataError, LeakageError

CLASSES = ("benign", "malignant")
KFOLD = {"scheme": "patient_kfold", "k": 5, "fold": 0, "seed": 0}
RATIO = {"scheme": "patient_ratio", "ratios": {"train": 0.6, "val": 0.2, "test": 0.2}, "seed": 0}


def item(patient, number, label, sha=None):
    name = f"{patient}/{number}.png"
    return SplitItem(name, label, sha or f"sha of {name}", patient)


def cohort(sizes):
    """Items of patients p0, p1, ... with (label, images) each."""
    return [item(f"p{p}", n, label) for p, (label, count) in enumerate(sizes) for n in range(count)]


def patients_of(split, items):
    return {name: {i.group for i in items if i.item in part.items} for name, part in split.subsets.items()}


def counts_of(split, items, subset):
    return Counter(i.label for i in items if i.item in split.subsets[subset].items)


# At least five patients of each of two classes, so that every fold can hold both.
cohorts = st.tuples(
    st.lists(st.integers(1, 12), min_size=5, max_size=9), st.lists(st.integers(1, 12), min_size=5, max_size=9)
).map(lambda sizes: cohort([(0, n) for n in sizes[0]] + [(1, n) for n in sizes[1]]))


@settings(max_examples=40, deadline=None)
@given(items=cohorts, seed=st.integers(0, 5), wanted=st.sampled_from([KFOLD, RATIO]), shuffler=st.randoms())
def test_subsets_are_disjoint_by_patient_cover_all_hold_every_class_and_ignore_the_order(items, seed, wanted, shuffler):
    split = resolve_split(items, {**wanted, "seed": seed}, CLASSES)
    patients = patients_of(split, items)
    assert set(patients) == {"train", "val", "test"}
    for one, other in itertools.combinations(patients, 2):
        assert not patients[one] & patients[other]
    assert sorted(name for part in split.subsets.values() for name in part.items) == sorted(i.item for i in items)
    for name, part in split.subsets.items():
        assert set(counts_of(split, items, name)) == {0, 1}
        assert set(part.groups) == patients[name]
    again = list(items)
    shuffler.shuffle(again)
    assert resolve_split(again, {**wanted, "seed": seed}, CLASSES).digest == split.digest


@settings(max_examples=20, deadline=None)
@given(items=cohorts, seed=st.integers(0, 3))
def test_each_image_is_tested_once_and_validated_once_over_the_folds(items, seed):
    splits = [resolve_split(items, {**KFOLD, "fold": fold, "seed": seed}, CLASSES) for fold in range(5)]
    for subset in ("test", "val"):
        assert Counter(n for s in splits for n in s.subsets[subset].items) == Counter(i.item for i in items)
    for fold, split in enumerate(splits):
        assert split.subsets["val"].items == splits[(fold + 1) % 5].subsets["test"].items


def deviation(items, place, targets):
    """Sum over subsets of (share - target)^2 / target: of images and patients of each class, and of all patients."""
    total = 0.0
    for unit, labels in ((lambda i: i.item, {0}), (lambda i: i.item, {1}), (lambda i: i.group, {0}),
                         (lambda i: i.group, {1}), (lambda i: i.group, {0, 1})):  # fmt: skip
        everything = {unit(i) for i in items if i.label in labels}
        for subset, target in enumerate(targets):
            part = {unit(i) for i in items if i.label in labels and place[i.group] == subset}
            total += (len(part) / len(everything) - target) ** 2 / target
    return total


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=6, max_size=7),
    wanted=st.sampled_from([{"train": 0.6, "val": 0.2, "test": 0.2}, {"train": 0.5, "val": 0.25, "test": 0.25}]),
)
def test_class_balance_is_close_to_the_best_of_all_possible_assignments(sizes, wanted):
    items = cohort([(n % 2, size) for n, size in enumerate(sizes)])
    split = resolve_split(items, {**RATIO, "ratios": wanted}, CLASSES)
    found = {p: list(wanted).index(name) for name, ps in patients_of(split, items).items() for p in ps}
    targets = list(wanted.values())
    names = sorted(found)
    best = min(
        deviation(items, dict(zip(names, place, strict=True)), targets)
        for place in itertools.product(range(3), repeat=len(names))
        if all(  # every class in every subset, where there are patients enough for it: that comes first
            {int(n[1:]) % 2 for n, p in zip(names, place, strict=True) if p == s} == {0, 1} for s in range(3)
        )
    )
    assert deviation(items, found, targets) <= 1.1 * best


def test_large_cohort_is_stratified_within_two_percent():
    items = cohort([(0, 10 + n % 7) for n in range(60)] + [(1, 15 + n % 11) for n in range(140)])
    split = resolve_split(items, KFOLD, CLASSES)
    whole = Counter(i.label for i in items)
    for subset, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
        for label, count in counts_of(split, items, subset).items():
            assert count / whole[label] == pytest.approx(share, abs=0.02)


def test_another_seed_gives_another_split():
    items = cohort([(n % 2, 3) for n in range(20)])
    tests = {
        tuple(sorted(resolve_split(items, {**KFOLD, "seed": s}, CLASSES).subsets["test"].groups)) for s in range(5)
    }
    assert len(tests) == 5


def test_the_largest_patient_does_not_always_fall_into_the_same_fold():
    items = cohort([(0, 50)] + [(n % 2, 3) for n in range(1, 20)])
    split = [resolve_split(items, {**KFOLD, "seed": s}, CLASSES) for s in range(12)]
    assert {next(n for n, p in patients_of(s, items).items() if "p0" in p) for s in split} == {"train", "val", "test"}


def test_unknown_patients_are_one_group_and_are_reported():
    items = cohort([(n % 2, 3) for n in range(12)]) + [SplitItem(f"u{n}.png", n % 2, f"u{n}") for n in range(4)]
    with pytest.warns(SplitWarning, match=r"4 images have no known patient; they count as one group \(4 in "):
        split = resolve_split(items, KFOLD, CLASSES)
    assert split.n_unknown_patients_items == 4
    assert [part.groups.count("unknown") for part in split.subsets.values()].count(1) == 1


def test_too_few_patients_is_an_error_that_counts_them():
    items = [*cohort([(0, 30), (1, 30)]), SplitItem("u.png", 0, "u")]
    with pytest.raises(DataError, match=r"5 patient-disjoint .* 2 known patients and one group of images without"):
        resolve_split(items, KFOLD, CLASSES)


def test_a_class_with_too_few_patients_warns_and_names_the_subset():
    items = cohort([(0, 3)] * 8 + [(1, 3)])
    with pytest.warns(SplitWarning, match=r"no image of class 'malignant' in .* 1 patient group"):
        resolve_split(items, KFOLD, CLASSES)


def test_no_image_at_all():
    with pytest.raises(DataError, match=r"no image to split"):
        resolve_split([], KFOLD, CLASSES)


# --- label fractions -------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(items=cohorts, fraction=st.sampled_from([0.1, 0.25, 0.35, 0.5]), seed=st.integers(0, 3))
def test_equal_label_fraction_has_the_documented_count_and_the_rest_is_unlabelled(items, fraction, seed):
    whole = resolve_split(items, {**KFOLD, "seed": seed}, CLASSES)
    classes = counts_of(whole, items, "train")
    count = int(fraction * sum(classes.values()) / 2 + 1e-9)
    wanted = {**KFOLD, "seed": seed, "label_fraction": fraction}
    if count == 0 or count > min(classes.values()):
        with pytest.raises(ConfigError, match=f"label_fraction={fraction}"):
            resolve_split(items, wanted, CLASSES)
        return
    split = resolve_split(items, wanted, CLASSES)
    assert counts_of(split, items, "train") == {0: count, 1: count}
    both = {**split.subsets["train"].items, **split.subsets["unlabelled"].items}
    assert both == whole.subsets["train"].items
    for subset in ("val", "test"):
        assert split.subsets[subset].items == whole.subsets[subset].items


def test_five_percent_of_the_study_are_154_of_each_class():
    items = [item(f"p{c}{n}", k, c) for c in range(3) for n in range(35) for k in range(88)]
    items += [item(f"q{c}", k, c) for c in range(3) for k in range(10)]
    split = resolve_split(
        items, {"scheme": "by_image_leaky", "ratios": {"train": 1.0, "test": 0.0}}, ("benign", "adh", "dcis")
    )
    assert len(split.subsets["train"].items) == len(items)
    only = [i for i in items if i.group.startswith("p")]
    wanted = {"scheme": "by_image_leaky", "ratios": {"train": 1.0, "test": 0.0}, "label_fraction": 0.05}
    assert counts_of(resolve_split(only, wanted, ("benign", "adh", "dcis")), only, "train") == {0: 154, 1: 154, 2: 154}


@pytest.mark.parametrize("grouping", ["image", "patient"])
def test_smaller_fractions_lie_within_larger_ones(grouping):
    items = cohort([(n % 2, 8) for n in range(20)])
    wanted = {**KFOLD, "label_grouping": grouping}
    parts = [
        set(resolve_split(items, {**wanted, "label_fraction": f}, CLASSES).subsets["train"].items)
        for f in (0.1, 0.3, 0.7, 1.0)
    ]
    assert all(small < large for small, large in itertools.pairwise(parts))


def test_label_grouping_spreads_over_patients_or_takes_them_whole():
    items = cohort([(n % 2, 8) for n in range(20)])
    taken = {}
    for grouping in ("image", "patient"):
        split = resolve_split(items, {**KFOLD, "label_fraction": 0.25, "label_grouping": grouping}, CLASSES)
        taken[grouping] = Counter(i.group for i in items if i.item in split.subsets["train"].items)
    assert len(taken["image"]) == 12 and set(taken["image"].values()) == {2}  # 12 of each class over 6 patients
    assert len(taken["patient"]) == 4 and sorted(taken["patient"].values()) == [4, 4, 8, 8]


def test_proportional_fraction_keeps_the_imbalance():
    items = cohort([(0, 10)] * 10 + [(1, 30)] * 10)
    split = resolve_split(items, {**KFOLD, "label_fraction": 0.5, "label_balance": "proportional"}, CLASSES)
    assert counts_of(split, items, "train") == {0: 30, 1: 90}
    with pytest.raises(ConfigError, match=r"wants 108 .* 'benign', but there are 60: at most 0.5 is possible"):
        resolve_split(items, {**KFOLD, "label_fraction": 0.9}, CLASSES)


# --- leakage ---------------------------------------------------------------------------------------


def test_patient_on_both_sides_is_named_with_both_subsets():
    split = Split(
        "patient_ratio",
        {"train": Subset({"a.png": "1"}, ("p7",)), "test": Subset({"b.png": "2"}, ("p7",))},
        CLASSES,
    )
    with pytest.raises(LeakageError, match=r"patient 'p7' stands in train and in test"):
        check_leakage(split)
    hidden = Split("patient_ratio", {"train": Subset({"a.png": "1"}), "test": Subset({"b.png": "2"})}, CLASSES)
    check_leakage(hidden)
    with pytest.raises(LeakageError, match=r"'p7' stands in train \(a.png\) and in test \(b.png\)"):
        check_leakage(hidden, [SplitItem("a.png", 0, "1", "p7"), SplitItem("b.png", 0, "2", "p7")])


def test_identical_bytes_on_both_sides_are_named_with_both_files():
    items = cohort([(n % 2, 4) for n in range(10)])
    items = [SplitItem(i.item, i.label, "same" if i.item.endswith("/0.png") else i.sha256, i.patient) for i in items]
    with pytest.raises(
        LeakageError, match=r"p\d/0.png \((train|val|test)\) and p\d/0.png \(\w+\) hold identical bytes"
    ):
        resolve_split(items, KFOLD, CLASSES)
    with pytest.raises(LeakageError, match=r"hold identical bytes"):
        resolve_split(items, {"scheme": "by_image_leaky"}, CLASSES)


def test_identical_bytes_on_one_side_are_no_leakage():
    split = Split(
        "patient_ratio",
        {
            "train": Subset({"a.png": "1"}, ("p",)),
            "unlabelled": Subset({"b.png": "1"}, ("p",)),
            "test": Subset({"c.png": "2"}, ("q",)),
        },
        CLASSES,
    )
    check_leakage(split)


def test_split_by_image_warns_that_scores_are_inflated_and_is_stratified():
    items = cohort([(0, 10)] * 4 + [(1, 15)] * 4)
    with pytest.warns(SplitWarning, match=r"8 of 8 patients stand on more than one side, so the scores are inflated"):
        split = resolve_split(items, {"scheme": "by_image_leaky"}, CLASSES)
    assert split.group_key == "image"
    for subset, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        assert counts_of(split, items, subset) == {0: 40 * share, 1: 60 * share}


# --- the official hold-outs ------------------------------------------------------------------------

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
    text = r"1 patients .* 22549 \(SOB_B_A-14-22549AB train, SOB_B_A-14-22549CD test\)$"
    with pytest.warns(SplitWarning, match=text):
        split = resolve_split(items, {"scheme": "official_slide_groups", "file": str(file)}, CLASSES)
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


# --- files -----------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    items = cohort([(n % 2, 4) for n in range(10)])
    split = resolve_split(items, {**KFOLD, "label_fraction": 0.5}, CLASSES)
    split.save(tmp_path / "splits.json")
    return items, split, tmp_path / "splits.json"


def test_saved_split_comes_back_and_has_the_promised_form(saved):
    items, split, path = saved
    assert resolve_split(items, path, CLASSES) == split
    assert resolve_split(items, str(path), CLASSES).digest == split.digest
    content = json.loads(path.read_text())
    names = "format scheme seed group_key parameters classes n_unknown_patients_items subsets digest"
    assert list(content) == names.split()
    assert (
        content["format"] == 1 and content["group_key"] == "patient" and content["parameters"]["label_fraction"] == 0.5
    )
    assert set(content["subsets"]["test"]) == {"groups", "items"}


def test_a_changed_file_is_refused(saved):
    items, _, path = saved
    content = json.loads(path.read_text())
    name, sha = content["subsets"]["test"]["items"].popitem()
    content["subsets"]["train"]["items"][name] = sha
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"changed after it was saved"):
        resolve_split(items, path, CLASSES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not a split file"),
        ("[]", "found 'list'"),
        ('{"format": 2}', "found 2"),
        ('{"format": 1}', "'scheme' is missing"),
    ],
)
def test_what_is_not_a_split_is_refused(tmp_path, text, message):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(DataError, match=message):
        Split.load(tmp_path / "s.json")


def test_no_such_split_file(tmp_path):
    with pytest.raises(ConfigError, match=r"no such split file"):
        resolve_split(cohort([(0, 1)]), tmp_path / "none.json", CLASSES)


def test_saved_split_on_other_data(saved):
    items, split, path = saved
    with pytest.raises(DataError, match=r"names 5 images that the data lacks .*p0/0.png, p0/1.png, p0/2.png, \.\.\."):
        resolve_split([i for i in items if i.group != "p0" and i.item != "p1/0.png"], path, CLASSES)
    gone = {i.item for i in items if i.group == "p0"}
    assert resolve_split([i for i in items if i.item not in gone], path, CLASSES, left_out=gone) == split
    other = [SplitItem(i.item, i.label, "new" if i.item == "p3/2.png" else i.sha256, i.patient) for i in items]
    with pytest.raises(DataError, match=r"bytes of 1 images changed .*p3/2.png"):
        resolve_split(other, path, CLASSES)
    with pytest.raises(DataError, match=r"made for the classes"):
        resolve_split(items, path, ("malignant", "benign"))
    with pytest.warns(SplitWarning, match=r"does not name 1 images of the data .p99/0.png"):
        resolve_split([*items, item("p99", 0, 1)], path, CLASSES)


def test_saved_split_is_held_against_the_patients_as_they_are_now(saved):
    items, split, path = saved
    test, train = split.subsets["test"].groups[0], split.subsets["train"].groups[0]
    merged = [SplitItem(i.item, i.label, i.sha256, train if i.group == test else i.patient) for i in items]
    with pytest.raises(LeakageError, match=f"patient '{train}' stands in"):
        resolve_split(merged, path, CLASSES)


# --- bad requests ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"scheme": "patient_kfolds"}, "unknown scheme 'patient_kfolds'; did you mean 'patient_kfold'"),
        ({"k": 5}, "give scheme="),
        ({**KFOLD, "flod": 1}, "no key 'flod'; did you mean 'fold'"),
        ({**KFOLD, "k": 2}, "k=2 .* give 3 or more"),
        ({**KFOLD, "fold": 5}, "fold=5 .* give 0 to k - 1"),
        ({**KFOLD, "seed": "x"}, "seed='x'"),
        ({**KFOLD, "label_fraction": 0}, "label_fraction=0 .* above 0"),
        ({**KFOLD, "label_balance": "same"}, "label_balance='same'"),
        ({"scheme": "patient_ratio", "ratios": {"train": 0.5, "test": 0.4}}, "ratios=.* sum 1"),
        ({"scheme": "patient_ratio", "ratios": {"train": 0.5, "tset": 0.5}}, "ratios="),
        ({"scheme": "official_slide_groups"}, "file=None .* give a hold-out file"),
        ({"scheme": "none", "k": 5}, "scheme none has no key 'k'"),
    ],
)
def test_bad_request_names_key_value_and_remedy(split, message):
    with pytest.raises(ConfigError, match=message):
        resolve_split(cohort([(n % 2, 3) for n in range(12)]), split, CLASSES)


def test_scheme_none_has_everything_in_all():
    items = cohort([(0, 2), (1, 3)])
    assert set(resolve_split(items, {"scheme": "none"}, CLASSES).subsets["all"].items) == {i.item for i in items}


def test_splits_and_inventory_load_no_torch_and_no_openmmlab():
    code = "import sys, pathzoo.datasets.splits, pathzoo.datasets.inventory; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "mmengine", "mmcv", "cv2"} & set(loaded)


def test_every_patient_stands_in_exactly_one_fold_even_with_both_classes():
    items = [item(f"p{p}", n, n % 2) for p in range(7) for n in range(p + 2)]
    places = defaultdict(set)
    for fold in range(5):
        split = resolve_split(items, {**KFOLD, "fold": fold}, CLASSES)
        for patient in split.subsets["test"].groups:
            places[patient].add(fold)
    assert all(len(folds) == 1 for folds in places.values()) and len(places) == 7


def infos_of(items):
    return [{"item": i.item, "patient": i.patient, "sha256": i.sha256} for i in items]


@pytest.fixture
def folds():
    items = cohort([(0, 3), (1, 3)] * 3)
    return items, [resolve_split(items, {"scheme": "patient_kfold", "k": 3, "fold": f}, CLASSES) for f in (0, 1)]


def test_evaluating_another_fold_than_the_trained_one_is_refused(folds):
    items, (trained, other) = folds
    for subset in ("test", "val"):
        refuse_overlap(trained, infos_of(i for i in items if i.item in trained.subsets[subset].items), subset, "s.json")
    wrong = [i for i in items if i.item in other.subsets["val"].items]  # fold 2: trained on by fold 0
    overlap = [i for i in wrong if i.item in trained.subsets["train"].items]
    assert overlap
    with pytest.raises(LeakageError) as error:
        refuse_overlap(trained, infos_of(wrong), "val", "run/s.json")
    text = str(error.value)
    assert f"subset 'val' holds {len(overlap)} images (of {len(wrong)})" in text and "run/s.json" in text
    assert f"patient {overlap[0].patient!r} ({overlap[0].item}) stands in 'train'" in text
    assert "same fold and split options" in text and "\n" not in text


def test_new_images_of_a_trained_patient_and_renamed_copies_are_refused_but_unknown_patients_are_not_one(folds):
    items, (trained, _) = folds
    seen = next(i for i in items if i.item in trained.subsets["train"].items)
    new = {"item": "new.png", "patient": seen.patient, "sha256": "f" * 64}
    with pytest.raises(LeakageError, match=r"patient .* \(new\.png\) stands in 'train'"):
        refuse_overlap(trained, [new], "all", "s.json")
    copy = {"item": "copy.png", "patient": None, "sha256": seen.sha256}
    with pytest.raises(LeakageError, match=f"copy.png has the bytes of {seen.item} in 'train'"):
        refuse_overlap(trained, [copy], "all", "s.json")
    part = trained.subsets["train"]
    unknown = replace(trained, subsets={"train": replace(part, groups=(*part.groups, "unknown"))})
    refuse_overlap(unknown, [{"item": "new.png", "patient": None, "sha256": "f" * 64}], "all", "s.json")


@pytest.mark.parametrize("name", ["unlabelled", "all"])
def test_the_unlabelled_rest_and_a_run_on_everything_count_as_trained_on(folds, name):
    items, (trained, _) = folds
    renamed = replace(trained, subsets={name: trained.subsets["train"], "test": trained.subsets["test"]})
    with pytest.raises(LeakageError, match=f"stands in '{name}'"):
        refuse_overlap(renamed, infos_of(items), "all", "s.json")


def test_split_by_image_counts_bytes_alone_and_official_groups_count_slide_folders(folds, tmp_path):
    items, _ = folds
    ratios = {"train": 0.5, "test": 0.5}
    with pytest.warns(SplitWarning):
        leaky = resolve_split(items, {"scheme": "by_image_leaky", "ratios": ratios}, CLASSES)
    refuse_overlap(leaky, infos_of(i for i in items if i.item in leaky.subsets["test"].items), "test", "s.json")
    with pytest.raises(LeakageError, match="has the bytes of"):
        refuse_overlap(leaky, infos_of(items), "all", "s.json")

    def of_slide(name, sha):
        return {"item": f"x/{name}", "patient": "22549", "sha256": sha * 64}

    trained = [SplitItem("SOB_B_A-14-22549AB-40-001.png", 0, "a" * 64, "22549")]
    part = Subset({i.item: i.sha256 for i in trained}, tuple(group_of(i, "slide") for i in trained))
    official = Split("official_slide_groups", {"train": part}, CLASSES, group_key="slide")
    refuse_overlap(official, [of_slide("SOB_B_A-14-22549CD-40-001.png", "b")], "test", "s.json")
    with pytest.raises(LeakageError, match=r"slide folder .*22549AB.* stands in 'train'"):
        refuse_overlap(official, [of_slide("SOB_B_A-14-22549AB-100-002.png", "b")], "test", "s.json")
