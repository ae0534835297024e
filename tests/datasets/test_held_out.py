"""The scheme held_out_patients: exactly the patients named are held out, or the error says why not."""

import pytest
from split_cohorts import CLASSES, cohort, item

from pathzoo.datasets.splits import Split, resolve_split
from pathzoo.errors import ConfigError, DataError

HELD = {"scheme": "held_out_patients"}


@pytest.fixture
def items():
    return cohort([(n % 2, 3) for n in range(8)])


def test_exactly_the_patients_named_are_held_out(items):
    names = sorted({one.patient for one in items})
    split = resolve_split(items, {**HELD, "test": names[:2], "val": names[2:3]}, CLASSES)
    assert set(split.subsets["test"].groups) == set(names[:2])
    assert set(split.subsets["val"].groups) == {names[2]}
    assert set(split.subsets["train"].groups) == set(names[3:])
    assert sum(len(part.items) for part in split.subsets.values()) == len(items)


def test_the_labelled_part_is_taken_of_those_trained_on(items):
    names = sorted({one.patient for one in items})
    wanted = {**HELD, "test": names[:2], "label_fraction": 0.5, "label_grouping": "patient"}
    split = resolve_split(items, wanted, CLASSES)
    assert set(split.subsets) == {"train", "test", "unlabelled"}
    assert set(split.subsets["train"].groups) | set(split.subsets["unlabelled"].groups) == set(names[2:])


def test_it_comes_back_from_a_file(items, tmp_path):
    split = resolve_split(items, {**HELD, "test": [items[0].patient]}, CLASSES)
    split.save(tmp_path / "splits.json")
    assert Split.load(tmp_path / "splits.json").digest == split.digest
    assert resolve_split(items, tmp_path / "splits.json", CLASSES).digest == split.digest


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({}, r"test=\(\) .* give a list of at least one patient"),
        ({"test": "p0"}, "test='p0' .* give a list"),
        ({"test": ["a", "b"], "val": ["b"]}, r"val=\['b'\] .* b would be tested on too"),
    ],
)
def test_bad_request(items, split, message):
    with pytest.raises(ConfigError, match=message):
        resolve_split(items, {**HELD, **split}, CLASSES)


def test_a_name_that_is_no_patients(items):
    name = items[0].patient
    with pytest.raises(DataError, match=rf"no image is of patient '{name}_'; did you mean"):
        resolve_split(items, {**HELD, "test": [f"{name}_"]}, CLASSES)


def test_nobody_left_and_nobody_known(items):
    with pytest.raises(DataError, match="nobody is left to train on"):
        resolve_split(items, {**HELD, "test": sorted({one.patient for one in items})}, CLASSES)
    stray = item(None, 99, 0)
    with pytest.raises(DataError, match=rf"the patient of {stray.item} \(1 such images\) is not known"):
        resolve_split([*items, stray], {**HELD, "test": [items[0].patient]}, CLASSES)
