"""The rows of a report, and the files of an evaluation read back."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as sk

from pathzoo.errors import DataError
from pathzoo.evaluation.functional import classification_report
from pathzoo.evaluation.report import read_predictions, write_evaluation, write_predictions

CLASSES = ["benign", "malignant"]


def study(n_patients=16, per_patient=6, n_classes=2, seed=0, dtype=np.float32):
    """probs, labels, patients, slides: two slides for each patient, one label for each patient."""
    generator = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), per_patient)
    labels = patient % n_classes
    logits = generator.normal(size=(len(patient), n_classes)) + 0.5 * generator.normal(size=(n_patients, 1))[patient]
    logits[np.arange(len(patient)), labels] += 0.8
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    patients = [f"p{index:02}" for index in patient]
    slides = [f"{name}-{index % 2}" for index, name in enumerate(patients)]
    return probs.astype(dtype), labels, patients, slides


def by_name(rows):
    found = {(row["metric"], row["level"]): row for row in rows}
    assert len(found) == len(rows)
    return found


def test_rows_of_two_classes():
    probs, labels, patients, slides = study()
    rows = by_name(classification_report(probs, labels, patients, slides, CLASSES))
    predicted = probs.argmax(axis=1)
    tn, fp, fn, tp = sk.confusion_matrix(labels, predicted).ravel()
    expected = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "f1": sk.f1_score(labels, predicted),
        "roc_auc": sk.roc_auc_score(labels, probs[:, 1]),
        "average_precision": sk.average_precision_score(labels, probs[:, 1]),
        "nll": sk.log_loss(labels, probs / probs.astype(float).sum(axis=1, keepdims=True)),
        "brier": sk.brier_score_loss(labels, probs[:, 1]),
    }
    for name, value in expected.items():
        row = rows[name, "image"]
        assert row["value"] == pytest.approx(value, rel=1e-6), name
        assert row["n"] == 96
        assert row["low"] < row["value"] < row["high"], name
    for level, groups, n in (("patient", patients, 16), ("slide", slides, 32)):
        shares = [
            np.mean([(predicted == labels)[i] for i, g in enumerate(groups) if g == name]) for name in set(groups)
        ]
        assert rows["recognition_rate", level]["value"] == pytest.approx(np.mean(shares))
        assert rows["recognition_rate", level]["n"] == n
    mean = {name: probs[np.array(patients) == name, 1].mean() for name in sorted(set(patients))}
    truth = [int(name[1:]) % 2 for name in mean]
    assert rows["accuracy", "patient"]["value"] == np.mean(
        [(p > 0.5) == t for p, t in zip(mean.values(), truth, strict=True)]
    )
    assert rows["roc_auc", "patient"]["value"] == pytest.approx(sk.roc_auc_score(truth, list(mean.values())))
    assert rows["accuracy", "patient"]["n"] == 16


def test_positive_class_zero_swaps_sensitivity_and_specificity():
    probs, labels, patients, slides = study()
    one = by_name(classification_report(probs, labels, patients, slides, CLASSES, positive=1))
    zero = by_name(classification_report(probs, labels, patients, slides, CLASSES, positive=0))
    assert zero["sensitivity", "image"]["value"] == one["specificity", "image"]["value"]
    assert zero["roc_auc", "image"]["value"] == pytest.approx(one["roc_auc", "image"]["value"])
    with pytest.raises(DataError, match="positive class 2"):
        classification_report(probs, labels, patients, slides, CLASSES, positive=2)


def test_rows_of_several_classes():
    probs, labels, patients, slides = study(n_classes=4, dtype=np.float64)
    rows = by_name(classification_report(probs, labels, patients, slides, list("abcd"), n_bootstrap=0))
    assert rows["roc_auc", "image"]["value"] == pytest.approx(sk.roc_auc_score(labels, probs, multi_class="ovr"))
    assert rows["f1", "image"]["value"] == pytest.approx(sk.f1_score(labels, probs.argmax(axis=1), average="macro"))
    assert all(row["low"] is None and "note" not in row for row in rows.values())


def test_no_interval_where_no_patient_is_known():
    probs, labels, _, slides = study()
    rows = by_name(classification_report(probs, labels, None, slides, CLASSES))
    assert all(row["low"] is None and row["high"] is None for row in rows.values())
    assert "fewer than two known patients" in rows["accuracy", "image"]["note"]
    assert rows["recognition_rate", "patient"] == {
        "metric": "recognition_rate",
        "level": "patient",
        "n": 0,
        "value": None,
        "low": None,
        "high": None,
        "note": "no known patient",
    }
    assert rows["recognition_rate", "slide"]["value"] is not None
    assert ("recognition_rate", "slide") not in by_name(classification_report(probs, labels, None, None, CLASSES))


def test_unknown_patients_are_said():
    probs, labels, patients, slides = study()
    patients = [None if index < 10 else patient for index, patient in enumerate(patients)]
    rows = by_name(classification_report(probs, labels, patients, slides, CLASSES))
    assert "10 images without a known patient are resampled as one group" in rows["accuracy", "image"]["note"]
    assert "10 images without a known patient are left out" in rows["recognition_rate", "patient"]["note"]
    assert rows["recognition_rate", "patient"]["n"] == 15  # of 16; p00's six images are all unknown
    assert rows["accuracy", "patient"]["n"] == 15


def test_patients_with_several_labels_have_no_accuracy():
    probs, labels, patients, slides = study()
    labels = labels.copy()
    labels[0] = 1 - labels[0]
    rows = by_name(classification_report(probs, labels, patients, slides, CLASSES))
    assert rows["accuracy", "patient"]["value"] is None
    assert rows["accuracy", "patient"]["note"] == "1 patients have several labels"
    assert rows["recognition_rate", "patient"]["value"] is not None


def test_absent_class_is_none_with_a_reason():
    probs, labels, patients, slides = study()
    kept = np.flatnonzero(labels == 0)
    rows = by_name(
        classification_report(
            probs[kept], labels[kept], [patients[i] for i in kept], [slides[i] for i in kept], CLASSES
        )
    )
    for name in ("balanced_accuracy", "sensitivity", "f1", "roc_auc", "average_precision"):
        assert rows[name, "image"]["value"] is None
        assert "no image of class malignant" in rows[name, "image"]["note"]
    assert rows["specificity", "image"]["value"] == rows["accuracy", "image"]["value"]
    json.dumps(list(rows.values()), allow_nan=False)


def test_a_class_of_one_patient_gets_a_value_without_interval():
    probs, labels, patients, slides = study()
    kept = [index for index, name in enumerate(patients) if labels[index] == 0 or name == "p01"]
    rows = by_name(
        classification_report(
            probs[kept], labels[kept], [patients[i] for i in kept], [slides[i] for i in kept], CLASSES
        )
    )
    assert rows["sensitivity", "image"]["value"] is not None
    assert rows["sensitivity", "image"]["low"] is None
    assert "too few patients of a class" in rows["sensitivity", "image"]["note"]
    assert rows["specificity", "image"]["low"] is not None


def test_perfect_result_says_that_its_interval_is_too_narrow():
    _, labels, patients, slides = study()
    rows = by_name(classification_report(np.eye(2)[labels], labels, patients, slides, CLASSES))
    row = rows["accuracy", "image"]
    assert (row["value"], row["low"], row["high"]) == (1, 1, 1)
    assert "understates" in row["note"]


def test_interval_beside_its_value_is_said():
    """Bins that are calibrated to the image: the error is 0, and above 0 in every resample."""
    confidence = np.repeat([0.55, 0.65, 0.75, 0.85, 0.95], 20)
    correct = np.tile(np.arange(20), 5) < np.round(confidence * 20)
    labels = np.arange(100) % 2
    winner = np.where(correct, labels, 1 - labels)
    probs = np.where(np.eye(2)[winner] == 1, confidence[:, None], 1 - confidence[:, None])
    row = by_name(classification_report(probs, labels, [f"p{i}" for i in range(100)], None, CLASSES))["ece", "image"]
    assert row["value"] == pytest.approx(0, abs=1e-12)
    assert row["low"] > 0.01
    assert "does not hold the value" in row["note"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, y: (p[:0], y[:0]), "the test set is empty"),
        (lambda p, y: (p[:, :1], y), r"do not fit 2 classes"),
        (lambda p, y: (p, np.where(np.arange(len(y)) == 3, 2, y)), r"item-3: label 2; labels must lie in 0\.\.1"),
        (lambda p, y: (p * 2, y), r"item-0: probabilities that sum to 2; give softmax output"),
        (lambda p, y: (np.where(np.arange(len(y))[:, None] == 5, np.nan, p), y), r"item-5: .*nan.*without NaN"),
    ],
)
def test_bad_predictions_are_named(tmp_path, change, message):
    probs, labels, _, _ = study(dtype=np.float64)
    probs, labels = change(probs, labels)
    with pytest.raises(DataError, match=message):
        write_evaluation(
            tmp_path / "out", probs, labels, [f"item-{i}" for i in range(len(labels))], None, None, CLASSES
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_files_hold_what_was_evaluated(tmp_path, n_classes):
    probs, labels, patients, slides = study(n_classes=n_classes)
    classes = ["benign", "in situ, ductal", "invasive"][:n_classes]
    items = [f"folder/image {index}.png" for index in range(len(labels))]
    patients[0], slides[0] = None, None
    rows = write_evaluation(tmp_path, probs, labels, items, patients, slides, classes, extra={"run": "x"})

    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["rows"] == rows
    assert metrics["run"] == "x"
    assert metrics["n_images"] == len(labels)
    assert (metrics["n_patients"], metrics["n_images_of_unknown_patient"]) == (16, 1)
    assert sum(metrics["n_images_of_class"].values()) == np.sum(metrics["confusion_matrix"]) == len(labels)

    read = read_predictions(tmp_path / "predictions.csv")
    np.testing.assert_array_equal(read.probs.astype(np.float32), probs)  # not a bit is lost
    np.testing.assert_array_equal(read.labels, labels)
    assert (read.items, read.patients, read.slides, read.classes) == (items, patients, slides, classes)
    again = write_evaluation(tmp_path / "again", **vars(read))
    for first, second in zip(rows, again, strict=True):
        assert first["value"] == pytest.approx(second["value"], abs=1e-6)

    with (tmp_path / "curves" / "roc.csv").open(newline="") as file:
        points = list(csv.DictReader(file))
    assert {point["class"] for point in points} == set(classes[1:] if n_classes == 2 else classes)
    own = [point for point in points if point["class"] == classes[1]]
    area = np.trapezoid([float(p["true_positive_rate"]) for p in own], [float(p["false_positive_rate"]) for p in own])
    assert area == pytest.approx(sk.roc_auc_score(labels == 1, probs[:, 1]))
    assert (tmp_path / "curves" / "precision_recall.csv").stat().st_size > 100
    with (tmp_path / "curves" / "reliability.csv").open(newline="") as file:
        assert sum(int(row["n"]) for row in csv.DictReader(file)) == len(labels)
    for name in ("confusion_matrix", "roc", "precision_recall", "reliability"):
        with Image.open(tmp_path / "plots" / f"{name}.png") as picture:
            assert picture.format == "PNG"
            assert min(picture.size) >= 1000
            assert len(picture.convert("L").getcolors(1 << 20)) > 10
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_single_class_set_still_writes_everything(tmp_path):
    probs, labels, patients, slides = study()
    items = [str(index) for index in range(len(labels))]
    write_evaluation(tmp_path, probs, np.zeros_like(labels), items, patients, slides, CLASSES, n_bootstrap=50)
    assert len(list((tmp_path / "plots").glob("*.png"))) == 4
    assert "NaN" not in (tmp_path / "metrics.json").read_text()


def test_unreadable_predictions_name_file_and_line(tmp_path):
    path = tmp_path / "predictions.csv"
    write_predictions(path, np.array([[0.4, 0.6]]), [1], ["a.png"], ["p"], [None], CLASSES)
    assert read_predictions(path).slides == [None]
    good = path.read_text()
    path.write_text(good.replace("0.6", "six"))
    with pytest.raises(DataError, match=r"predictions\.csv, line 2.*six"):
        read_predictions(path)
    path.write_text(good.replace("malignant,malignant", "maligant,malignant"))
    with pytest.raises(DataError, match=r"line 2.*maligant"):
        read_predictions(path)
    path.write_text("path,label\n")
    with pytest.raises(DataError, match=r"no column item, patient"):
        read_predictions(path)
