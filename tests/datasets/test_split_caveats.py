"""What a split of labelled and unlabelled images says of classes that its labels do not show."""

import warnings

import pytest
from split_cohorts import CLASSES

from pathzoo.datasets.splits import SplitItem, resolve_split

SPLIT = {"scheme": "held_out_patients", "test": ["p0"], "label_fraction": 0.25, "label_balance": "proportional"}


@pytest.mark.parametrize("place", [1, 2, 3, 4])
def test_a_class_that_only_labels_kept_back_show_is_named(place):
    # All are dealt by class 1, so one of four is labelled whatever it shows; class 0 is in one of them and in the test.
    shown = [(0, 1) if number in (0, place) else (1,) for number in range(5)]
    items = [SplitItem(f"{number}.png", 1, f"sha{number}", f"p{number}", own) for number, own in enumerate(shown)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        split = resolve_split(items, SPLIT, CLASSES)
    text = f"no labelled training image shows class {CLASSES[0]!r}, 1 whose labels are kept back do: no model can"
    taught = f"{place}.png" in split.subsets["train"].items
    assert any(str(one.message).startswith(text) for one in caught) is not taught
