"""Cross-fitting: nobody is predicted by a model that has seen them; what is done is not done again."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import nn

from pathzoo.apis.config import load_config
from pathzoo.apis.cross_fit import (
    _data_options,
    _write_labels,
    cross_fit,
    deal_folds,
    labelled_part,
    region_probabilities,
)
from pathzoo.apis.setup import setup
from pathzoo.datasets.breast_lesions import BreastLesions
from pathzoo.datasets.phantom import write_regions
from pathzoo.engine.self_training.labeller import Tiling
from pathzoo.errors import ConfigError, DataError
from pathzoo.evaluation.region_probs import read_region_probs
from pathzoo.registry import DATASETS

CONFIG = "self_training/supervised_resnest14d-unet_1xb8_48e_breastlesions_small.py"
#: Small regions lack a class now and then.
pytestmark = pytest.mark.filterwarnings("ignore:no image of class")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PATHZOO_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Ten patients, a region of 160 x 130 each; six of them train by the config's split. Read only."""
    return write_regions(
        tmp_path_factory.mktemp("regions"), patients=10, regions_per_patient=1, size=(160, 130), mpp=2.0
    ).parent


def options(data, **more):
    values = {
        "data_root": str(data),
        "train_cfg.max_epochs": 1,
        "patches_per_epoch": 2,
        "train_dataloader.batch_size": 2,
        "model.backbone.name": "test_resnet",
        "model.backbone.out_indices": (0, 1),
        "model.decode_head.in_channels": (32, 32),
        "model.decode_head.decoder_channels": (8, 8),
    }
    return values | more


@pytest.fixture(scope="module")
def fitted(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted") / "run"
    told = []
    found = cross_fit(CONFIG, folder, 2, options(data), progress=told.append)
    return found, folder, told


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".npz", ".pth")}


def test_nobody_is_predicted_by_a_model_that_saw_them(fitted, data):
    found, folder, _ = fitted
    classes = found.dataset.metainfo["classes"]
    of_item = {region.item: region for region in found.dataset.regions}
    assert len(of_item) == 6
    folds = {item: read_region_probs(found.predictions, region, classes)[1] for item, region in of_item.items()}
    assert set(folds.values()) == {0, 1}
    for fold in (0, 1):
        # What was trained on, by the config that the training run itself wrote down.
        written = next((folder / f"fold_{fold}").glob("*.py"))
        seen = DATASETS.build(Config.fromfile(str(written)).train_dataloader.dataset)
        patients = {seen.get_data_info(index)["patient"] for index in range(len(seen))}
        patients |= {region.patient for region in seen.regions}
        assert patients and not patients & {of_item[item].patient for item, tested in folds.items() if tested == fold}
        record = json.loads((folder / f"fold_{fold}" / "train_run.json").read_text())
        assert record["data"]["digest"] == seen.data_digest and record["status"] == "finished"
    tested = {region.patient for region in load_part(data, "test").regions}
    assert not tested & {region.patient for region in of_item.values()}  # the config's own test part stays out of it


def load_part(data, subset):
    config = load_config(CONFIG, options(data))
    return DATASETS.build({**config.test_dataloader.dataset, "subset": subset})


def test_probabilities_are_of_the_whole_region_and_add_up(fitted):
    found, *_ = fitted
    for region in found.dataset.regions:
        probs, _ = read_region_probs(found.predictions, region, found.dataset.metainfo["classes"])
        assert probs.shape == (3, 130, 160) and probs.dtype == np.uint8
        assert np.abs(probs.astype(int).sum(axis=0) - 255).max() <= 2


def test_what_is_done_is_not_done_again(fitted, data):
    found, folder, told = fitted
    assert sum("training" in line for line in told) == 2 and sum("predicted" in line for line in told) == 6
    before, again = stamps(folder), []
    cross_fit(CONFIG, folder, 2, options(data), progress=again.append)
    assert stamps(folder) == before and again == []
    lost, damaged, *_ = sorted(found.predictions.iterdir())
    contents = {path: np.load(path)["probs"] for path in (lost, damaged)}
    lost.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-100])
    cross_fit(CONFIG, folder, 2, options(data), progress=again.append)
    assert len(again) == 2 and all("predicted" in line for line in again)
    for path, probs in contents.items():
        np.testing.assert_array_equal(np.load(path)["probs"], probs)
    assert {path for path, stamp in stamps(folder).items() if stamp != before[path]} == {lost, damaged}


def test_a_fold_that_was_cut_off_is_trained_to_its_end(fitted, data):
    """What an interruption leaves: a run without an end, and no prediction of its fold."""
    found, folder, _ = fitted
    before = stamps(folder)
    record = json.loads((folder / "fold_1" / "train_run.json").read_text())
    (folder / "fold_1" / "train_run.json").write_text(json.dumps({**record, "status": "running"}))
    for path in (folder / "fold_1").iterdir():
        if path.suffix == ".pth" or path.name == "last_checkpoint":
            path.unlink()
    told = []
    cross_fit(CONFIG, folder, 2, options(data), progress=told.append)
    assert [line for line in told if "training" in line] == ["fold 1: training on 3 regions"]
    assert json.loads((folder / "fold_1" / "train_run.json").read_text())["status"] == "finished"
    kept = {path for path, stamp in stamps(folder).items() if before.get(path) == stamp}
    assert {path for path in kept if path.suffix == ".pth"} == {p for p in before if p.parent.name == "fold_0"}
    assert len({region.item for region in found.dataset.regions}) == len(list(found.predictions.iterdir()))


def test_a_folder_of_another_call_is_refused(fitted, data, tmp_path):
    _, folder, _ = fitted
    for more, name in (
        ({"options": options(data, **{"train_cfg.max_epochs": 2})}, "config"),
        ({"folds": 3}, "folds"),
        ({"seed": 1}, "seed"),
    ):
        values = {"folds": 2, "options": options(data)} | more
        with pytest.raises(DataError, match=rf"run: was begun with another value of {name} \(see cross_fit.json"):
            cross_fit(CONFIG, folder, **values)
    content = json.loads((folder / "cross_fit.json").read_text())
    (tmp_path / "cross_fit.json").write_text(json.dumps(content | {"data": "0" * 64}))
    with pytest.raises(DataError, match="another value of data"):
        cross_fit(CONFIG, tmp_path, 2, options(data))


def test_labels_are_as_training_sees_them(data, tmp_path):
    """Planted mistakes are in what the models learn and in what is reviewed; the folds go by them."""
    setup()
    noise = {"flip": 0.5, "seed": 1}
    dataset = labelled_part(load_config(CONFIG, options(data, label_noise=noise)))
    changed = [n for n in range(6) if (dataset.read_labels(n) != dataset.read_truth(n)).any()]
    assert changed
    table = _write_labels(tmp_path, dataset)
    with table.open(newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == [region.item for region in dataset.regions]
    values = {key.rpartition(".")[2]: value for key, value in _data_options(dataset, table).items()}
    again = BreastLesions(**values)
    for number in range(6):
        np.testing.assert_array_equal(again.read_labels(number), dataset.read_labels(number))


def test_folds_deal_patients_and_need_as_many(data):
    setup()
    dataset = labelled_part(load_config(CONFIG, options(data)))
    splits = deal_folds(dataset, 3, 0)
    patients = {region.item: region.patient for region in dataset.regions}
    tested = [item for split in splits for item in split.subsets["test"].items]
    assert sorted(tested) == sorted(patients)
    for split in splits:
        sides = [{patients[item] for item in split.subsets[name].items} for name in ("train", "test")]
        assert not sides[0] & sides[1] and set().union(*sides) == set(patients.values())
    with pytest.raises(DataError, match="7"):
        deal_folds(dataset, 7, 0)


def test_what_cannot_be_cross_fitted(data, tmp_path):
    with pytest.raises(ConfigError, match="folds is 1; cross-fitting takes 2 or more"):
        cross_fit(CONFIG, tmp_path, 1, options(data))
    pseudo = "self_training/selftraining_resnest14d-unet_1xb8_48e_breastlesions_small.py"
    with pytest.raises(ConfigError, match="trains on PseudoLabelled; labels are reviewed by a supervised"):
        cross_fit(pseudo, tmp_path, 2, {"data_root": str(data)})
    assert not list(tmp_path.iterdir())


class RedModel(nn.Module):
    """Answers as one of mmseg's segmentors does; probability of class 1: the red of the pixel itself."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def data_preprocessor(self, data, training):
        return {"inputs": torch.stack([part.float() for part in data["inputs"]]), "data_samples": None}

    def forward(self, inputs, data_samples, mode):
        red = inputs[:, :1] / 255
        logits = torch.cat([1 - red, red], dim=1).clamp(min=1e-6).log()
        return [SimpleNamespace(seg_logits=SimpleNamespace(data=one)) for one in logits]


@pytest.mark.parametrize("size", [(100, 70), (20, 90), (32, 32), (31, 33)])
def test_tiles_of_any_region_are_put_where_they_are_from(size):
    width, height = size
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    for tta in ("none", "flips"):
        probs = region_probabilities(RedModel().eval(), image, 2, Tiling(32, 24, tta))
        assert probs.shape == (2, height, width)
        np.testing.assert_allclose(probs[1].astype(int), image[..., 0], atol=1)
        np.testing.assert_allclose(probs[0].astype(int), 255 - image[..., 0].astype(int), atol=1)
