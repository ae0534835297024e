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
