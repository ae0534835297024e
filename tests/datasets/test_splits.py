"""Splits: property tests, an exhaustive search as the yardstick, and every error by what it says."""

import itertools
import subprocess
import sys
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from split_cohorts import CLASSES, KFOLD, RATIO, cohort, item, patients_of

from pathzoo.datasets.splits import SplitItem, SplitWarning, caveats, resolve_split
from pathzoo.errors import ConfigError, DataError


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


@pytest.mark.parametrize(
    "one, other", [("P7", "p7"), ("P7", " P07"), ("P-7", "P_007"), ("7", "\uff17"), ("S 1.07", "s-1-7")]
)
def test_patients_on_two_sides_whose_names_differ_in_writing_alone_are_pointed_out(one, other):
    items = [SplitItem(f"{n}.png", n % 2, f"s{n}", p) for n, p in enumerate([one, other, "a", "b"])]
    named = {"scheme": "held_out_patients", "test": [other], "val": ["b"]}
    with pytest.warns(SplitWarning, match=r"1 patient\(s\) .* written differently") as caught:
        resolve_split(items, named, ())
    assert sum(repr(one) in str(w.message) and repr(other) in str(w.message) for w in caught) == 1
    split = resolve_split(items, named, ())
    assert not any(repr(one) in text or repr(other) in text for text in caveats(split, items)), "records name nobody"


@pytest.mark.parametrize("one, other", [("P1", "P10"), ("P1-1", "P11"), ("a", "b"), ("14-2A", "14-2B"), ("70", "7")])
def test_patients_of_other_names_are_not(one, other, recwarn):
    items = [SplitItem(f"{n}.png", n % 2, f"s{n}", p) for n, p in enumerate([one, other, "x", "y"])]
    resolve_split(items, {"scheme": "held_out_patients", "test": [other], "val": ["y"]}, ())
    assert not [w for w in recwarn if "written differently" in str(w.message)]


def test_patients_of_one_side_may_be_written_as_they_like(recwarn):
    items = [SplitItem(f"{n}.png", n % 2, f"s{n}", p) for n, p in enumerate(["P7", "p7", "x", "y"])]
    resolve_split(items, {"scheme": "held_out_patients", "test": ["x"], "val": ["y"]}, ())
    assert not [w for w in recwarn if "written differently" in str(w.message)]


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


@pytest.mark.parametrize("balance", ["equal", "proportional"])
def test_a_class_that_a_fraction_cannot_show_is_named(balance):
    classes = ("benign", "ADH", "DCIS")
    held = {"scheme": "held_out_patients", "test": ["p4"], "label_fraction": 0.25, "label_balance": balance}
    items = cohort([(0, 20), (0, 20), (2, 20), (2, 20), (1, 20)])  # the one patient with ADH is held out
    with pytest.raises(ConfigError, match=r"label_fraction=0\.25: none of the 80 training images .* 'ADH'"):
        resolve_split(items, held, classes)
    few = cohort([(0, 20), (1, 20), (2, 20)])
    every = {"scheme": "by_image_leaky", "ratios": {"train": 1.0, "test": 0.0}, "label_fraction": 0.01}
    if balance == "equal":  # else one image of each class stays
        with pytest.raises(ConfigError, match=r"label_fraction=0\.01 of 60 training images leaves none of 'benign'"):
            resolve_split(few, every, classes)


def test_split_by_image_warns_that_scores_are_inflated_and_is_stratified():
    items = cohort([(0, 10)] * 4 + [(1, 15)] * 4)
    with pytest.warns(SplitWarning, match=r"8 of 8 patients stand on more than one side, so the scores are inflated"):
        split = resolve_split(items, {"scheme": "by_image_leaky"}, CLASSES)
    assert split.group_key == "image"
    for subset, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        assert counts_of(split, items, subset) == {0: 40 * share, 1: 60 * share}


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
