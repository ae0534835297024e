"""Counts of pixels and what follows from them, against sets of pixels by the measures' definitions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathzoo.errors import DataError
from pathzoo.evaluation.functional import RegionTally, confusion_counts
from pathzoo.evaluation.functional import segmentation as seg

NAN = float("nan")


@st.composite
def label_maps(draw):
    """Truth (with ignored pixels), prediction, C: few pixels, so classes are often absent from one or both."""
    n_classes = draw(st.integers(2, 5))
    n = draw(st.integers(1, 12))
    truth = draw(st.lists(st.sampled_from([*range(n_classes), 255]), min_size=n, max_size=n))
    prediction = draw(st.lists(st.integers(0, n_classes - 1), min_size=n, max_size=n))
    return np.array(truth, np.uint8), np.array(prediction, np.uint8), n_classes


def by_sets(truth, prediction, n_classes):
    """Per class |P and G|, |P or G|, |P|, |G| and the number of labelled pixels, from sets of pixel numbers."""
    pixels = [index for index, value in enumerate(truth) if value != 255]
    found = []
    for k in range(n_classes):
        G = {index for index in pixels if truth[index] == k}
        P = {index for index in pixels if prediction[index] == k}
        found.append((len(P & G), len(P | G), len(P), len(G)))
    return found, len(pixels)


def share(top, bottom):
    return top / bottom if bottom else NAN


def mean(values):
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else NAN


@given(label_maps())
@settings(max_examples=200, deadline=None)
def test_every_measure_equals_its_definition_on_sets(maps):
    truth, prediction, C = maps
    counts = confusion_counts(truth, prediction, C)
    sets, n = by_sets(truth, prediction, C)
    assert counts.dtype == np.int64
    assert counts.sum() == n
    iou = [share(both, either) for both, either, _, _ in sets]
    precision = [share(both, given) for both, _, given, _ in sets]
    recall = [share(both, true) for both, _, _, true in sets]
    # F1 as the harmonic mean where both exist and one is not 0; a class that is never hit has 0.
    f1 = [
        NAN if not either else 2 / (1 / p + 1 / r) if both else 0.0
        for (both, either, _, _), p, r in zip(sets, precision, recall, strict=True)
    ]
    # TP + TN of a class are all pixels but those that are in exactly one of P and G.
    accuracy = [share(n - (either - both), n) for both, either, _, _ in sets]
    occurring = [value for value, (_, either, _, _) in zip(accuracy, sets, strict=True) if either]
    for function, expected in ((seg.iou, iou), (seg.precision, precision), (seg.recall, recall), (seg.f1, f1)):
        np.testing.assert_allclose(function(counts), expected, err_msg=function.__name__)
    np.testing.assert_allclose(seg.accuracy(counts), accuracy)
    hit, either, given, true = (sum(parts) for parts in zip(*sets, strict=True))
    expected = [mean(iou), share(hit, either), mean(f1), share(2 * hit, given + true), mean(occurring)]
    np.testing.assert_allclose(seg.mean_values(counts), expected)


@given(label_maps())
@settings(max_examples=50, deadline=None)
def test_pixel_accuracy_is_micro_f1_and_one_vs_rest_accuracy_is_not(maps):
    truth, prediction, C = maps
    counts = confusion_counts(truth, prediction, C)
    occurring = int(seg.occurs(counts).sum())
    pixel = seg.pixel_accuracy(counts)
    np.testing.assert_allclose(pixel, seg.micro_f1(counts))
    if occurring:
        assert seg.mean_values(counts)[4] == pytest.approx(1 - 2 / occurring * (1 - pixel))


def test_accuracy_differs_from_pixel_accuracy_with_three_classes():
    counts = confusion_counts([0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 2, 0], 3)
    assert seg.pixel_accuracy(counts) == pytest.approx(4 / 6)
    assert seg.mean_values(counts)[4] == pytest.approx((4 / 6 + 5 / 6 + 5 / 6) / 3)


def test_a_class_in_neither_map_is_left_out_and_one_only_predicted_counts_with_zero():
    only_first = confusion_counts([0, 0], [0, 0], 3)
    assert seg.mean_values(only_first).tolist() == [1, 1, 1, 1, 1]
    np.testing.assert_array_equal(seg.iou(only_first), [1, NAN, NAN])
    invented = confusion_counts([0, 0], [0, 2], 3)
    np.testing.assert_array_equal(seg.iou(invented), [0.5, NAN, 0])
    assert seg.mean_values(invented)[0] == 0.25
    # A replicate that lacks a class of the full set is undefined, not another quantity.
    assert np.isnan(seg.mean_values(only_first, present=np.array([True, True, False]))[0])


def test_counts_stack_over_leading_axes():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 5, (4, 6, 3, 3))
    counts[0, 0] = 0
    values = seg.unit_values(counts)
    assert values.shape == (4, 6, 8) == (4, 6, len(seg.unit_names("abc")))
    assert np.isnan(values[0, 0]).all()
    for place in np.ndindex(4, 6):
        np.testing.assert_allclose(values[place], seg.unit_values(counts[place]))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_large_maps_of_any_integer_type(dtype):
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 3, (2, 700, 300)).astype(dtype)  # more than one block of pixels
    truth[:50] = 255
    expected = np.zeros((3, 3), int)
    np.add.at(expected, (truth[50:].ravel(), prediction[50:].ravel()), 1)
    np.testing.assert_array_equal(confusion_counts(truth, prediction, 3), expected)
    np.testing.assert_array_equal(confusion_counts(truth[:0], prediction[:0], 3), np.zeros((3, 3)))


def test_another_ignored_value():
    assert confusion_counts([7, 0, 1], [0, 0, 0], 2, ignore_index=7).tolist() == [[1, 0], [1, 0]]


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        ([0, 3], [0, 0], r"truth holds the value 3 \(1 pixels\), which is none of the 3 classes .*value_map"),
        ([0, 300], [0, 0], r"truth holds the value 300: values must lie in 0\.\.255"),
        ([0, -1], [0, 0], r"truth holds the value -1"),
        ([0, 0], [0, 3], r"prediction holds the value 3: values must lie in 0\.\.2"),
        ([255, 0], [-1, 0], r"prediction holds the value -1"),
        ([0, 0], [0], r"truth of shape \(2,\) and prediction of shape \(1,\)"),
        ([0.0, 1.0], [0, 0], r"give integers"),
    ],
)
def test_bad_maps_are_named(truth, prediction, message):
    with pytest.raises(DataError, match=message):
        confusion_counts(truth, prediction, 3)


def test_tally_keeps_sums_of_regions_and_adds_up():
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 9, (20, 3, 3))
    counts[3] = 0  # a patch without a labelled pixel
    counts[:, 2, :] = counts[:, :, 2] = 0
    counts[5, 2, 2] = 4
    region = rng.integers(0, 6, 20)
    whole, first, second = (RegionTally(3) for _ in range(3))
    for start in range(0, 20, 7):
        whole.add(region[start : start + 7], counts[start : start + 7])
    first.add(region[::2], counts[::2])
    second.add(region[1::2], counts[1::2])
    summed = RegionTally(3, first.padded(6) + second.padded(6))
    for tally in (summed, RegionTally(3, whole.padded(6))):
        sums = tally.patch_sums()
        for k in range(6):
            own = counts[region == k]
            np.testing.assert_array_equal(tally.counts()[k], own.sum(axis=0))
            values = seg.unit_values(own)
            np.testing.assert_allclose(sums.totals[k], np.nansum(values, axis=0))
            np.testing.assert_array_equal(sums.defined[k], (~np.isnan(values)).sum(axis=0))
            assert sums.patches[k] == len(own)
    with pytest.raises(ValueError, match="columns"):
        RegionTally(4, summed.table)
