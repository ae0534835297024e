"""Few labels are few for validation too: `val_label_fraction` thins it, and what it leaves out serves nobody."""

import warnings

import pytest
from split_cohorts import CLASSES, cohort, item

from pathzoo.datasets.leakage import held_out_by
from pathzoo.datasets.splits import Split, resolve_split
from pathzoo.errors import ConfigError, LeakageError

RATIOS = {"scheme": "patient_ratio", "ratios": {"train": 0.4, "val": 0.3, "test": 0.3}}


@pytest.fixture
def items():
    return cohort([(n % 2, 20) for n in range(20)])  # 6 patients validate: 120 images


def split_of(items, **keys):
    return resolve_split(items, {**RATIOS, **keys}, CLASSES)


@pytest.mark.parametrize(("fraction", "count"), [(0.05, 6), (0.25, 30), (0.5, 60)])
def test_validation_keeps_exactly_its_share_of_every_class(items, fraction, count):
    split, whole = split_of(items, val_label_fraction=fraction), split_of(items)
    kept = split.subsets["val"].items
    labels = [one.label for one in items if one.item in kept]
    assert [labels.count(label) for label in range(len(CLASSES))] == [count // 2, count // 2]
    assert {**kept, **split.subsets["val_unlabelled"].items} == whole.subsets["val"].items
    assert {name: split.subsets[name] for name in ("train", "test")} == {
        name: whole.subsets[name] for name in ("train", "test")
    }


def test_smaller_fractions_are_parts_of_larger_ones(items):
    few, more = (set(split_of(items, val_label_fraction=share).subsets["val"].items) for share in (0.05, 0.25))
    assert few < more


def test_all_of_it_leaves_earlier_digests_alone(items):
    split = split_of(items, val_label_fraction=1.0)
    assert split.digest == split_of(items).digest
    assert "val_label_fraction" not in split.parameters


def test_it_comes_back_from_a_file_without_a_warning(items, tmp_path):
    split = split_of(items, val_label_fraction=0.25, label_fraction=0.25)
    split.save(tmp_path / "splits.json")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve_split(items, tmp_path / "splits.json", CLASSES).digest == split.digest
    assert Split.load(tmp_path / "splits.json").parameters["val_label_fraction"] == 0.25


def test_nothing_learns_from_patients_whose_validation_labels_were_left_out(items):
    split = split_of(items, val_label_fraction=0.05)
    only_there = set(split.subsets["val_unlabelled"].groups) | set(split.subsets["val"].groups)
    patient = sorted(set(split.subsets["val_unlabelled"].groups) - set(split.subsets["val"].groups) or only_there)[0]
    new = item(patient, 999, label=0)
    info = {"item": new.item, "patient": patient, "sha256": new.sha256}
    assert [name for name, _ in held_out_by(split, [info])] == [new.item]
    with pytest.raises(LeakageError, match=patient):
        resolve_split(items, {**RATIOS, "val_label_fraction": 0.05}, CLASSES, unlabelled=[new])


def test_too_small_and_impossible_fractions_name_their_key(items):
    with pytest.raises(ConfigError, match=r"val_label_fraction=0\.001 of 120 validation images leaves none of"):
        split_of(items, val_label_fraction=0.001)
    with pytest.raises(ConfigError, match="val_label_fraction=0 of the scheme patient_ratio: give above 0"):
        split_of(items, val_label_fraction=0)


def test_without_validation_there_is_nothing_to_thin(items):
    ratios = {"scheme": "patient_ratio", "ratios": {"train": 0.5, "test": 0.5}, "val_label_fraction": 0.25}
    assert set(resolve_split(items, ratios, CLASSES).subsets) == {"train", "test"}
