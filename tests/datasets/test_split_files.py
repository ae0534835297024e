"""Splits as files: what is saved comes back, what was changed or fits no longer is refused."""

import json

import pytest
from split_cohorts import CLASSES, KFOLD, cohort, item

from pathzoo.datasets.splits import Split, SplitItem, SplitWarning, caveats, resolve_split
from pathzoo.errors import ConfigError, DataError, LeakageError


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
    assert set(content["subsets"]["test"]) == {"groups", "items", "origins"}
    for part in content["subsets"].values():  # as earlier versions wrote it
        del part["origins"]
    path.write_text(json.dumps(content))
    assert resolve_split(items, path, CLASSES).digest == split.digest


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


def test_a_file_whose_subsets_are_no_subsets_is_refused(saved):
    _, _, path = saved
    for bad in ([], {"test": []}, {"test": {"items": {}, "groups": [], "origins": {"slide": 1}}}):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"subsets": bad}))
        with pytest.raises(DataError, match="is not a split file"):
            Split.load(path)


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
    more = [*items, item("p99", 0, 1)]
    with pytest.warns(SplitWarning, match=r"in no subset: p99/0\.png$"):
        found = resolve_split(more, path, CLASSES)
    assert caveats(found, more) == ["the split does not name 1 images of the data: they are in no subset"]


def test_saved_split_is_held_against_the_patients_as_they_are_now(saved):
    items, split, path = saved
    test, train = split.subsets["test"].groups[0], split.subsets["train"].groups[0]
    merged = [SplitItem(i.item, i.label, i.sha256, train if i.group == test else i.patient) for i in items]
    with pytest.raises(LeakageError, match=f"patient '{train}' stands in"):
        resolve_split(merged, path, CLASSES)
