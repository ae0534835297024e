"""The audit's numbers against scikit-learn on all pixels, its warnings, its table and its picture."""

import csv

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, precision_score, recall_score

from pathzoo.engine.self_training.audit import (
    COLUMNS,
    Alarm,
    audit_rows,
    cohen_kappa,
    count_region,
    sum_counts,
    warnings_of,
    write_table,
)
from pathzoo.engine.self_training.audit_plot import plot_audit
from pathzoo.engine.self_training.confidence import probability_of
from pathzoo.engine.self_training.policies import keep
from pathzoo.engine.self_training.records import count_levels
from pathzoo.errors import ConfigError
from pathzoo.visualization.curves import save_figure

_CLASSES = ("normal", "benign", "malignant")


def _regions(seed: int, n: int = 3):
    """(truth, labels before, predicted, confidence) of regions; truth and labels are mostly right."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        shape = tuple(rng.integers(30, 50, 2))
        truth = rng.choice(3, shape, p=[0.7, 0.2, 0.1]).astype(np.uint8)
        noisy = [np.where(rng.random(shape) < 0.8, truth, rng.choice(3, shape)).astype(np.uint8) for _ in range(2)]
        before = np.where(rng.random(shape) < 0.6, noisy[0], 255).astype(np.uint8)
        confidence = rng.integers(60, 256, shape).astype(np.uint8)
        truth[rng.random(shape) < 0.1] = 255
        found.append((truth, before, noisy[1], confidence))
    return found


def _rows(regions, lowest=(150, 150, 150), labelled=(700, 200, 100), truth=True, before=True, number=2):
    lowest = np.array(lowest)
    histogram = sum(count_levels(predicted, confidence, 3) for _, _, predicted, confidence in regions)
    counts = sum_counts(
        count_region(keep(predicted, confidence, lowest), 3, b if before else None, t if truth else None)
        for t, b, predicted, confidence in regions
    )
    return audit_rows(number, 8, _CLASSES, histogram, lowest, counts, np.array(labelled))


def test_numbers_are_those_of_all_pixels():
    regions = _regions(0)
    rows = _rows(regions)
    truth, before, predicted, confidence = (np.concatenate([r[i].ravel() for r in regions]) for i in range(4))
    labels = keep(predicted, confidence, np.array([150] * 3))
    kept, whole = labels != 255, rows[0]
    assert [row["class"] for row in rows] == ["all", *_CLASSES]
    assert whole["kept_share"] == pytest.approx(kept.mean())
    assert whole["mean_confidence"] == pytest.approx(probability_of(confidence).mean())
    both = kept & (before != 255)
    assert whole["agreement"] == pytest.approx((labels == before)[both].mean())
    assert whole["kappa"] == pytest.approx(cohen_kappa_score(before[both], labels[both]))
    known = kept & (truth != 255)
    assert whole["precision"] == pytest.approx((labels == truth)[known].mean())
    assert whole["found"] == pytest.approx((labels == truth)[known].sum() / (truth != 255).sum())
    options = {"labels": [0, 1, 2], "average": None}
    precision = precision_score(truth[known], labels[known], **options)
    recall = recall_score(truth[known], labels[known], **options)
    for label, row in enumerate(rows[1:]):
        assert row["predicted_pixels"] == (predicted == label).sum()
        assert row["kept_pixels"] == (labels == label).sum()
        assert row["kept_mix"] == pytest.approx((labels[kept] == label).mean())
        assert row["predicted_mix"] == pytest.approx((predicted == label).mean())
        assert row["labelled_mix"] == (0.7, 0.2, 0.1)[label]
        assert row["mean_confidence"] == pytest.approx(probability_of(confidence[predicted == label]).mean())
        assert row["precision"] == pytest.approx(precision[label])
        assert row["recall"] == pytest.approx(recall[label])
        assert row["found"] == pytest.approx(((labels == label) & (truth == label)).sum() / (truth == label).sum())
        assert row["agreement"] == pytest.approx((labels == before)[both & (before == label)].mean())


def test_what_is_not_known_is_empty():
    rows = _rows(_regions(1), truth=False, before=False)
    for row in rows:
        assert all(row[name] is None for name in ("precision", "recall", "found", "agreement", "kappa"))
    assert list(rows[0]) == list(COLUMNS)


def test_regions_without_truth_do_not_count_for_it():
    regions = _regions(2)
    lowest = np.array([150] * 3)
    parts = [
        count_region(keep(predicted, confidence, lowest), 3, None, truth if index else None)
        for index, (truth, _, predicted, confidence) in enumerate(regions)
    ]
    whole, known = sum_counts(parts), sum_counts(parts[1:])
    np.testing.assert_array_equal(whole.right, known.right)
    np.testing.assert_array_equal(whole.truth, known.truth)
    assert whole.kept.sum() > known.kept.sum()


def test_kappa_has_its_limits():
    assert cohen_kappa(np.zeros((2, 2), int)) is None
    assert cohen_kappa(np.array([[5, 0], [0, 0]])) is None  # one class: nothing beyond chance to see
    assert cohen_kappa(np.array([[5, 0], [0, 5]])) == 1
    assert cohen_kappa(np.array([[25, 25], [25, 25]])) == pytest.approx(0)


def test_a_sound_round_is_not_warned_of():
    assert warnings_of(_rows(_regions(0)), _rows(_regions(3)), Alarm()) == []


def test_class_that_dies_out_is_named():
    regions = _regions(0)
    [gone] = warnings_of(_rows(regions, lowest=(150, 150, 256 - 1)), None, Alarm(dies_below=1e-9)) or [""]
    assert gone == ""  # a few of its pixels are left
    for _, _, predicted, _ in regions:
        predicted[predicted == 2] = 0
    [gone] = warnings_of(_rows(regions), None, Alarm())
    assert "class malignant has died out" in gone and "10.00% of the labelled" in gone
    assert warnings_of(_rows(regions, labelled=(1, 1, 0)), None, Alarm()) == []  # it never was there


def test_class_that_is_dying_out_is_named_at_the_stated_share():
    regions = _regions(0)
    rows = _rows(regions, lowest=(150, 150, 254))
    share = rows[3]["kept_mix"] / rows[3]["labelled_mix"]
    assert 0 < share < 0.2
    [dying] = warnings_of(rows, None, Alarm(dies_below=share * 1.01))
    assert "class malignant is dying out" in dying
    assert warnings_of(rows, None, Alarm(dies_below=share * 0.99)) == []


def test_confidence_that_collapses_or_falls_is_named():
    regions, sure = _regions(0), _rows(_regions(0))
    for *_, confidence in regions:
        confidence[:] = 60  # p = 0.44, and a guess among three has 0.33
    low = _rows(regions, lowest=(0, 0, 0))
    texts = warnings_of(low, sure, Alarm())
    assert len(texts) == 2
    assert "has collapsed: 0.438 on average" in texts[0] and "0.333" in texts[0]
    assert "is collapsing: 0.438" in texts[1]
    assert warnings_of(low, None, Alarm(certainty_below=0.1)) == []
    assert warnings_of(sure, low, Alarm()) == []  # rising is fine


def test_hardly_anything_kept_is_named():
    rows = _rows(_regions(0), lowest=(255, 255, 255))
    texts = warnings_of(rows, None, Alarm(dies_below=0))
    assert len(texts) == 1 and "of the pixels are kept" in texts[0]


@pytest.mark.parametrize("name", ["dies_below", "certainty_below", "certainty_drop", "kept_below"])
@pytest.mark.parametrize("value", [-0.1, 1.1, "0.1", True, None, float("nan")])
def test_limit_that_is_no_share_is_named(name, value):
    with pytest.raises(ConfigError, match=rf"{name}=.*number from 0 to 1"):
        Alarm(**{name: value})


def test_table_reads_back(tmp_path):
    rows = _rows(_regions(0), number=1, before=False) + _rows(_regions(3))
    write_table(tmp_path / "audit.csv", rows)
    with (tmp_path / "audit.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert len(read) == 8
    for line, row in zip(read, rows, strict=True):
        for name in COLUMNS:
            if row[name] is None:
                assert line[name] == ""
            elif isinstance(row[name], str):
                assert line[name] == row[name]
            else:
                assert float(line[name]) == pytest.approx(row[name], rel=1e-5)


@pytest.mark.parametrize("truth", [True, False])
@pytest.mark.parametrize("rounds", [1, 3])
def test_picture_is_drawn(tmp_path, rounds, truth):
    rows = [row for n in range(1, rounds + 1) for row in _rows(_regions(n), truth=truth, before=n > 1, number=n)]
    figure = plot_audit(rows)
    save_figure(figure, tmp_path / "audit.png")
    assert (tmp_path / "audit.png").stat().st_size > 20_000
    kept, mix, confidence, right = figure.axes
    assert len(kept.lines) == 4
    assert len(mix.patches) == 3 * (rounds + 1)
    heights = [bar.get_height() for bar in mix.patches]
    for bar in range(rounds + 1):
        assert sum(heights[3 * bar : 3 * bar + 3]) == pytest.approx(1)
    drawn = [line for line in confidence.lines if line.get_linestyle() != "-" and len(line.get_xdata())]
    assert len(drawn) == (4 if rounds > 1 else 0)
    assert bool(right.lines) is truth
    save_figure(plot_audit(rows), tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "audit.png").read_bytes()
