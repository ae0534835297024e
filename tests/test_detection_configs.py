"""What the detection configs say of YOLOv5's release 7.0 and of RTMDet, against formulas and mmdet's own configs."""

import copy
import math
import re
from pathlib import Path

import mmdet
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import nn

from pathzoo.apis.config import load_config
from pathzoo.apis.setup import setup
from pathzoo.paths import configs_root
from pathzoo.registry import MODELS

_FOLDER = configs_root() / "glomerulus_yolov5"
_LARGE = sorted(path.name for path in _FOLDER.glob("*_1600x1200.py"))
_YOLO_L = "glomerulus_yolov5/yolov5l_1xb8_300e_glomeruli_1600x1200.py"
_RTMDET_M = "glomerulus_yolov5/rtmdet-m_1xb8_300e_glomeruli_1600x1200.py"
_RTMDET_TINY = "glomerulus_yolov5/rtmdet-tiny_1xb8_40e_glomeruli_small.py"
#: Size -> parameters with 80 classes, millions, as mmdet's table of RTMDet has them.
_PUBLISHED = {_RTMDET_TINY: 4.8, _RTMDET_M: 24.7}
_TILE = (1600, 1216)


@pytest.fixture(scope="module", autouse=True)
def _set_up():
    setup()


@pytest.mark.parametrize("name", _LARGE)
def test_large_configs_are_of_the_studys_tiles_and_differ_in_their_model_alone(name):
    config, other = load_config(f"glomerulus_yolov5/{name}"), load_config(_YOLO_L)
    assert tuple(config.model_input.tile_size) == _TILE
    for part in ("train", "val", "test"):
        assert tuple(config[f"{part}_dataloader"].dataset.pipeline[0].size) == _TILE
        assert config[f"{part}_dataloader"] == other[f"{part}_dataloader"]
    assert config.train_cfg == other.train_cfg
    ratios = config.train_dataloader.dataset.split.ratios
    assert (ratios.train + ratios.val) / ratios.test == pytest.approx(4)


def test_the_peers_of_small_differ_in_model_and_optimizer_alone():
    names = (_RTMDET_TINY, "glomerulus_yolov5/yolov5n_1xb8_40e_glomeruli_small.py")
    peer, ours = (load_config(name).to_dict() for name in names)
    differ = {key for key in ours if key[0] != "_" and key in peer and str(ours[key]) != str(peer[key])}
    assert differ == {"model", "optim_wrapper", "param_scheduler"}


@pytest.mark.parametrize("size", ["l", "x"])
def test_the_studys_models_begin_with_weights_and_never_without(size):
    config = load_config(_YOLO_L.replace("yolov5l", f"yolov5{size}"))
    assert config.load_from == f"data/yolov5{size}_coco.pth"
    assert config.model.bbox_head.num_classes == 1


class _Sum(nn.Module):
    """A loss that is a sum over samples, as YOLOv5's is over the tiles of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.line(x) ** 2).mean() * len(x)


def _steps(config: Config, batches: torch.Tensor, rate: float) -> _Sum:
    torch.manual_seed(0)
    model = _Sum()
    wrapper = build_optim_wrapper(model, copy.deepcopy(config.optim_wrapper))
    for group in wrapper.param_groups:
        group["lr"] = rate
    for x in batches:
        wrapper.update_params(model(x))
    return model


def test_gathered_as_the_schedule_says_a_step_is_the_releases():
    """SGD by its formula: 64 tiles summed, rate 0.01, decay 5e-4 of weights and none of biases, Nesterov's momentum."""
    options = {"optim_wrapper.accumulative_counts": 8}
    text = (configs_root() / "_base_/schedules/detection_300e.py").read_text()
    rate, end = (float(re.search(rf"{key}=([0-9.e-]+)", text)[1]) for key in ("optimizer.lr", "2.eta_min"))
    tiles = torch.randn(64, 3, generator=torch.Generator().manual_seed(1))
    found = _steps(load_config(_YOLO_L, options), tiles.view(8, 8, 3), rate)
    torch.manual_seed(0)
    own = _Sum()
    own(tiles).backward()
    for name, value in own.named_parameters():
        slope = value.grad + (5e-4 * value.detach() if name.endswith("weight") else 0)
        stepped = value.detach() - 0.01 * (slope + 0.937 * slope)
        torch.testing.assert_close(found.get_parameter(name).detach(), stepped)
    assert (rate / end) == pytest.approx(100)


def test_the_course_of_rate_and_momentum_is_the_releases():
    config = load_config(_YOLO_L)
    assert config.train_cfg.max_epochs == 300
    wrapper = build_optim_wrapper(_Sum(), copy.deepcopy(config.optim_wrapper))
    per_epoch = 4
    schedulers = []
    for entry in copy.deepcopy(config.param_scheduler):
        kind = entry.pop("type")
        entry.pop("convert_to_iter_based")
        schedulers.append(kind.build_iter_from_epoch(optimizer=wrapper, epoch_length=per_epoch, **entry))
    rates, momenta = [], []
    for _ in range(300 * per_epoch):
        rates.append(wrapper.param_groups[0]["lr"])
        momenta.append(wrapper.param_groups[0]["momentum"])
        wrapper.optimizer.step()  # its gradients are none: nothing moves
        for scheduler in schedulers:
            scheduler.step()
    assert rates[0] < 1e-4 and rates[3 * per_epoch] == pytest.approx(0.01, rel=0.01)
    assert momenta[0] == pytest.approx(0.8) and momenta[-1] == momenta[3 * per_epoch] == pytest.approx(0.937)
    for epoch in (30, 150, 299):
        wave = (1 + math.cos(math.pi * (epoch - 3) / 297)) / 2
        assert rates[epoch * per_epoch] == pytest.approx(1e-4 + (0.01 - 1e-4) * wave, rel=0.02), epoch


def test_the_average_is_the_releases():
    """0.9999 (1 - exp(-steps / 2000)) of the average stays at each step."""
    hook = next(h for h in load_config(_YOLO_L).custom_hooks if "momentum" in h)
    model = nn.Linear(1, 1, bias=False)
    average = hook.ema_type(model, momentum=hook.momentum, gamma=hook.gamma, update_buffers=hook.update_buffers)
    nn.init.zeros_(model.weight)
    average.update_parameters(model)  # the first call copies
    expected = 0.0
    for step in range(1, 40):
        nn.init.constant_(model.weight, step)
        average.update_parameters(model)
        keep = 0.9999 * (1 - math.exp(-(step + 1) / 2000))
        expected = keep * expected + (1 - keep) * step
        assert float(average.module.weight.detach()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", [_YOLO_L, _RTMDET_M])
def test_what_fills_up_a_picture_is_grey(name):
    """114 of 255, as mosaics have it, up to a multiple of 32."""
    preprocessor = MODELS.build(copy.deepcopy(load_config(name).model.data_preprocessor))
    picture = torch.full((3, 40, 33), 114, dtype=torch.uint8)
    inputs = preprocessor({"inputs": [picture], "data_samples": None}, False)["inputs"][0]  # (3, 64, 64)
    pixels = inputs * preprocessor.std + preprocessor.mean
    # RTMDet's is the mean of its pictures, which differs a little by channel.
    torch.testing.assert_close(pixels, torch.full_like(pixels, 114), atol=11 if name == _RTMDET_M else 1e-4, rtol=0)


def _theirs(name: str) -> Config:
    size = "tiny" if "tiny" in name else "m"
    folder = Path(mmdet.__file__).parent / ".mim" / "configs" / "rtmdet"
    config = Config.fromfile(folder / f"rtmdet_{size}_8xb32-300e_coco.py").model
    config.backbone.pop("init_cfg", None)
    return config


def _built(config: Config) -> nn.Module:
    with DefaultScope.overwrite_default_scope("mmdet"):
        return MODELS.build(copy.deepcopy(config))


@pytest.mark.parametrize("name", [_RTMDET_TINY, _RTMDET_M])
def test_rtmdet_is_mmdets(name):
    ours, theirs = load_config(name, {"model.bbox_head.num_classes": 80}).model, _theirs(name)
    for block in ("train_cfg", "test_cfg"):
        one, other = ours[block].to_dict(), theirs[block].to_dict()
        other.pop("debug", None)
        assert str({**one, "assigner": 0}) == str({**{key: other[key] for key in one}, "assigner": 0})
    with torch.device("meta"):
        own = MODELS.build(copy.deepcopy(ours))
        other = _built(theirs)
    assert {k: v.shape for k, v in own.state_dict().items()} == {k: v.shape for k, v in other.state_dict().items()}
    assert sum(p.numel() for p in own.parameters()) / 1e6 == pytest.approx(_PUBLISHED[name], abs=0.1)
    settings = [
        [(m.eps, m.momentum) for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for net in (own, other)
    ]
    assert settings[0] == settings[1]
    assert own.bbox_head.exp_on_reg == other.bbox_head.exp_on_reg
    assert own.bbox_head.assigner.topk == other.bbox_head.assigner.topk == 13
    assert str(own.bbox_head.loss_cls.__dict__) == str(other.bbox_head.loss_cls.__dict__)


def test_weights_that_learnt_blue_first_answer_alike_once_their_stem_is_turned(tmp_path, monkeypatch):
    """The command in the config's head, on a file as mmdet's: then ours sees in RGB what theirs saw in BGR."""
    theirs = _built(_theirs(_RTMDET_TINY)).eval()
    torch.save({"state_dict": theirs.state_dict(), "meta": {}}, tmp_path / "rtmdet_m.pth")
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    text = (configs_root() / _RTMDET_M).read_text()
    exec(re.search(r'python -c "(.*?)"', text, re.DOTALL)[1].replace("\n    ", "\n"), {})
    ours = MODELS.build(load_config(_RTMDET_TINY, {"model.bbox_head.num_classes": 80}).model).eval()
    ours.load_state_dict(torch.load(tmp_path / "data/rtmdet-m_coco.pth", weights_only=True)["state_dict"])
    rgb = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    answers = []
    for model, tiles in ((ours, rgb), (theirs, rgb.flip(1))):
        inputs = model.data_preprocessor({"inputs": tiles, "data_samples": None}, False)["inputs"]
        with torch.no_grad():
            answers.append(model(inputs, mode="tensor"))
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
