"""What the CT configs say: one parameter reaches every place, arms take equal steps, grey values arrive as meant."""

import copy
import json

import numpy as np
import pytest
import torch
from slice_stores import write_slices, write_synthetic

from pathzoo.apis.checks import check_model_input, model_input
from pathzoo.apis.config import load_config
from pathzoo.apis.setup import setup
from pathzoo.apis.test import test as run_test
from pathzoo.apis.train import train
from pathzoo.datasets.sampling import SeededSampler
from pathzoo.datasets.transforms import HUWindow
from pathzoo.errors import ConfigError
from pathzoo.paths import configs_root
from pathzoo.registry import DATASETS, MODELS

_NAMES = sorted(
    f"kits_pix2pix/{path.name}"
    for kind in ("unet", "fpn")
    for path in (configs_root() / "kits_pix2pix").glob(f"{kind}*")
)
_SMALL = [name for name in _NAMES if name.endswith("_small.py")]
_UNET1 = "kits_pix2pix/unet1_1xb8_30e_ctslices_small.py"
_PARTS = ("train", "val", "test")


@pytest.fixture(scope="module", autouse=True)
def _set_up():
    setup()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_slices(tmp_path_factory.mktemp("real") / "store", size=(128, 128))


@pytest.fixture(scope="module")
def made(store, tmp_path_factory):
    made_from = tuple((f"P{n % 4}", f"{n % 2 + 1:04d}") for n in range(9))
    return write_synthetic(tmp_path_factory.mktemp("made") / "store", store, made_from, known_range=(-200, 200))


def test_each_size_has_the_studys_three_models():
    for size in (_SMALL, sorted(set(_NAMES) - set(_SMALL))):
        assert sorted(name.split("/")[1].split("_")[0] for name in size) == ["fpn", "unet1", "unet2"]


@pytest.mark.parametrize("name", _NAMES)
def test_configs_of_a_size_differ_in_their_model_alone(name):
    config, other = load_config(name), load_config(_SMALL[0] if name in _SMALL else _NAMES[1])
    for part in _PARTS:
        assert config[f"{part}_dataloader"] == other[f"{part}_dataloader"]
    for key in ("optim_wrapper", "param_scheduler", "train_cfg", "default_hooks", "custom_hooks", "model_input"):
        assert config[key] == other[key]
    assert config.optim_wrapper.optimizer.lr == (0.003 if name in _SMALL else 0.001)
    assert config.default_hooks.checkpoint.save_best == "slice_iou"


@pytest.mark.parametrize("name", _NAMES)
def test_a_parameter_reaches_every_place(name):
    values = {"data_root": "D", "window_centre": 40, "window_width": 300, "augment": 1.0, "synthetic": "S"}
    values |= {"synthetic_count": 5, "samples_per_epoch": 16, "dice_weight": 0.5, "seed": 7}
    config = load_config(name, values)
    for part in _PARTS:
        dataset = config[f"{part}_dataloader"].dataset
        assert dataset.data_root == "D"
        windows = [step for step in dataset.pipeline if getattr(step["type"], "__name__", "") == "HUWindow"]
        assert [(step["centre"], step["width"]) for step in windows] == [(40, 300)]
        assert dataset.get("synthetic") == ("S" if part == "train" else None)
    train_loader = config.train_dataloader
    assert [step.p for step in train_loader.dataset.pipeline[1].transforms] == [1.0]
    assert (train_loader.sampler.samples_per_epoch, train_loader.dataset.synthetic_count) == (16, 5)
    assert (config.randomness.seed, train_loader.dataset.seed) == (7, 7)
    assert [loss.loss_weight for loss in config.model.decode_head.loss_decode] == [1.0, 0.5]
    check_model_input(config)
    assert list(model_input(config)["hu_window"]) == [-110, 190]


def test_the_first_unet_has_a_sixteenth_of_the_seconds_parameters():
    counts = {}
    for name in _NAMES:
        with torch.device("meta"):
            model = MODELS.build(copy.deepcopy(load_config(name, {"model.backbone.pretrained": None}).model))
        counts[name.split("/")[1].split("_")[0], name in _SMALL] = sum(p.numel() for p in model.parameters())
    for small in (True, False):
        assert counts["unet2", small] / counts["unet1", small] == pytest.approx(16, rel=0.01)
    assert counts["unet2", False] == pytest.approx(29e6, rel=0.01)  # mmseg's own U-Net with 64 channels at first


@pytest.mark.parametrize("name", [name for name in _NAMES if "unet" in name])
def test_a_unets_last_layer_begins_wide_enough_to_tell_pixels_apart(name):
    """mmseg begins it with a deviation of 0.01: of 8 channels a U-Net then makes background for hundreds of steps."""
    torch.manual_seed(0)
    model = MODELS.build(copy.deepcopy(load_config(name).model))
    model.init_weights()
    layer = model.decode_head.conv_seg
    assert layer.weight.std().item() == pytest.approx((3 * layer.in_channels) ** -0.5, rel=0.3)  # torch's own


@pytest.mark.parametrize("name", _SMALL)
@pytest.mark.parametrize("part", _PARTS)
def test_hounsfield_units_reach_the_network_from_minus_1_to_1(name, part, store):
    """-200 HU becomes -1, 0 HU 0, 200 HU 1: of the store's own pixels, through pipeline and preprocessor."""
    config = load_config(name, {"data_root": str(store), "model.backbone.pretrained": None})
    dataset = DATASETS.build(copy.deepcopy(config[f"{part}_dataloader"].dataset))
    raw = DATASETS.build({**_plain(config[f"{part}_dataloader"].dataset), "pipeline": []})
    samples = [dataset[index] for index in (1, 2)]
    batch = {key: [sample[key] for sample in samples] for key in samples[0]}
    preprocess = MODELS.build(config.model.data_preprocessor)
    given = preprocess(batch, training=part == "train")["inputs"].numpy()
    assert given.shape == (2, 1, 128, 128)
    hu = np.stack([raw[index]["img"] for index in (1, 2)])[:, None]
    np.testing.assert_allclose(given, np.clip(hu / 200, -1, 1), atol=1e-5)
    for index, sample in zip((1, 2), samples, strict=True):
        np.testing.assert_array_equal(sample["data_samples"].gt_sem_seg.data[0].numpy(), raw[index]["gt_seg_map"])


def test_every_arm_takes_equally_many_steps(store, made):
    steps = set()
    for synthetic in (None, str(made)):
        config = load_config(_UNET1, {"data_root": str(store), "synthetic": synthetic})
        dataset = DATASETS.build(copy.deepcopy(config.train_dataloader.dataset))
        assert len(dataset) == (12 if synthetic is None else 21)
        sampler = SeededSampler(dataset, seed=0, samples_per_epoch=config.train_dataloader.sampler.samples_per_epoch)
        steps.add(len(list(sampler)) // config.train_dataloader.batch_size)
        assert len(set(sampler)) == len(dataset)
    assert len(steps) == 1


def test_the_fourth_scenario_trains_is_tested_and_leaves_its_record(store, made, tmp_path):
    options = {"data_root": str(store), "synthetic": str(made), "augment": 1.0, "dice_weight": 1.0}
    options |= {"train_cfg.max_epochs": 1, "samples_per_epoch": 4, "train_dataloader.batch_size": 2}
    folder = train(_UNET1, tmp_path / "run", options=options)
    record = json.loads((folder / "train_run.json").read_text())
    assert record["data"]["counts"]["n_synthetic"] == 9
    assert any("9 of 21 slices are synthetic" in text for text in record["data"]["counts"]["caveats"])
    assert record["model_input"]["hu_window"] == [-200, 200]
    assert record["model_input"]["channels"] == "grey"
    assert list(folder.glob("best_slice_iou_*.pth"))
    rows = run_test(_UNET1, work_dir=folder, options=options)
    found = {row["metric"]: row for row in rows}
    assert found["slice_iou"]["n"] == 6  # slices of P5 and P6
    assert found["patient_dice_tumour"]["n"] == 2
    assert (folder / "test" / "plots").is_dir()


def test_a_window_that_the_store_does_not_hold_ends_the_run_before_it_begins(tmp_path):
    known = write_slices(tmp_path / "known", size=(128, 128), known_range=(0, 255))
    with pytest.raises(
        ConfigError, match=r"known: its HU are known from 0 to 255 alone.*window_centre=.*window_width="
    ):
        train(_UNET1, tmp_path / "run", options={"data_root": str(known)})
    assert not (tmp_path / "run").exists()
    config = load_config(_UNET1, {"data_root": str(known), "window_centre": 127.5, "window_width": 255})
    assert HUWindow(127.5, 255).bounds == tuple(model_input(config)["hu_window"])
    assert len(DATASETS.build(copy.deepcopy(config.test_dataloader.dataset))) == 6


def _plain(config):
    """A config's dict with its classes, which mmengine hands out by [] alone."""
    return {key: config[key] for key in config}
