"""The card is what the manifest says, and nothing that a hand added."""

from pathzoo.zoo.card import render_card
from pathzoo.zoo.manifest import OperatingPoint
from pathzoo.zoo.manifest_file import read_manifest
from pathzoo.zoo.verify import verify_model


def test_the_published_card_is_generated_from_the_published_manifest(zoo):
    folder = zoo / "tiny" / "1.0.0"
    assert (folder / "README.md").read_text() == render_card(read_manifest(folder))


def test_what_a_reader_looks_for(zoo):
    manifest = read_manifest(zoo / "tiny" / "1.0.0")
    card = render_card(manifest)
    for text in (
        'pathzoo.get_model("tiny")',
        "64 x 64 px",
        "0.5 µm/px",
        "| accuracy | image | 40 | 0.750 | 0.600 to 0.900 |",
        "| train | 2 | 3 | 1 | benign 1, malignant 1 |",
        "CC-BY-4.0",
        "Spanhol et al.",
        "Random weights.",
        "Not a medical device",
        manifest.files["model.safetensors"].sha256,
    ):
        assert text in card


def test_synthetic_training_is_said_first(zoo):
    manifest = read_manifest(zoo / "tiny" / "1.0.0")
    assert "synthetic" not in render_card(manifest).lower()
    training = manifest.training.model_copy(update={"synthetic": True})
    assert "Trained on synthetic images" in render_card(manifest.model_copy(update={"training": training}))


def test_a_training_of_which_nothing_is_known_is_said_to_be_so(zoo):
    manifest = read_manifest(zoo / "tiny" / "1.0.0")
    training = type(manifest.training)(synthetic=False)
    assert "trained on\n\nNot recorded.\n" in render_card(manifest.model_copy(update={"training": training}))


def test_a_detectors_thresholds_are_told_and_the_best_is_said_to_be_chosen_there(zoo):
    manifest = read_manifest(zoo / "tiny" / "1.0.0")
    assert "threshold" not in render_card(manifest)
    given = ((0.9, 1.0, 0.5, 0.667, 0.0), (0.25, 0.8, 0.8, 0.8, 1.5))
    names = ("threshold", "precision", "recall", "f1", "false_positives")
    points = tuple(OperatingPoint(**dict(zip(names, values, strict=True))) for values in given)
    evaluation = manifest.metrics[0].model_copy(update={"curve": points})
    card = render_card(manifest.model_copy(update={"metrics": (evaluation,)}))
    assert "| threshold | precision | recall | F1 | false detections per image |" in card
    assert "| 0.2500 | 0.800 | 0.800 | 0.800 | 1.50 |" in card
    assert "F1 is highest at 0.2500, which was chosen on these images" in card


def test_a_detectors_own_threshold_is_said(zoo):
    manifest = read_manifest(zoo / "tiny" / "1.0.0").model_copy(update={"task": "detection", "score_threshold": 0.3})
    assert "`pathzoo predict` gives what scores 0.3 or more; `--score-threshold` sets another" in render_card(manifest)


def test_texts_cannot_break_the_table_or_bring_html(zoo):
    manifest = read_manifest(zoo / "tiny" / "1.0.0")
    source = manifest.attributions[0].model_copy(update={"title": "a | b\nc <script>"})
    card = render_card(manifest.model_copy(update={"attributions": (source,)}))
    assert "| a \\| b c &lt;script> | Spanhol" in card


def test_a_card_edited_by_hand_is_refused(published):
    card = published / "README.md"
    card.write_text(card.read_text().replace("0.750", "0.990"))
    problems = verify_model(published).problems
    assert [problem.file for problem in problems] == ["README.md"]
