"""The speed of YOLOv5: what both sides do is compared, what cannot be measured is refused; no test says how fast."""

import argparse
import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pathzoo.datasets.phantom import write_biopsies
from pathzoo.models.yolov5_weights import shapes, to_release
from pathzoo.zoo.load import get_model

_FOLDER = Path(__file__).parents[2] / "tools" / "benchmarks"
_BOXES = [[[10.0, 20.0, 30.0, 50.0, 0.9, 0.0], [11.0, 20.0, 31.0, 52.0, 0.8, 1.0]], []]


@pytest.fixture(scope="module")
def load():
    """Loads a script as it runs: with its own folder on the path."""
    before, known = list(sys.path), set(sys.modules)
    sys.path.insert(0, str(_FOLDER))

    def by_name(name):
        spec = importlib.util.spec_from_file_location(name, _FOLDER / f"{name}.py")
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield by_name
    sys.path[:] = before
    for name in {path.stem for path in _FOLDER.glob("*.py")} - known:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def tool(load):
    return load("yolov5_speed")


def test_equal_answers_are_equal_in_any_order(tool):
    shuffled = [_BOXES[0][::-1], []]
    found = tool.compare({"boxes": shuffled, "loss": 2.0}, {"boxes": _BOXES, "loss": 2.0})
    assert set(found.values()) == {0.0}


@pytest.mark.parametrize(
    ("changed", "name", "least"),
    [
        ([[_BOXES[0][0], [11.0, 20.0, 31.5, 52.0, 0.8, 1.0]], []], "corners, px", 0.5),
        ([[_BOXES[0][0], [11.0, 20.0, 31.0, 52.0, 0.7, 1.0]], []], "scores", 0.09),
        ([[_BOXES[0][0], [11.0, 20.0, 31.0, 52.0, 0.8, 0.0]], []], "corners, px", np.inf),
        ([[_BOXES[0][0]], []], "corners, px", np.inf),
        ([_BOXES[0], [[1.0, 1.0, 2.0, 2.0, 0.5, 0.0]]], "corners, px", np.inf),
    ],
)
def test_a_difference_is_found(tool, changed, name, least):
    found = tool.compare({"boxes": changed, "loss": 2.0}, {"boxes": _BOXES, "loss": 2.0})
    assert found[name] >= least > tool._TOLERANCE[name]


def test_a_difference_of_the_loss_is_a_share_of_it(tool):
    found = tool.compare({"boxes": _BOXES, "loss": 2.1}, {"boxes": _BOXES, "loss": 2.0})
    assert found["loss, of its size"] == pytest.approx(0.05)


def test_ratios_are_taken_round_by_round(tool):
    values = {"train": {"ours": [2.0, 30.0, 4.0], "peer": [1.0, 10.0, 4.0]}}
    [(name, *_, times, aim)] = tool.rows("s", values)
    assert (name, times, aim) == ("YOLOv5s, training", "2.00 (1.00..3.00)", "at least 1")


def test_what_cannot_be_measured_is_refused_in_one_line(tool, capsys):
    assert tool.main(["--peer-python", "/no/python"]) == 2
    assert tool.main(["--peer-python", "/no/python", "--side", "640", "500"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2 and "error: --peer-python /no/python: cannot be run" in lines[0]
    assert lines[1] == "error: --side 640 500: give multiples of 32"


def test_our_side_answers_as_its_own_network_and_learns(load):
    """Timed are boxes that `detect` gives; nearly all that no edge cuts are among those that are compared."""
    arms = load("yolov5_speed_arms")
    torch.manual_seed(0)
    ours = {name: torch.randn(shape) * 0.05 for name, shape in shapes("n", arms.CLASSES).items()}
    ours = {name: value.abs() + 0.5 if name.endswith("running_var") else value for name, value in ours.items()}
    ours = {name: value.long() if name.endswith("tracked") else value for name, value in ours.items()}
    ours["bbox_head.anchors"] = torch.arange(1.0, 19.0).view(3, 3, 2) * 4
    for level in range(3):
        ours[f"bbox_head.convs.{level}.bias"].view(3, -1)[:, 4:] = 0.3
    network = arms.make_network(to_release(ours)[0], "n")
    pictures = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    given = {"pictures": pictures, "targets": torch.tensor([[k, 1, 0.5, 0.5, 0.3, 0.4] for k in range(2)])}
    words = argparse.Namespace(side=(96, 64), batch_size=2, device="cpu", amp=0)
    tiles = pictures.permute(0, 2, 3, 1).numpy()
    step = arms.training_step(network, given, words)
    assert 0 < step(tiles) < 100 and step(tiles) != step(tiles)
    timed, compared = arms.inference(network, "cpu")(tiles), arms.uncut(network, pictures)
    for boxes, others in zip(timed, compared, strict=True):
        inside = boxes[((boxes[:, :2] > 0) & (boxes[:, 2:4] < (96, 64))).all(axis=1)]
        apart = np.abs(inside[:, None] - np.array(others)[None]).max(axis=-1).min(axis=1)
        assert len(inside) > 3 and (apart < 1e-2).mean() > 0.9  # boxes at an edge decide over some beside them


def test_the_slide_benchmark_takes_the_same_tiles_in_both_arms(load, tmp_path):
    tool = load("detection_slides")
    write_biopsies(tmp_path / "b", patients=1, size=(560, 520), mpp=1.0)
    words = argparse.Namespace(size="n", tile=(160, 128), batch_size=4, workers=1)
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    model = get_model(tool.publish_random(tmp_path, words, 1.0, noise))
    keeping = tool.Keeping(model)
    assert tool.whole(tmp_path / "b" / "slides" / "B001-1.tif", keeping, words) > 0
    assert sum(map(len, keeping.batches)) > 4 and keeping.batches[0].shape[1:] == (128, 160, 3)
    assert keeping.batches[0].std() > 5 and tool.bare(model, keeping.batches, "cpu") > 0
    table = tool.table({name: [2.0, 4.0] for name in tool._ARMS}, {"of the slide": 2.0, "of the tiles": 4.0})
    assert table.rows[1][1:4] == ("3.00 (2.00..4.00)", "1.50 (1.00..2.00)", "0.750 (0.500..1.00)")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_package_does_the_same_work(tool, tmp_path):
    python = os.environ.get("PATHZOO_YOLOV5_PYTHON")
    if not python:
        pytest.skip("no package yolov5 here (PATHZOO_YOLOV5_PYTHON names an interpreter that has it)")
    words = ["--sizes", "n", "--side", "320", "256", "--rounds", "1", "--markdown", str(tmp_path / "t.md")]
    assert tool.main(["--peer-python", python, *words]) == 0
    assert "YOLOv5n, inference" in (tmp_path / "t.md").read_text()
