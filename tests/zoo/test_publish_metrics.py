"""The figures that are published with a model: of this checkpoint, of several evaluations, with their curves."""

import json

import pytest
from publishing import edit, publish, refused
from tiny_model import CARD


@pytest.mark.parametrize("measured", ["best_accuracy_epoch_4.pth", 4])
def test_figures_of_another_checkpoint(run, tmp_path, measured):
    edit(run / "metrics.json", lambda content: content.update(checkpoint=measured))
    refused(run, tmp_path / "a", rf"was measured on {measured}, not epoch_5\.pth; test this checkpoint first")
    assert publish(run, tmp_path / "b", metrics=run / "metrics.json")  # named by the user


def test_figures_of_this_checkpoint(run, tmp_path):
    edit(run / "metrics.json", lambda content: content.update(checkpoint="epoch_5.pth"))
    manifest = json.loads((publish(run, tmp_path / "out") / "model.json").read_text())
    assert manifest["metrics"][0]["rows"][0]["value"] == 0.75


def test_a_threshold_is_of_detectors_alone(run, tmp_path):
    refused(run, tmp_path / "out", "score_threshold 0.3 means nothing to class", card=CARD | {"score_threshold": 0.3})


def test_several_evaluations_with_their_curves(run, tmp_path):
    point = {"threshold": 0.5, "precision": 0.9, "recall": 0.8, "f1": 0.847, "false_positives": 2.0}
    row = {"metric": "froc", "level": "slide", "n": 6, "value": 0.7, "low": None, "high": None}
    slides = {"dataset": "unseen slides", "subset": "all", "split": None, "rows": [row], "curve": [point]}
    (tmp_path / "slides.json").write_text(json.dumps(slides))
    folder = publish(run, tmp_path / "out", metrics=[run / "metrics.json", tmp_path / "slides.json"])
    own, other = json.loads((folder / "model.json").read_text())["metrics"]
    assert (own["rows"][0]["value"], own["curve"]) == (0.75, [])
    assert (other["dataset"], other["split"], other["curve"]) == ("unseen slides", None, [point])
    assert "| 0.5000 | 0.900 | 0.800 | 0.847 | 2.00 |" in (folder / "README.md").read_text()
    edit(tmp_path / "slides.json", lambda content: content["curve"][0].update(recall=1.2))
    refused(run, tmp_path / "bad", r"metrics\.0\.curve\.0\.recall", metrics=tmp_path / "slides.json")


def test_caveats_of_training_and_testing_stand_on_the_card_each_once(run, tmp_path):
    leaky, drawn, weights = (
        "by_image_leaky: scores\nare inflated",
        "9 of 21 slices are synthetic",
        "g may have seen anybody",
    )
    edit(run / "train_run.json", lambda content: said_of(content, [leaky, drawn, weights]))
    edit(run / "metrics.json", lambda content: content.update(caveats=[leaky, "2 images have no known patient"]))
    folder = publish(run, tmp_path / "out")
    manifest = json.loads((folder / "model.json").read_text())
    assert manifest["training"]["caveats"] == ["by_image_leaky: scores are inflated", drawn, weights]
    assert manifest["metrics"][0]["caveats"] == [
        "by_image_leaky: scores are inflated",
        "2 images have no known patient",
    ]
    card = (folder / "README.md").read_text()
    listed = card.partition("## Caveats")[2].partition("## Use")[0]
    assert [line[2:] for line in listed.splitlines() if line.startswith("- ")] == [
        "by_image_leaky: scores are inflated",
        "2 images have no known patient",
        drawn,
        weights,
    ]


def test_without_caveats_the_card_has_no_such_part(run, tmp_path):
    assert "Caveats" not in (publish(run, tmp_path / "out") / "README.md").read_text()


def test_a_caveat_that_names_a_patient_of_the_split_is_not_published(run, tmp_path):
    edit(run / "train_run.json", lambda content: said_of(content, ["on two sides: patient-7731"]))
    edit(run / "splits.json", lambda content: content["subsets"]["train"]["groups"].append("patient-7731"))
    refused(run, tmp_path / "out", r"a patient id, .patient-7731., in training\.caveats")


def test_a_caveat_of_an_older_record_that_names_an_image_is_not_published(run, tmp_path):
    text = "the split does not name 1 images of the data (images/hans_mueller_1962.png): they are in no subset"
    edit(run / "train_run.json", lambda content: said_of(content, [text]))
    refused(run, tmp_path / "out", r"a file name, 'hans_mueller_1962\.png', in training\.caveats")


def test_a_caveat_that_counts_as_many_slices_as_a_patients_number_is(run, tmp_path):
    edit(run / "train_run.json", lambda content: said_of(content, ["22549 of 40000 slices are synthetic"]))
    assert publish(run, tmp_path / "out")


def said_of(content, caveats):
    counts = content["data"]["counts"]
    (counts if "subset" in counts else next(iter(counts.values())))["caveats"] = caveats
