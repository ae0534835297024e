"""The benchmarks of views and of SimCLR's training: what they refuse, what they compare; no test says how fast."""

import importlib.util
import os
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

_FOLDER = Path(__file__).parents[2] / "tools" / "benchmarks"

#: Stands in for lightly, which is never a dependency: what the peer's script asks of it.
_STAND_IN = {
    "__init__": "__version__ = '1.6.0 stand-in'",
    "loss": """
import torch
class NTXentLoss(torch.nn.Module):
    def __init__(self, temperature):
        super().__init__()
        assert temperature == 0.5
    def forward(self, first, second):
        return ((first - second) ** 2).mean()
""",
    "models/__init__": "",
    "models/modules": """
import torch
class SimCLRProjectionHead(torch.nn.Linear):
    def __init__(self, width, hidden, out):
        assert (hidden, out) == (width, 128)
        super().__init__(width, out)
""",
    "transforms": """
class SimCLRTransform:
    def __init__(self, input_size):
        self.size = input_size
""",
    "data": """
from pathlib import Path
import torch
class LightlyDataset(torch.utils.data.Dataset):
    def __init__(self, folder, transform):
        self.files, self.size = sorted(Path(folder).glob("*.png")), transform.size
    def __len__(self):
        return len(self.files)
    def __getitem__(self, index):
        return [torch.rand(3, self.size, self.size) for _ in range(2)], 0, self.files[index].name
""",
}


@pytest.fixture
def load(monkeypatch):
    """Loads a script as it runs: with its own folder on the path."""
    monkeypatch.syspath_prepend(_FOLDER)
    known = set(sys.modules)

    def by_name(name):
        spec = importlib.util.spec_from_file_location(name, _FOLDER / f"{name}.py")
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield by_name
    for name in {path.stem for path in _FOLDER.glob("*.py")} - known:
        sys.modules.pop(name, None)


def _cells(path):
    text = path.read_text()
    cells = re.findall(r"(\S+) \((\S+)\.\.(\S+)\)", text)
    assert all(0 < float(low) <= float(median) <= float(high) for median, low, high in cells)
    return text, cells


@pytest.mark.filterwarnings("ignore:Anti-alias option")
def test_views_table_is_whole(load, tmp_path):
    words = ["--size", "32", "--tiles", "3", "--rounds", "1", "--markdown", str(tmp_path / "v.md")]
    assert load("views").main(words) == 0
    text, cells = _cells(tmp_path / "v.md")
    assert len(cells) == 6 * 2 + 3 and text.count("| 1.5 |") == 1
    assert "3 tiles of 40 px, views of 32 px" in text


@pytest.mark.filterwarnings("ignore:Anti-alias option")
def test_both_sides_make_views_of_the_same_kind(load):
    module = load("views")
    [tile] = module.draw_tiles(1, 32)
    for make in (module.ours(32), module.peer(32, "tensor"), module.peer(32, "pillow")):
        views = make(tile, 0)
        assert [(view.dtype, tuple(view.shape)) for view in views] == [(torch.uint8, (3, 32, 32))] * 2
        assert views[0].is_contiguous() and not torch.equal(*views)
    turned = torch.arange(12, dtype=torch.uint8).reshape(3, 2, 2)
    picture = module.Image.fromarray(turned.permute(1, 2, 0).numpy())
    for turns in range(4):
        by_pillow = np.asarray(module._Turn(turns)(picture))
        np.testing.assert_array_equal(module._Turn(turns)(turned).permute(1, 2, 0), by_pillow)


@pytest.mark.parametrize("python", ["no/such/python", sys.executable])
def test_without_the_peer_one_line_says_how_to_get_it(load, capsys, python):
    if python == sys.executable and importlib.util.find_spec("lightly"):
        pytest.skip("the peer is installed")
    assert load("simclr_training").main(["--peer-python", python]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"error: --peer-python {python}: ")
    assert "No such file" in line or "No module named 'lightly'" in line
    assert "lightly==1.6.0 torch==" in line


def test_too_few_tiles_are_refused(load, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "t.png"), np.zeros((8, 8, 3), np.uint8))
    assert load("simclr_training").main(["--data-root", str(tmp_path), "--batch-size", "2", "--iterations", "3"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"error: --data-root {tmp_path}: fewer than the 6 PNG files of a round; give fewer --iterations"
    ]


def test_aim_is_held_against_lightlys_training(load):
    module = load("simclr_training")
    speeds = dict(zip([*module._OURS.values(), *module._PEER.values()], (10, 6, 8, 9, 5, 2), strict=True))
    training, ratios = module._training_tables({name: [value, 2.0 * value] for name, value in speeds.items()})
    assert [row[2].split()[0] for row in training.rows] == ["1.00", "0.600", "0.800", "0.900", "0.500", "0.200"]
    found = {row[0]: (row[1].split()[0], row[2]) for row in ratios.rows}
    assert found == {
        "bare step (ceiling) / lightly: bare step": ("2.00", ""),
        "ours, PNG files / lightly, PNG files": ("3.00", "1.5"),
        "ours, packed store / lightly, PNG files": ("4.00", "1.5"),
        "ours, views on device / lightly, PNG files": ("4.50", "1.5"),
    }
    alone = {name: [speeds[name]] for name in (module._OURS["bare"], module._OURS["packed"])}
    assert len(module._training_tables(alone)) == 1


@pytest.mark.slow
@pytest.mark.timeout(1800)  # seven interpreters that import all: minutes where the machine is busy
def test_training_tables_are_whole(load, tmp_path, monkeypatch):
    """Seven processes: all arms of ours, and the peer's script over the stand-in."""
    for name, text in _STAND_IN.items():
        path = tmp_path / "lightly" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    module = load("simclr_training")
    monkeypatch.setattr(module, "_ENVIRONMENT", dict(os.environ))  # as it is now
    words = ["--backbone", "test_resnet", "--size", "32", "--batch-size", "2", "--iterations", "1", "--rounds", "1"]
    words += ["--device-views", "--peer-python", sys.executable, "--markdown", str(tmp_path / "t.md")]
    assert module.main(words) == 0
    text, cells = _cells(tmp_path / "t.md")
    titles = re.findall(r"^\*\*(.+)\*\*$", text, flags=re.M)
    assert titles == ["Training, images/s", "Training, ratios", "Tiles and views alone, one thread"]
    assert text.splitlines()[4].startswith("| bare step (ceiling) |")
    assert len(cells) == 6 * 2 + 4 + 2 * 2
    assert "lightly 1.6.0 stand-in" in text and "parameters: ours" in text
