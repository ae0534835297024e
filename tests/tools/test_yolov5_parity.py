"""The comparison with the package yolov5: it finds a difference where there is one; with the package, there is none."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch

from pathzoo.models.dense_heads.yolov5_boxes import decode
from pathzoo.models.yolov5_weights import Network, shapes, to_release

_FOLDER = Path(__file__).parents[2] / "tools" / "benchmarks"


@pytest.fixture(scope="module")
def tool():
    before = list(sys.path)
    sys.path.insert(0, str(_FOLDER))
    spec = importlib.util.spec_from_file_location("yolov5_parity", _FOLDER / "yolov5_parity.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = before
    sys.modules.pop("measuring", None)


@pytest.fixture(scope="module")
def twin(tool):
    """What a peer would say that is our own network by chance."""
    torch.manual_seed(0)
    ours = {name: torch.rand(shape) * 0.05 + 0.01 for name, shape in shapes("n", 2).items()}
    ours["bbox_head.anchors"] = torch.rand(3, 3, 2) * 50 + 5
    ours = {name: value.long() if name.endswith("tracked") else value for name, value in ours.items()}
    image = torch.rand(1, 3, 32, 64)
    with torch.no_grad():
        maps = tool.Net(ours, Network("n", 2, ours["bbox_head.anchors"])).eval()(image)
    levels = zip(maps, ours["bbox_head.anchors"], (8, 16, 32), strict=True)
    answers = [
        torch.cat((decode(raw, sides, stride), raw[..., 4:].sigmoid()), dim=-1).flatten(1, 3)
        for raw, sides, stride in levels
    ]
    return {"state": to_release(ours)[0], "image": image, "maps": maps, "answers": torch.cat(answers, dim=1)}


def test_a_network_is_like_itself(tool, twin):
    found = tool.compare_network(twin)
    largest = max(float(raw.abs().max()) for raw in twin["maps"])  # of random weights: far more than a trained one's
    assert found.pop("maps, folded") < 1e-5 * largest  # folding rounds otherwise
    assert max(found.values()) < 1e-4


def test_a_difference_is_found(tool, twin):
    state = {**twin["state"], "model.17.cv3.bn.bias": twin["state"]["model.17.cv3.bn.bias"] + 0.05}
    found = tool.compare_network({**twin, "state": state})
    assert found["maps"] > 1e-3 and found["maps, folded"] > 1e-3 and found["boxes, of the largest side"] > 1e-6
    maps = [twin["maps"][0] + 0.5, *twin["maps"][1:]]
    assert tool.compare_network({**twin, "maps": maps})["maps"] == pytest.approx(0.5, rel=1e-3)


def test_without_the_package_it_says_what_is_missing(tool, capsys):
    assert tool.main(["--peer-python", "/no/python"]) == 2
    assert "error: --peer-python /no/python: cannot be run" in capsys.readouterr().err


@pytest.mark.slow
def test_the_package_agrees(tool, tmp_path):
    python = os.environ.get("PATHZOO_YOLOV5_PYTHON")
    if not python:
        pytest.skip("no package yolov5 here (PATHZOO_YOLOV5_PYTHON names an interpreter that has it)")
    assert tool.main(["--peer-python", python, "--sizes", "n", "s", "--markdown", str(tmp_path / "table.md")]) == 0
    assert "state dict, there and back" in (tmp_path / "table.md").read_text()
