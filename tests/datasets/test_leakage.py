"""Leakage: who may not stand on two sides, and who may not be evaluated on."""

from dataclasses import replace

import pytest
from split_cohorts import CLASSES, KFOLD, cohort

from pathzoo.datasets.leakage import group_of, refuse_choosing_on_test, refuse_overlap
from pathzoo.datasets.splits import Split, SplitItem, SplitWarning, Subset, check_leakage, resolve_split
from pathzoo.errors import LeakageError


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


def test_a_run_may_not_choose_its_checkpoint_on_its_own_test_patients(folds):
    items, (split, _) = folds
    refuse_choosing_on_test(split, infos_of(i for i in items if i.item in split.subsets["val"].items))
    test = [i for i in items if i.item in split.subsets["test"].items]
    with pytest.raises(
        LeakageError, match=rf"validation holds {len(test)} images .* first: patient {test[0].patient!r}"
    ):
        refuse_choosing_on_test(split, infos_of(test))
