"""The rows of a segmenter's report against loops over regions and patients, and the files written from them."""

import csv
import json
import time

import numpy as np
import pytest

from pathzoo.errors import DataError
from pathzoo.evaluation.functional import RegionTally, resample_counts, segmentation, segmentation_report
from pathzoo.evaluation.segmentation_files import spread_regions, write_segmentation

CLASSES = ["normal", "benign", "malignant"]


def study(n_patients=10, per_patient=2, per_region=3, seed=0):
    """Patch counts (n, C, C), each patch's region, each region's patient: patients differ, as they do."""
    rng = np.random.default_rng(seed)
    region = np.repeat(np.arange(n_patients * per_patient), per_region)
    right = rng.uniform(0.5, 0.95, n_patients)[region // per_patient]
    counts = np.zeros((len(region), 3, 3), np.int64)
    for patch, share in enumerate(right):
        for k in range(3):
            n = int(rng.integers(0, 200)) if k == 0 or rng.random() < 0.7 else 0
            wrong = (1 - share) / 2
            counts[patch, k] = rng.multinomial(n, np.insert([wrong, wrong], k, share))
    return counts, region, [f"p{index // per_patient}" for index in range(region.max() + 1)]


def tallied(counts, region):
    tally = RegionTally(counts.shape[1])
    tally.add(region, counts)
    tally = RegionTally(counts.shape[1], tally.padded(int(region.max()) + 1))
    return tally.counts(), tally.patch_sums()


def by_name(rows):
    found = {(row["metric"], row["level"]): row for row in rows}
    assert len(found) == len(rows)
    return found


def mean_of(units):
    """unit_values of each unit, averaged over those where they are defined."""
    return np.nanmean([segmentation.unit_values(unit) for unit in units], axis=0)


def test_levels_equal_loops():
    patch_counts, region, patients = study()
    counts, patches = tallied(patch_counts, region)
    rows = by_name(segmentation_report(counts, patients, CLASSES, patches))
    by_patient = [sum(c for c, p in zip(counts, patients, strict=True) if p == name) for name in sorted(set(patients))]
    for level, units in (("patch", patch_counts), ("region", counts), ("patient", by_patient)):
        units = [unit for unit in units if unit.any()]
        for name, value in zip(segmentation.unit_names(CLASSES), mean_of(units), strict=True):
            row = rows[name, level]
            assert row["value"] == pytest.approx(value), (name, level)
            assert row["low"] < value < row["high"]
        assert rows["miou", level]["n"] == len(units)
        n_malignant = sum(bool(unit[2].any() or unit[:, 2].any()) for unit in units)
        assert rows["iou_malignant", level]["n"] == n_malignant
    total = patch_counts.sum(axis=0)
    assert rows["miou", "pixel"]["value"] == pytest.approx(segmentation.mean_values(total)[0])
    assert rows["recall_benign", "pixel"]["value"] == pytest.approx(total[1, 1] / total[1].sum())
    assert rows["precision_benign", "pixel"]["value"] == pytest.approx(total[1, 1] / total[:, 1].sum())
    assert rows["pixel_accuracy", "pixel"]["value"] == rows["f1_micro", "pixel"]["value"]
    assert rows["accuracy", "pixel"]["value"] > rows["pixel_accuracy", "pixel"]["value"]
    assert rows["miou", "pixel"]["n"] == total.sum()
    assert [row["level"] for row in segmentation_report(counts, patients, CLASSES)].count("patch") == 0


def test_intervals_equal_a_loop_that_repeats_patients():
    patch_counts, region, patients = study()
    counts, patches = tallied(patch_counts, region)
    rows = by_name(segmentation_report(counts, patients, CLASSES, patches, n_bootstrap=60, seed=4))
    names = sorted(set(patients))
    values = {level: [] for level in ("pixel", "patch", "region", "patient")}
    for drawn in resample_counts(len(names), 60, seed=4):
        chosen = [name for name, times in zip(names, drawn, strict=True) for _ in range(times)]
        regions = [k for name in chosen for k, patient in enumerate(patients) if patient == name]
        values["pixel"].append(segmentation.mean_values(sum(counts[k] for k in regions))[0])
        own_patches = [patch_counts[i] for k in regions for i in np.flatnonzero(region == k)]
        values["patch"].append(mean_of([unit for unit in own_patches if unit.any()])[0])
        values["region"].append(mean_of([counts[k] for k in regions])[0])
        values["patient"].append(
            mean_of([sum(counts[k] for k in range(len(counts)) if patients[k] == name) for name in chosen])[0]
        )
    for level, replicates in values.items():
        row = rows["miou", level]
        assert (row["low"], row["high"]) == pytest.approx(np.percentile(replicates, [2.5, 97.5])), level


def test_absent_class_is_noted_and_never_a_number():
    patch_counts, region, patients = study()
    patch_counts[:, 2, :] = patch_counts[:, :, 2] = 0
    counts, patches = tallied(patch_counts, region)
    rows = by_name(segmentation_report(counts, patients, CLASSES, patches))
    two = segmentation.mean_values(patch_counts.sum(axis=0)[:2, :2])
    for name in ("miou", "f1", "accuracy"):
        assert "no pixel of class malignant in truth or prediction" in rows[name, "pixel"]["note"]
    assert rows["miou", "pixel"]["value"] == pytest.approx(two[0])
    assert rows["accuracy", "pixel"]["value"] == rows["pixel_accuracy", "pixel"]["value"]  # two classes are left
    for name in ("iou", "f1", "precision", "recall"):
        assert rows[f"{name}_malignant", "pixel"]["value"] is None
        assert rows[f"{name}_malignant", "pixel"]["note"]
    assert rows["iou_malignant", "region"]["n"] == 0
    assert "occurs in no region" in rows["iou_malignant", "region"]["note"]
    json.dumps(list(rows.values()), allow_nan=False)


def test_a_class_of_one_patient_has_no_interval():
    patch_counts, region, patients = study()
    other = region >= 2  # regions 0 and 1 are the first patient's
    patch_counts[other, 2, :] = 0
    patch_counts[other, :, 2] = 0
    counts, patches = tallied(patch_counts, region)
    rows = by_name(segmentation_report(counts, patients, CLASSES, patches))
    for key in (("iou_malignant", "pixel"), ("miou", "pixel"), ("iou_malignant", "patch")):
        assert rows[key]["value"] is not None
        assert rows[key]["low"] is None
        assert "too few patients of a class" in rows[key]["note"]
    assert rows["iou_normal", "pixel"]["low"] is not None


def test_unknown_patients_and_bare_patches_are_said():
    patch_counts, region, patients = study()
    patch_counts[0] = 0
    patients = [None if index in (4, 9) else name for index, name in enumerate(patients)]
    counts, patches = tallied(patch_counts, region)
    rows = by_name(segmentation_report(counts, patients, CLASSES, patches))
    assert rows["miou", "patch"]["note"].startswith("1 patches without a labelled pixel are left out")
    assert rows["miou", "patch"]["n"] == len(patch_counts) - 1
    assert "2 regions without a known patient are resampled as one group" in rows["miou", "region"]["note"]
    assert "2 regions without a known patient are left out" in rows["miou", "patient"]["note"]
    nobody = by_name(segmentation_report(counts, None, CLASSES, patches))
    assert nobody["miou", "pixel"]["low"] is None
    assert "fewer than two known patients" in nobody["miou", "pixel"]["note"]
    assert nobody["miou", "patient"]["n"] == 0
    assert ("f1", "patient") not in nobody


def test_nothing_to_evaluate_is_said():
    for counts, message in (
        (np.zeros((0, 3, 3), int), "the test set is empty"),
        (np.zeros((2, 3, 3), int), "no labelled pixel"),
        (np.zeros((2, 2, 2), int), r"counts \(2, 2, 2\) do not fit 3 classes"),
    ):
        with pytest.raises(DataError, match=message):
            segmentation_report(counts, None, CLASSES)
    with pytest.raises(DataError, match="1 patients for 2 regions"):
        segmentation_report(np.ones((2, 3, 3), int), ["p"], CLASSES)


def test_report_of_2000_regions_is_fast():
    counts = np.random.default_rng(0).integers(0, 10_000, (2000, 3, 3))
    patients = [f"p{index % 82}" for index in range(2000)]
    start = time.process_time()
    segmentation_report(counts, patients, CLASSES)
    assert time.process_time() - start < 2


def test_files_hold_what_was_evaluated(tmp_path):
    patch_counts, region, patients = study()
    patch_counts[region == 3] = 0  # a region that nobody labelled
    counts, patches = tallied(patch_counts, region)
    items = [f"images/region {index}, left.png" for index in range(len(counts))]
    patients[2] = None
    slides = [f"s{index // 2}" for index in range(len(counts))]
    rows = write_segmentation(tmp_path, counts, items, patients, slides, CLASSES, patches, extra={"run": "x"})
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["rows"] == rows
    assert metrics["run"] == "x"
    assert metrics["confusion_matrix"] == counts.sum(axis=0).tolist()
    assert (metrics["n_regions"], metrics["n_patches"], metrics["n_patients"]) == (20, 60, 10)
    assert (metrics["n_regions_of_unknown_patient"], metrics["n_slides"]) == (1, 10)
    assert metrics["n_pixels"] == sum(metrics["n_pixels_of_class"].values()) == counts.sum()
    with (tmp_path / "regions.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["item"] for line in lines] == items
    for line, own in zip(lines, counts, strict=True):
        read = [[int(line[f"{true} as {predicted}"]) for predicted in CLASSES] for true in CLASSES]
        assert read == own.tolist()
        assert int(line["pixels"]) == own.sum()
    assert float(lines[0]["miou"]) == pytest.approx(segmentation.mean_values(counts[0])[0], abs=1e-6)
    assert (lines[2]["patient"], lines[3]["miou"], lines[3]["pixels"]) == ("", "", "0")
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_regions_to_draw_run_from_the_worst_to_the_best():
    counts = np.array([[[100 - wrong, wrong], [0, 100]] for wrong in (50, 10, 30, 20, 40)])
    counts = np.concatenate([counts, np.zeros((1, 2, 2), int)])
    assert spread_regions(counts, 3) == [0, 2, 1]  # worst, median, best
    assert spread_regions(counts, 5) == [0, 4, 2, 3, 1]
    assert spread_regions(counts, 9) == [0, 4, 2, 3, 1]
    assert spread_regions(counts, 1) == [0]
    assert spread_regions(counts, 0) == []
    assert spread_regions(counts[:0], 3) == []
