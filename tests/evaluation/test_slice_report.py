"""Means over slices and patients against plain loops over masks."""

import json

import numpy as np
import pytest

from pathzoo.errors import DataError
from pathzoo.evaluation.functional import confusion_counts, resample_counts, slice_report

CLASSES = ("background", "kidney", "tumour")


def study(n_patients=9, n_slices=5, seed=0):
    """(truth, prediction, patient) of each slice; every third patient has a tumour, some are given one falsely."""
    rng = np.random.default_rng(seed)
    made = []
    for patient in range(n_patients):
        for number in range(n_slices):
            truth, guess = np.zeros((2, 20, 20), np.uint8)
            if number:  # the first slice of each shows background alone
                truth[4:12, 4:12] = 1
                guess[4 : 12 + rng.integers(-2, 4), 4:12] = 1
            if patient % 3 == 0 and number > 2:
                truth[9:14, 9:14] = 2
            if rng.random() < 0.15:
                guess[9 : 11 + rng.integers(0, 6), 9:14] = 2
            made.append((truth, guess, f"p{patient}"))
    made[3][0][:] = made[3][1][:] = 0
    return made


def loops(made):
    """(metric) -> the values that are averaged, one for each slice or patient that counts."""
    found = {}

    def note(name, value):
        found.setdefault(name, []).append(value)

    for truth, guess, _ in made:
        ious = {}
        for k, name in enumerate(CLASSES):
            either = int(((truth == k) | (guess == k)).sum())
            if either:
                ious[name] = int(((truth == k) & (guess == k)).sum()) / either
        note("slice_iou", np.mean(list(ious.values())))
        note("slice_iou_absent_1", np.mean([ious.get(name, 1.0) for name in CLASSES]))
        front = [ious[name] for name in CLASSES[1:] if name in ious]
        if front:
            note("slice_iou_foreground", np.mean(front))
        for name in CLASSES[1:]:
            if name in ious:
                note(f"slice_iou_{name}", ious[name])
    for patient in dict.fromkeys(each[2] for each in made):
        truth, guess = (np.stack([each[k] for each in made if each[2] == patient]) for k in (0, 1))
        for k in (1, 2):
            if (truth == k).any():
                both = ((truth == k) & (guess == k)).sum()
                note(f"patient_dice_{CLASSES[k]}", 2 * both / ((truth == k).sum() + (guess == k).sum()))
        if not (truth == 2).any():
            note("patient_false_tumour", float((guess == 2).any()))
    return found


def report(made, n_bootstrap=0, seed=0, patients=None):
    counts = np.stack([confusion_counts(truth, guess, 3) for truth, guess, _ in made])
    who = [each[2] for each in made] if patients is None else patients
    rows = slice_report(counts, who, CLASSES, n_bootstrap, seed)
    json.dumps(rows, allow_nan=False)
    named = {row["metric"]: row for row in rows}
    assert len(named) == len(rows)
    return named


def test_rows_equal_loops_over_masks():
    made = study()
    rows, expected = report(made), loops(made)
    assert set(rows) == set(expected)
    for name, values in expected.items():
        assert rows[name]["value"] == pytest.approx(np.mean(values)), name
        assert rows[name]["n"] == len(values), name
        assert rows[name]["level"] == name.split("_")[0]
    assert rows["slice_iou_absent_1"]["value"] > rows["slice_iou"]["value"] > rows["slice_iou_foreground"]["value"]
    assert 0 < rows["patient_false_tumour"]["value"] < 1  # the study holds both


def test_intervals_equal_a_loop_that_repeats_patients():
    made = study(12)
    rows = report(made, 80, 3)
    names = sorted({each[2] for each in made})
    drawn = {name: [] for name in rows}
    for counts in resample_counts(len(names), 80, 3):
        again = []
        for name, times in zip(names, counts, strict=True):
            for copy in range(times):  # each copy is a patient of its own
                again += [(truth, guess, f"{name}/{copy}") for truth, guess, patient in made if patient == name]
        values = loops(again)
        for name in drawn:
            drawn[name].append(np.mean(values[name]) if name in values else np.nan)
    for name, values in drawn.items():
        expected = np.nanpercentile(values, [2.5, 97.5])
        assert (rows[name]["low"], rows[name]["high"]) == pytest.approx(expected), name


def test_a_class_in_neither_one_or_both():
    """Four slices of 10 pixels, worked by hand: tumour in neither, in truth, in prediction, in both."""
    truth, guess = np.zeros((2, 4, 10), np.uint8)
    truth[:, :4] = guess[:, :4] = 1  # kidney right everywhere, background right unless the tumour takes of it
    truth[1, 4:6] = guess[2, 4:6] = truth[3, 4:6] = guess[3, 4:6] = 2
    rows = report([(truth[k], guess[k], f"p{k}") for k in range(4)])
    value = {name: row["value"] for name, row in rows.items()}
    assert value["slice_iou"] == pytest.approx((1 + 2 * (4 / 6 + 1 + 0) / 3 + 1) / 4)
    assert value["slice_iou_absent_1"] == pytest.approx(
        value["slice_iou"]
    )  # the class is absent where all others are right
    assert value["slice_iou_foreground"] == pytest.approx((1 + 0.5 + 0.5 + 1) / 4)
    assert (value["slice_iou_tumour"], rows["slice_iou_tumour"]["n"]) == (pytest.approx(1 / 3), 3)
    assert (value["patient_dice_tumour"], rows["patient_dice_tumour"]["n"]) == (0.5, 2)
    assert (value["patient_false_tumour"], rows["patient_false_tumour"]["n"]) == (0.5, 2)
    assert value["patient_dice_kidney"] == 1


def test_absent_as_1_differs_where_the_rest_is_wrong():
    truth, guess = np.zeros((2, 10), np.uint8)
    truth[:4], guess[:2] = 1, 1
    rows = report([(truth, guess, "p")])
    assert rows["slice_iou"]["value"] == pytest.approx((0.5 + 6 / 8) / 2)
    assert rows["slice_iou_absent_1"]["value"] == pytest.approx((0.5 + 6 / 8 + 1) / 3)


def test_nobody_has_the_class():
    truth = np.zeros((6, 6), np.uint8)
    rows = report([(truth, truth, "a"), (truth, truth, "b")], 50)
    for name in ("slice_iou_foreground", "slice_iou_tumour", "patient_dice_tumour"):
        assert (rows[name]["value"], rows[name]["n"]) == (None, 0) and rows[name]["note"]
    assert rows["slice_iou"]["value"] == 1
    assert (rows["patient_false_tumour"]["value"], rows["patient_false_tumour"]["n"]) == (0, 2)


def test_unknown_patients():
    made = study(4)
    known, none = report(made, 40), report(made, 40, patients=[None] * len(made))
    assert none["slice_iou"]["value"] == known["slice_iou"]["value"] and none["slice_iou"]["low"] is None
    assert "fewer than two known patients" in none["slice_iou"]["note"]
    assert none["patient_dice_kidney"]["value"] is None and none["patient_dice_kidney"]["n"] == 0
    some = [None if each[2] == "p0" else each[2] for each in made]
    mixed = report(made, 40, patients=some)
    assert "5 slices without a known patient are resampled as one group" in mixed["slice_iou"]["note"]
    assert "5 slices without a known patient are left out" in mixed["patient_dice_kidney"]["note"]
    assert mixed["patient_dice_kidney"]["n"] == 3


def test_slices_without_a_labelled_pixel_are_left_out():
    made = study(3)
    blank = np.full((20, 20), 255, np.uint8)
    more = [*made, (blank, np.ones((20, 20), np.uint8), "p0")]
    before, after = report(made), report(more)
    assert {name: (row["value"], row["n"]) for name, row in before.items()} == {
        name: (row["value"], row["n"]) for name, row in after.items()
    }


def test_what_does_not_fit_is_refused():
    with pytest.raises(DataError, match="no slices to evaluate"):
        slice_report(np.zeros((0, 3, 3)), [], CLASSES)
    with pytest.raises(DataError, match=r"counts \(2, 3, 3\) do not fit 2 classes"):
        slice_report(np.ones((2, 3, 3)), ["a", "b"], CLASSES[:2])
    with pytest.raises(DataError, match="1 patients for 2 slices"):
        slice_report(np.ones((2, 3, 3)), ["a"], CLASSES)
