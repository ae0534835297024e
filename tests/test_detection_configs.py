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
from pathzoo.apis.train import train
from pathzoo.errors import ConfigError
from pathzoo.paths import configs_root
from pathzoo.registry import MODELS

_FOLDER = configs_root() / "glomerulus_yolov5"
_LARGE = sorted(path.name for path in _FOLDER.glob("*_1600x1200.py"))
_YOLO_L = "glomerulus_yolov5/yolov5l_1xb8_300e_glomeruli_1600x1200.py"
_YOLO_N = "glomerulus_yolov5/yolov5n_1xb8_40e_glomeruli_small.py"
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
    names = (_RTMDET_TINY, _YOLO_N)
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


def _options(text: str) -> dict[str, float]:
    """The numbers that a docstring's line of options sets."""
    return {key: float(value) for key, value in re.findall(r"\b((?:optim|param|custom)\w+\.[\w.]+)=([0-9.e-]+)", text)}


@pytest.mark.parametrize("scale", [0.1, 1, 5])
def test_gathered_as_the_schedule_says_a_step_is_the_releases(scale):
    """SGD by its formula: 64 tiles summed, cut at 10, rate 0.01, decay 5e-4 of weights alone, Nesterov's momentum."""
    options = _options((configs_root() / "_base_/schedules/detection_300e.py").read_text())
    rate, end = options.pop("optim_wrapper.optimizer.lr"), options.pop("param_scheduler.2.eta_min")
    options["optim_wrapper.accumulative_counts"] = int(options["optim_wrapper.accumulative_counts"])
    tiles = torch.randn(64, 3, generator=torch.Generator().manual_seed(1)) * scale
    found = _steps(load_config(_YOLO_L, options), tiles.view(8, 8, 3), rate)
    torch.manual_seed(0)
    own = _Sum()
    own(tiles).backward()
    norm = math.sqrt(sum(float((value.grad**2).sum()) for value in own.parameters()))
    for name, value in own.named_parameters():
        slope = value.grad * min(1, 10 / norm) + (5e-4 * value.detach() if name.endswith("weight") else 0)
        stepped = value.detach() - 0.01 * (slope + 0.937 * slope)
        torch.testing.assert_close(found.get_parameter(name).detach(), stepped)
    assert (rate / end) == pytest.approx(100)


@pytest.mark.parametrize(("name", "decay"), [(_YOLO_L, 5e-4 / 8), (_YOLO_N, 5e-4)])
def test_a_step_of_eight_tiles_is_cut_at_ten(name, decay):
    tiles = torch.randn(8, 3, generator=torch.Generator().manual_seed(1)) * 20
    found = _steps(load_config(name), tiles[None], 0.01)
    torch.manual_seed(0)
    own = _Sum()
    own(tiles).backward()
    norm = math.sqrt(sum(float((value.grad**2).sum()) for value in own.parameters()))
    assert norm > 100
    slope = own.line.weight.grad * 10 / norm + decay * own.line.weight.detach()
    torch.testing.assert_close(found.line.weight.detach(), own.line.weight.detach() - 0.01 * 1.937 * slope)


@pytest.mark.parametrize("name", [name for name in _LARGE if name.startswith("yolov5")])
def test_with_a_smaller_batch_decay_cut_and_average_are_the_same_for_a_tile(name):
    text = (_FOLDER / name).read_text()
    options = _options(text)
    batch = int(re.search(r"train_dataloader.batch_size=(\d+)", text)[1])
    config, less = load_config(f"glomerulus_yolov5/{name}"), load_config(f"glomerulus_yolov5/{name}", options)
    part = batch / config.train_dataloader.batch_size
    assert less.optim_wrapper.optimizer.weight_decay == pytest.approx(
        config.optim_wrapper.optimizer.weight_decay * part
    )
    assert less.optim_wrapper.clip_grad.max_norm == pytest.approx(config.optim_wrapper.clip_grad.max_norm * part)
    averages = [next(h for h in each.custom_hooks if "momentum" in h) for each in (config, less)]
    assert averages[1].momentum == pytest.approx(averages[0].momentum * part)
    assert averages[1].gamma == pytest.approx(averages[0].gamma / part)
    assert len(options) == 4


@pytest.mark.parametrize("name", sorted(path.name for path in _FOLDER.glob("yolov5*.py")))
def test_a_rate_is_not_scaled_where_the_loss_is_a_sum(name, tmp_path):
    with pytest.raises(ConfigError, match=r"--auto-scale-lr: .*a sum over tiles.*leave --auto-scale-lr out"):
        train(f"glomerulus_yolov5/{name}", tmp_path / "run", auto_scale_lr=True)
    assert not (tmp_path / "run").exists()


def test_neither_is_it_by_a_runs_own_copy_of_its_config(tmp_path):
    """Which names classes by text."""
    load_config(_YOLO_N).dump(str(tmp_path / "copy.py"))
    with pytest.raises(ConfigError, match=r"--auto-scale-lr: the loss of YOLOv5Head"):
        train(tmp_path / "copy.py", tmp_path / "run", auto_scale_lr=True)


@pytest.mark.parametrize("name", [_RTMDET_TINY, _RTMDET_M])
def test_a_rate_is_scaled_where_the_loss_is_a_mean(name):
    assert load_config(name).auto_scale_lr.base_batch_size == 8


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


def _kept(name: str, step: int, times: int) -> float:
    """What stays of the average over `times` steps, the first of them being number `step`."""
    hook = next(h for h in load_config(name).custom_hooks if "momentum" in h)
    model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    average = hook.ema_type(model, momentum=hook.momentum, gamma=hook.gamma, update_buffers=hook.update_buffers)
    nn.init.ones_(average.module.weight)
    nn.init.zeros_(model.weight)
    average.steps.fill_(step)
    for _ in range(times):
        average.update_parameters(model)
    return float(average.module.weight.detach())


@pytest.mark.parametrize("name", [name for name in _LARGE if name.startswith("yolov5")])
def test_the_average_is_in_the_end_the_releases(name):
    """At the release's step s, of 64 tiles, 0.9999 (1 - exp(-s / 2000)) stays; here 8 steps of 8 tiles make one."""
    for step in (40_000, 60_000):
        release = 0.9999 * (1 - math.exp(-step / 2000))
        assert 1 - _kept(f"glomerulus_yolov5/{name}", 8 * step, 8) == pytest.approx(1 - release, rel=1e-3)
    # The course of a single step is the release's at the same number of tiles.
    one = 1 - _kept(f"glomerulus_yolov5/{name}", 8 * 2000, 1)
    assert one == pytest.approx(math.exp(-1), rel=1e-3)


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
