"""A round: what it writes, that it goes on where it was broken off, and what it refuses."""

import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from self_training_fakes import CLASSES, SILENT, FakePart, FakePseudoLabelled, TinySegmentor, contents, plan_of

from pathzoo.engine.self_training import PseudoLabelFolder, Tiling, checked_policy, make_round, predict_region
from pathzoo.engine.self_training.confidence import probability_of
from pathzoo.engine.self_training.pictures import file_name
from pathzoo.engine.self_training.progress import Progress
from pathzoo.engine.self_training.teacher import state_digest
from pathzoo.errors import DataError

_QUANTILE = checked_policy({"type": "quantile", "keep": 0.5})


@pytest.fixture
def dataset(tmp_path):
    return FakePseudoLabelled(tmp_path / "data")


@pytest.fixture
def model():
    return TinySegmentor().eval()


def _pixels(folder, kind, item) -> np.ndarray:
    return np.array(Image.open(folder.path / kind / f"{file_name(item)}.png"))


def test_labels_are_the_prediction_where_it_is_kept(dataset, model, tmp_path):
    plan = plan_of(tmp_path, dataset, policy=_QUANTILE)
    folder = make_round(plan, model, SILENT)
    assert folder.path == tmp_path / "pseudo_labels" / "round_01"
    pooled = {label: [] for label in range(3)}
    for index, region in enumerate(dataset.unlabelled.regions):
        predicted, confidence = predict_region(model, dataset.unlabelled.read_image(index), 3, plan.tiling)
        np.testing.assert_array_equal(_pixels(folder, "predicted", region.item), predicted)
        np.testing.assert_array_equal(_pixels(folder, "confidence", region.item), confidence)
        for label in range(3):
            pooled[label].append(confidence[predicted == label])
    lowest = [np.sort(np.concatenate(pooled[label]))[::-1] for label in range(3)]
    lowest = np.array([own[int(np.ceil(len(own) / 2)) - 1] for own in lowest])
    kept = 0
    for region in dataset.unlabelled.regions:
        predicted, confidence = (_pixels(folder, kind, region.item) for kind in ("predicted", "confidence"))
        labels = folder.read(region.item)
        assert labels.dtype == np.uint8 and labels.shape == (region.height, region.width)
        np.testing.assert_array_equal(labels, np.where(confidence >= lowest[predicted], predicted, 255))
        share = folder.provenance["items"][region.item]["kept"]
        assert share == pytest.approx((labels != 255).mean())
        kept += (labels != 255).sum()
    whole = folder.provenance["audit"][0]
    assert whole["kept_pixels"] == kept
    assert 0.5 <= whole["kept_share"] < 0.6


def test_provenance_says_what_it_is_of(dataset, model, tmp_path):
    folder = make_round(plan_of(tmp_path, dataset, policy=_QUANTILE), model, SILENT)
    made = json.loads((folder.path / "provenance.json").read_text())
    assert made == folder.provenance
    assert (made["round"], made["epoch"], made["run"], made["teacher"]) == (1, 4, "a" * 32, "model")
    assert (made["split"], made["data"], made["model"]) == ("5" * 64, "d" * 64, state_digest(model))
    assert (made["policy"], made["tta"], made["tile"], made["stride"]) == (_QUANTILE, "flips", 32, 20)
    assert made["classes"] == list(CLASSES) == list(made["thresholds"])
    assert set(made["items"]) == {region.item for region in dataset.unlabelled.regions} == set(folder.items)
    for region in dataset.unlabelled.regions:
        entry = made["items"][region.item]
        assert (entry["image_sha256"], entry["width"], entry["height"]) == (region.sha256, region.width, region.height)
    for name, level in made["levels"].items():
        assert made["thresholds"][name] == pytest.approx(float(probability_of(level - 0.5)))
    text = "".join(path.read_text() for path in folder.path.rglob("*.json"))
    assert str(tmp_path) not in text  # no machine's paths


def test_pictures_show_classes_and_hold_their_indices(dataset, model, tmp_path):
    """A palette for the eye; its indices are the labels for whoever reads masks."""
    folder = make_round(plan_of(tmp_path, dataset, policy=_QUANTILE), model, SILENT)
    region = dataset.unlabelled.regions[0]
    with Image.open(folder.path / "labels" / f"{file_name(region.item)}.png") as picture:
        assert picture.mode == "P"
        shown, labels = np.array(picture.convert("RGB")), np.array(picture)
    assert set(np.unique(labels)) <= {0, 1, 2, 255} and 255 in labels
    assert (shown[labels == 255] == 255).all()
    assert len({tuple(shown[labels == label][0]) for label in np.unique(labels)}) == len(np.unique(labels))


@pytest.mark.parametrize("failing", [0, 2, 4])
def test_broken_off_round_goes_on_and_equals_an_unbroken_one(dataset, model, tmp_path, failing):
    make_round(plan_of(tmp_path / "unbroken", dataset, policy=_QUANTILE), model, SILENT)
    plan = plan_of(tmp_path / "broken", dataset, policy=_QUANTILE)
    dataset.unlabelled.fail_at = {failing: KeyboardInterrupt()}
    dataset.unlabelled.reads.clear()
    with pytest.raises(KeyboardInterrupt):
        make_round(plan, model, SILENT)
    done = dataset.unlabelled.reads[:-1]
    assert not (plan.folder / "provenance.json").exists()
    with pytest.raises(DataError, match="unfinished round"):
        PseudoLabelFolder(plan.folder)
    (plan.folder / "labels").mkdir(exist_ok=True)
    (plan.folder / "labels" / ".half-written.png").write_bytes(b"\x89PNG")  # of a process that was killed

    dataset.unlabelled.fail_at = {}
    dataset.unlabelled.reads.clear()
    make_round(plan, model, SILENT)
    assert sorted(dataset.unlabelled.reads + done) == [0, 1, 2, 3, 4]  # none twice
    assert contents(tmp_path / "broken") == contents(tmp_path / "unbroken")


@pytest.mark.parametrize("change", ["weights", "policy", "tta", "tile"])
def test_regions_done_count_only_for_the_same_weights_and_settings(dataset, model, tmp_path, change):
    plan = plan_of(tmp_path, dataset, policy=_QUANTILE)
    make_round(plan, model, SILENT)
    dataset.unlabelled.reads.clear()
    make_round(plan, model, SILENT)
    assert dataset.unlabelled.reads == []  # the same: nothing is predicted
    if change == "weights":
        model = TinySegmentor(seed=1).eval()
    changed = {
        "weights": {},
        "policy": {"policy": checked_policy("all")},
        "tta": {"tiling": Tiling(32, 20, "d4", 3)},
        "tile": {"tiling": Tiling(40, 20, "flips", 3)},
    }[change]
    other = plan_of(tmp_path, dataset, **{"policy": _QUANTILE, **changed})
    make_round(other, model, SILENT)
    assert sorted(dataset.unlabelled.reads) == [0, 1, 2, 3, 4]
    make_round(plan_of(tmp_path / "fresh", dataset, **{"policy": _QUANTILE, **changed}), model, SILENT)
    assert contents(tmp_path / "pseudo_labels") == contents(tmp_path / "fresh" / "pseudo_labels")


def test_folder_of_another_run_is_refused_and_left_alone(dataset, model, tmp_path):
    make_round(plan_of(tmp_path, dataset), model, SILENT)
    before = contents(tmp_path)
    with pytest.raises(DataError, match=r"round_01: pseudo-labels of another run \(id aaaaaaaaaaaa.*bbbb.*--work-dir"):
        make_round(plan_of(tmp_path, dataset, run="b" * 32), TinySegmentor(seed=1).eval(), SILENT)
    assert contents(tmp_path) == before


def test_run_that_ended_before_its_first_checkpoint_is_gone_on_with(dataset, model, tmp_path):
    """It comes back under another id; the same weights and settings would write the same files."""
    dataset.unlabelled.fail_at = {4: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        make_round(plan_of(tmp_path, dataset), model, SILENT)
    dataset.unlabelled.fail_at = {}
    dataset.unlabelled.reads.clear()
    folder = make_round(plan_of(tmp_path, dataset, run="b" * 32), model, SILENT)
    assert len(dataset.unlabelled.reads) < 5
    assert folder.provenance["run"] == "b" * 32


def test_foreign_files_are_not_taken_for_a_round(dataset, model, tmp_path):
    plan = plan_of(tmp_path, dataset)
    plan.folder.mkdir(parents=True)
    (plan.folder / "precious.txt").write_text("x")
    with pytest.raises(DataError, match=r"round_01: holds files but no round\.json"):
        make_round(plan, model, SILENT)
    assert (plan.folder / "precious.txt").exists()


@pytest.mark.parametrize("kind", ["predicted", "confidence"])
def test_picture_truncated_in_between_is_predicted_again(dataset, model, tmp_path, kind):
    plan = plan_of(tmp_path, dataset, policy=_QUANTILE)
    make_round(plan, model, SILENT)
    whole = contents(tmp_path)
    path = plan.folder / kind / f"{file_name(dataset.unlabelled.regions[3].item)}.png"
    path.write_bytes(path.read_bytes()[:-20])
    dataset.unlabelled.reads.clear()
    make_round(plan, model, SILENT)
    assert dataset.unlabelled.reads == [3]
    assert contents(tmp_path) == whole


def test_image_that_changes_is_named(dataset, model, tmp_path):
    region = dataset.unlabelled.regions[2]
    data = region.image.read_bytes()
    Image.fromarray(255 - np.array(Image.open(region.image))).save(region.image)
    with pytest.raises(DataError, match=rf"{region.image.name}: changed since the data was loaded.*restore"):
        make_round(plan_of(tmp_path, dataset), model, SILENT)
    region.image.unlink()
    with pytest.raises(DataError, match=rf"{region.image.name}: changed"):
        make_round(plan_of(tmp_path, dataset), model, SILENT)
    region.image.write_bytes(data)
    make_round(plan_of(tmp_path, dataset), model, SILENT)


def test_image_that_changed_between_two_starts_is_named(dataset, model, tmp_path):
    make_round(plan_of(tmp_path, dataset), model, SILENT)
    image = dataset.unlabelled.regions[2].image
    Image.fromarray(255 - np.array(Image.open(image))).save(image)
    again = FakePseudoLabelled(tmp_path / "data")
    with pytest.raises(DataError, match=rf"{image.name}: changed since this round began.*remove .*round_01"):
        make_round(plan_of(tmp_path, again), model, SILENT)


def test_nothing_unlabelled_is_refused(dataset, model, tmp_path):
    dataset.unlabelled.regions = ()
    with pytest.raises(DataError, match="holds no region"):
        make_round(plan_of(tmp_path, dataset), model, SILENT)


def test_truth_serves_the_audit_alone(dataset, model, tmp_path):
    folders = []
    for name, use_truth in (("with", True), ("without", False)):
        folders.append(make_round(plan_of(tmp_path / name, dataset, use_truth=use_truth), model, SILENT))
    known, blind = (folder.provenance for folder in folders)
    assert known["items"] == blind["items"]
    assert blind["audit"][0]["precision"] is None and known["audit"][0]["precision"] is not None
    labels = np.concatenate([folders[0].read(r.item).ravel() for r in dataset.unlabelled.regions])
    truth = np.concatenate([dataset.unlabelled.read_truth(i).ravel() for i in range(5)])
    both = (labels != 255) & (truth != 255)
    assert known["audit"][0]["precision"] == pytest.approx((labels == truth)[both].mean())


def test_second_round_is_compared_with_the_first(dataset, model, tmp_path):
    first = make_round(plan_of(tmp_path, dataset, policy=_QUANTILE), model, SILENT)
    other = TinySegmentor(seed=0).eval()
    with torch.no_grad():
        other.classifier.weight += torch.linspace(-0.3, 0.3, 24).view(3, 8, 1, 1)
    second = make_round(plan_of(tmp_path, dataset, number=2, epoch=8, policy=_QUANTILE), other, SILENT)
    pairs = [(first.read(r.item), second.read(r.item)) for r in dataset.unlabelled.regions]
    one, two = (np.concatenate([pair[i].ravel() for pair in pairs]) for i in (0, 1))
    both = (one != 255) & (two != 255)
    assert second.provenance["audit"][0]["agreement"] == pytest.approx((one == two)[both].mean())
    assert 0 < second.provenance["audit"][0]["agreement"] < 1
    table = (tmp_path / "pseudo_labels" / "audit.csv").read_text().splitlines()
    assert len(table) == 1 + 2 * 4
    assert [line.split(",")[0] for line in table[1:]] == ["1"] * 4 + ["2"] * 4


def test_log_says_how_far_it_is_what_came_out_and_what_is_wrong(dataset, model, tmp_path, caplog):
    logger = logging.getLogger("told")
    with torch.no_grad():
        model.classifier.bias[2] -= 100  # no pixel is malignant any more
    with caplog.at_level(logging.INFO, logger="told"):
        folder = make_round(plan_of(tmp_path, dataset), model, logger)
    text = caplog.text
    assert "5 regions" in text and "5/5 regions, 100%" in text and "s per megapixel" in text
    assert "kept 100.0% of the pixels" in text and "malignant 0%" in text
    assert [r.levelname for r in caplog.records if "malignant has died out" in r.message] == ["WARNING"]
    assert any("malignant has died out" in warning for warning in folder.provenance["warnings"])


def test_progress_is_told_every_half_minute():
    lines, now = [], [0.0]
    logger = SimpleNamespace(info=lines.append)
    progress = Progress("round 1", [0, 1, 2, 3], [10**6] * 4, logger, clock=lambda: now[0])
    for index, at in enumerate((20, 40, 60, 80)):
        now[0] = float(at)
        progress.done(index)
    assert lines == [
        "self-training: round 1: 2/4 regions, 50%, 20.00 s per megapixel, about 40 s left",
        "self-training: round 1: 4/4 regions, 100%, 20.00 s per megapixel",
    ]


def test_two_items_of_one_stem_have_files_of_their_own(tmp_path, model):
    names = ["a/tumour 1.png", "b/tumour 1.png", "a/tumour 1.tif", "ä.png", "ö.png"]
    assert len({file_name(name) for name in names}) == len(names)
    assert file_name("a/tumour 1.png").startswith("tumour_1-")
    part = FakePart(tmp_path, [(20, 20)], 0, "x")
    assert file_name(part.regions[0].item) == file_name("images/x0.png")
