"""Self-training with the real parts: breast regions, a U-Net of mmseg, the Runner; and what a user's command gives."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.hooks import EMAHook, Hook
from PIL import Image
from torch.optim import SGD

from pathzoo.datasets.breast_lesions import BreastLesions
from pathzoo.datasets.phantom import write_regions
from pathzoo.datasets.pseudo_labelled import PseudoLabelled
from pathzoo.datasets.regions import SEG_META_KEYS
from pathzoo.datasets.sampling import SeededSampler
from pathzoo.engine import Runner
from pathzoo.engine.checkpoint import latest_checkpoint, load_checkpoint_safely
from pathzoo.engine.hooks import CheckpointHook, EpochSeedHook, SelfTrainingHook
from pathzoo.engine.self_training import PseudoLabelFolder
from pathzoo.errors import DataError

#: Every first region of a phantom patient shows both lesions.
pytestmark = pytest.mark.filterwarnings("ignore:no image of class")
_SPLIT = {"scheme": "patient_ratio", "ratios": {"train": 0.8, "test": 0.2}, "seed": 0, "label_fraction": 0.4}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Ten patients with a region each; three are labelled, five are not, two are for testing. Read only."""
    return write_regions(tmp_path_factory.mktemp("regions"), patients=10, regions_per_patient=1, size=(160, 130)).parent


def _model() -> dict:
    from mmseg.models import EncoderDecoder, SegDataPreProcessor

    from pathzoo.models import DiceLoss, PixelCrossEntropy, TimmBackbone, UNetHead

    indices = (0, 1, 2)
    channels = TimmBackbone("test_resnet", out_indices=indices).channels
    preprocess = {"mean": [123.7, 116.3, 103.5], "std": [58.4, 57.1, 57.4], "size": (64, 64)}
    return {
        "type": EncoderDecoder,
        "data_preprocessor": {"type": SegDataPreProcessor, **preprocess, "test_cfg": {"size_divisor": 32}},
        "backbone": {"type": TimmBackbone, "name": "test_resnet", "out_indices": indices},
        "decode_head": {
            "type": UNetHead,
            "in_channels": channels,
            "decoder_channels": (16, 8, 8),
            "num_classes": 3,
            "loss_decode": [{"type": PixelCrossEntropy}, {"type": DiceLoss}],
        },
        "train_cfg": {},
        "test_cfg": ConfigDict(mode="whole"),
    }


def _dataset(data: Path, **part) -> dict:
    from mmseg.datasets.transforms import PackSegInputs

    pipeline = [{"type": PackSegInputs, "meta_keys": SEG_META_KEYS}]
    shared = {"type": BreastLesions, "data_root": str(data), "split": _SPLIT, "patch_size": 64, "pipeline": pipeline}
    return {
        "type": PseudoLabelled,
        "labelled": {**shared, "subset": "train", "balance": 0.5, **part},
        "unlabelled": {**shared, "subset": "unlabelled", "seed": 1, **part},
        "patches_per_epoch": 8,
        "weight": 0.5,
    }


class _Seen(Hook):
    """What the samples of each epoch said of themselves."""

    def __init__(self) -> None:
        self.weights: dict[int, list[float]] = {}
        self.labels: list[tuple[dict, np.ndarray]] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        for sample in data_batch["data_samples"]:
            self.weights.setdefault(runner.epoch, []).append(sample.loss_weight)
            if sample.loss_weight == 0.5:
                self.labels.append((sample.metainfo, sample.gt_sem_seg.data[0].numpy()))


def _train(work_dir: Path, data: Path, epochs: int = 4, resume: bool = False, workers: int = 0, **part) -> _Seen:
    seen = _Seen()
    changes = {"resume": True, "load_from": str(latest_checkpoint(work_dir))} if resume else {}
    loader = {"batch_size": 4, "num_workers": workers, "persistent_workers": workers > 0}
    loader |= {"sampler": {"type": SeededSampler, "shuffle": True}, "collate_fn": {"type": pseudo_collate}}
    labels = {"policy": {"type": "quantile", "keep": 0.7}, "tta": "flips", "tile": 80, "stride": 60}
    Runner(
        model=_model(),
        work_dir=str(work_dir),
        train_dataloader={**loader, "dataset": _dataset(data, **part)},
        train_cfg={"by_epoch": True, "max_epochs": epochs},
        optim_wrapper={"optimizer": {"type": SGD, "lr": 0.05, "momentum": 0.9}},
        default_hooks={"checkpoint": {"type": CheckpointHook, "interval": 1}},
        custom_hooks=[
            {"type": EpochSeedHook},
            {"type": EMAHook, "momentum": 0.2, "update_buffers": True},
            {"type": SelfTrainingHook, "rounds": [1, 3], **labels},
            seen,
        ],
        randomness={"seed": 3},
        default_scope=None,
        **changes,
    ).train()
    return seen


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> tuple[Path, _Seen]:
    """A run of four epochs with rounds before the second and the fourth. Read only."""
    folder = tmp_path_factory.mktemp("run")
    return folder, _train(folder, data)


def test_training_sees_the_labels_of_the_round_at_their_place(data, trained):
    folder, seen = trained
    assert [seen.weights[epoch].count(0.5) for epoch in range(4)] == [0, 4, 4, 4]
    rounds = [PseudoLabelFolder(folder / "pseudo_labels" / f"round_{number:02d}") for number in (1, 2)]
    for number, (info, labels) in enumerate(seen.labels):
        whole = rounds[0 if number < 8 else 1].read(info["item"])
        x, y = info["patch_x"], info["patch_y"]
        np.testing.assert_array_equal(labels, whole[y : y + 64, x : x + 64])
    assert any((labels == 255).any() for _, labels in seen.labels)
    assert any((labels != 255).any() for _, labels in seen.labels)


def test_folder_holds_every_unlabelled_region_and_nothing_else(data, trained):
    folder, _ = trained
    made = PseudoLabelFolder(folder / "pseudo_labels" / "round_01")
    part = BreastLesions(data_root=str(data), split=_SPLIT, subset="unlabelled")
    assert set(made.items) == {region.item for region in part.regions}
    made.check(part)
    for number, region in enumerate(part.regions):
        labels, truth = made.read(region.item), part.read_truth(number)
        assert labels.shape == truth.shape == (130, 160)
    other = BreastLesions(data_root=str(data), split=_SPLIT | {"seed": 1}, subset="unlabelled")
    with pytest.raises(DataError, match="another split"):
        made.check(other)


def test_audit_knows_the_hidden_truth(data, trained):
    folder, _ = trained
    with (folder / "pseudo_labels" / "audit.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["round"], row["class"]) for row in rows] == [
        (number, name) for number in "12" for name in ("all", "normal", "benign", "malignant")
    ]
    part = BreastLesions(data_root=str(data), split=_SPLIT, subset="unlabelled")
    made = PseudoLabelFolder(folder / "pseudo_labels" / "round_02")
    labels = np.concatenate([made.read(region.item).ravel() for region in part.regions])
    truth = np.concatenate([part.read_truth(index).ravel() for index in range(len(part.regions))])
    right = (labels == truth)[labels != 255].mean()
    assert float(rows[4]["precision"]) == pytest.approx(right, rel=1e-5)
    assert float(rows[4]["kept_share"]) == pytest.approx((labels != 255).mean(), rel=1e-5)
    assert float(rows[4]["kept_share"]) >= 0.7  # more where many are equally sure, as after so few steps
    assert rows[0]["agreement"] == "" and 0 < float(rows[4]["agreement"]) <= 1
    train = BreastLesions(data_root=str(data), split=_SPLIT, subset="train")
    labelled = np.concatenate([train.read_labels(index).ravel() for index in range(len(train.regions))])
    assert float(rows[7]["labelled_mix"]) == pytest.approx((labelled == 2).mean(), rel=1e-5)
    assert Image.open(folder / "pseudo_labels" / "audit.png").size[0] > 1000


@pytest.mark.parametrize(("workers", "cache"), [(0, "memory"), (2, "memory"), (2, "memmap")])
def test_resumed_run_equals_an_unbroken_one(data, tmp_path, trained, monkeypatch, workers, cache):
    """Stopped after the second epoch, between rounds; with persistent workers and mapped files, too."""
    monkeypatch.setenv("PATHZOO_CACHE", str(tmp_path / "cache"))
    # A round after the end is refused, so the first part is cut short as a cluster does it.
    whole = load_checkpoint_safely(trained[0] / "epoch_4.pth")
    folder = tmp_path / "run"
    _train(folder, data, workers=workers, cache=cache)
    for number in (3, 4):
        (folder / f"epoch_{number}.pth").unlink()
    (folder / "pseudo_labels" / "round_02" / "provenance.json").unlink()
    region = next((folder / "pseudo_labels" / "round_02" / "regions").glob("*.json"))
    region.unlink()
    _train(folder, data, resume=True, workers=workers, cache=cache)
    resumed = load_checkpoint_safely(folder / "epoch_4.pth")
    for part in ("state_dict", "ema_state_dict"):
        assert resumed[part].keys() == whole[part].keys()
        for name, tensor in resumed[part].items():
            assert torch.equal(tensor, whole[part][name]), name
