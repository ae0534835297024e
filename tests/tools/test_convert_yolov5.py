"""State dicts of YOLOv5 under the release's names and ours: exact both ways, other versions named."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from pathzoo.errors import CheckpointError
from pathzoo.models import YOLOv5Head
from pathzoo.models.backbones.yolov5_backbone import YOLOV5_SIZES, YOLOv5Backbone
from pathzoo.models.necks import YOLOv5PAFPN
from pathzoo.models.yolov5_weights import from_release, release_name, shapes, to_release

_TOOL = Path(__file__).parents[2] / "tools" / "analysis_tools" / "convert_yolov5.py"
_spec = importlib.util.spec_from_file_location("convert_yolov5", _TOOL)
tool = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tool)

#: Layers of release 7.0 as its published description lists them; a C3 with the bottlenecks of size n.
CONVS = (0, 1, 3, 5, 7, 10, 14, 18, 21)
C3S = {2: 1, 4: 2, 6: 3, 8: 1, 13: 1, 17: 1, 20: 1, 23: 1}
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def published_names():
    units = [f"model.{k}" for k in CONVS] + ["model.9.cv1", "model.9.cv2"]
    for k, depth in C3S.items():
        units += [f"model.{k}.cv{i}" for i in (1, 2, 3)]
        units += [f"model.{k}.m.{i}.cv{j}" for i in range(depth) for j in (1, 2)]
    names = {f"{unit}.conv.weight" for unit in units} | {f"{unit}.bn.{part}" for unit in units for part in NORM}
    return names | {f"model.24.m.{k}.{part}" for k in range(3) for part in ("weight", "bias")} | {"model.24.anchors"}


def network(classes=2, size="n"):
    deepen, widen = YOLOV5_SIZES[size]
    backbone = YOLOv5Backbone(deepen, widen)
    parts = {"backbone": backbone, "neck": YOLOv5PAFPN(backbone.channels, deepen)}
    return nn.ModuleDict({**parts, "bbox_head": YOLOv5Head(classes, backbone.channels)})


@pytest.fixture(scope="module")
def release():
    """A state dict as of the release, size n, 2 classes; every tensor its own."""
    torch.manual_seed(0)
    state = {}
    for name, shape in shapes("n", 2).items():
        whole = name.endswith("tracked")
        state[release_name(name)] = torch.randint(0, 99, shape) if whole else torch.rand(shape)
    state["model.24.anchors"] = torch.rand(3, 3, 2) * 9 + 1
    return state


def test_names_are_those_that_the_release_has(release):
    assert len(release) == 349
    assert set(release) == published_names()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_back_and_forth_gives_the_same_tensors(release, dtype):
    state = {name: value.to(dtype) if value.is_floating_point() else value for name, value in release.items()}
    ours, found = from_release(state)
    assert (found.size, found.num_classes) == ("n", 2)
    again, same = to_release(ours)
    assert (same.size, same.num_classes) == ("n", 2)
    assert set(again) == set(state)
    assert all(torch.equal(again[name], value) and again[name].dtype == value.dtype for name, value in state.items())


def test_ours_load_into_our_network_and_anchors_are_pixels(release):
    state = {**release, "model.24.anchors": torch.tensor([[[1.25, 1.625]] * 3, [[2.0, 4.0]] * 3, [[3.0, 10.1875]] * 3])}
    ours, found = from_release(state)
    model = network()
    assert set(model.state_dict()) == set(ours)
    assert found.anchors[:, 0].tolist() == [[10, 13], [32, 64], [96, 326]]
    model.bbox_head.anchors.copy_(found.anchors)
    model.load_state_dict(ours, strict=True)
    torch.testing.assert_close(model.backbone.stem.conv.weight, release["model.0.conv.weight"])


@pytest.mark.parametrize("size", YOLOV5_SIZES)
def test_every_size_is_told(size):
    ours = {name: torch.zeros(shape, device="meta") for name, shape in shapes(size, 7).items()}
    release, found = to_release(ours)
    assert (found.size, found.num_classes) == (size, 7)
    back, found = from_release(release)
    assert (found.size, found.num_classes, set(back)) == (size, 7, set(ours))


def other(state, drop=(), **changed):
    names = {name.replace("__", "."): value for name, value in changed.items()}
    return {name: value for name, value in state.items() if not name.startswith(tuple(drop))} | names


ONE = torch.zeros(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: other(s, ["model.24"], model__33__anchors=ONE), "this is a P6 model of YOLOv5"),
        (lambda s: other(s, ["model.24"], model__28__anchors=ONE), "another network of that family"),
        (lambda s: other(s, ["model.0"], model__0__conv__conv__weight=ONE), "release 5.0 or before"),
        (lambda s: other(s, ["model.24"], model__22__dfl__conv__weight=ONE), "YOLOv8 or later"),
        (lambda s: other(s, ["model.24"], model__24__cv2__0__0__conv__weight=ONE), "YOLOv8 or later, or YOLOv5u"),
        (lambda s: other(s, model__24__proto__cv1__conv__weight=ONE), "segmentation"),
        (lambda s: other(s, ["model.24"], model__9__linear__weight=ONE), "classification"),
        (lambda s: other(s, ["model.0.bn"], model__0__conv__bias=ONE), "a fused model"),
        (lambda s: {f"model.{name}": value for name, value in s.items()}, "a wrapped model"),
        (lambda s: {f"ema.{name}": value for name, value in s.items()}, "a wrapped model"),
        (lambda s: {name.removeprefix("model."): value for name, value in s.items()}, "the model's list of layers"),
        (lambda s: {name: v.bfloat16() if v.is_floating_point() else v for name, v in s.items()}, "rounds anchors"),
        (lambda s: from_release(s)[0], "pathzoo's names already"),
        (lambda s: other(s, ["model.24"]), "model.24.anchors is not there"),
        (lambda s: other(s, ["model.4.m.1"]), "12 missing (model.4.m.1.cv1.conv.weight"),
        (lambda s: other(s, model__25__x=ONE), "1 too many (model.25.x)"),
        (lambda s: {**s, "model.0.conv.weight": torch.zeros(16, 3, 3, 3)}, "not (width, 3, 6, 6)"),
        (lambda s: {**s, "model.0.conv.weight": torch.zeros(24, 3, 6, 6)}, "a stem of 24 channels"),
        (lambda s: {**s, "model.24.anchors": torch.zeros(4, 3, 2)}, "no model of three levels"),
        (lambda s: {**s, "model.24.m.0.bias": torch.zeros(20)}, "20 outputs are not 5 + classes"),
        (lambda s: {**s, "model.9.cv1.conv.weight": torch.zeros(5)}, "model.9.cv1.conv.weight is (5,), not (128, 256"),
    ],
)
def test_another_version_is_named(release, change, message):
    with pytest.raises(CheckpointError) as caught:
        from_release(change(release))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ours_of_another_network_are_refused(release):
    with pytest.raises(CheckpointError, match="not the tensors of a YOLOv5 of ours"):
        to_release(release)
    ours, _ = from_release(release)
    ours.pop("neck.up_coarse.join.bn.bias")
    with pytest.raises(CheckpointError, match=r"1 missing \(neck.up_coarse.join.bn.bias\)"):
        to_release(ours)


def test_the_command_goes_there_and_back(release, tmp_path, capsys):
    torch.save(release, tmp_path / "state.pth")
    assert tool.main([str(tmp_path / "state.pth"), str(tmp_path / "ours.pth")]) == 0
    out = capsys.readouterr().out
    assert "349 tensors of YOLOv5n, 2 classes" in out
    assert "_base_.models.yolov5_n import model" in out and "num_classes=2" in out
    assert tool.main(["--back", str(tmp_path / "ours.pth"), str(tmp_path / "again.pth")]) == 0
    again = torch.load(tmp_path / "again.pth", weights_only=True)
    assert all(torch.equal(again[name], value) for name, value in release.items()) and len(again) == len(release)


def test_bad_files_are_refused_in_one_line(release, tmp_path, capsys):
    torch.save({**release, "names": ["a"]}, tmp_path / "more.pth")
    torch.save({"model": Path("x")}, tmp_path / "code.pth")
    torch.save({**release, "model.24.m.1.bias": release["model.24.m.1.bias"] * torch.nan}, tmp_path / "nan.pth")
    torch.save({"epoch": 3, "ema": release}, tmp_path / "ema.pth")
    torch.save({"model_state_dict": release}, tmp_path / "inside.pth")
    torch.save(from_release(release)[0], tmp_path / "ours.pth")
    for file, message in (
        ("more.pth", "names is no tensor"),
        ("nan.pth", "model.24.m.1.bias holds NaN or infinity"),
        ("ema.pth", "holds the tensors under ema, as it seems; save that entry alone"),
        ("inside.pth", "holds the tensors under model_state_dict"),
        ("code.pth", "unpickling runs foreign code"),
        ("ours.pth", "pathzoo's names already"),
        ("none.pth", "no such checkpoint file"),
    ):
        assert tool.main([str(tmp_path / file), str(tmp_path / "out.pth")]) == 2
        [line] = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("error: ") and file in line and message in line
    assert tool.main([str(tmp_path / "ours.pth"), str(tmp_path / "out.safetensors")]) == 2
    assert not list(tmp_path.glob("out*"))


def test_the_printed_command_dumps_tensors_alone(tmp_path, capsys, monkeypatch):
    assert tool.main(["--how"]) == 0
    command = capsys.readouterr().out.splitlines()[-1]
    code = command.removeprefix('python -c "').removesuffix('"')
    assert command == f'python -c "{code}"' and '"' not in code
    (tmp_path / "holder_of_yolov5.py").write_text(
        "from torch import nn\nclass Holder(nn.Module):\n"
        "    def __init__(self):\n        super().__init__(); self.model = nn.Linear(2, 2).half()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    holder = importlib.import_module("holder_of_yolov5")
    torch.save({"ema": None, "model": holder.Holder(), "epoch": 3}, "yolov5s.pt")
    exec(code, {})  # the command's own text
    state = torch.load("yolov5s_state.pth", weights_only=True)
    assert set(state) == {"model.weight", "model.bias"} and state["model.bias"].dtype == torch.float32
