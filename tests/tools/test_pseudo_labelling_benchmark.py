"""The benchmark of pseudo-labelling runs and prints whole tables; how fast anything is, no test says."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

_FOLDER = Path(__file__).parents[2] / "tools" / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """The script, loaded as it runs: with its own folder on the path."""
    monkeypatch.syspath_prepend(_FOLDER)
    spec = importlib.util.spec_from_file_location("pseudo_labelling", _FOLDER / "pseudo_labelling.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("measuring", None)


@pytest.mark.filterwarnings("ignore:no image of class")
def test_tables_are_whole(benchmark, tmp_path, capsys):
    words = ["--network", "test_resnet", "--tile", "64", "--stride", "48", "--size", "160", "130", "--rounds", "1"]
    assert benchmark.main([*words, "--device", "cpu", "--markdown", str(tmp_path / "t.md")]) == 0
    text = (tmp_path / "t.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \| ([\d.]+) \(", text, flags=re.M)
    assert [name for name, _ in rows] == [
        "bare network (ceiling)",
        "labeller, 1 view (none)",
        "labeller, 4 views (flips)",
        "labeller, 8 views (d4)",
        "whole round, 1 view",
        "write class and confidence",
        "check, threshold, write labels, audit",
    ]
    assert all(float(value) > 0 for _, value in rows)
    assert "in turns" in capsys.readouterr().out
    tiles, regions = int(re.search(r"(\d+) tiles of 64", text)[1]), int(re.search(r"(\d+) regions", text)[1])
    assert tiles == regions * 3 * 3  # 160 and 130 px take three tiles each way


def test_bad_tiling_is_one_line(benchmark, capsys):
    assert benchmark.main(["--size", "160", "130", "--tile", "64", "--stride", "65", "--device", "cpu"]) == 2
    assert "stride=65" in capsys.readouterr().err
