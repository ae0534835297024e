"""The benchmark of packed stores runs and prints whole tables; how fast anything is, no test says."""

import re
import sys
from pathlib import Path

import pytest

_FOLDER = Path(__file__).parents[2] / "tools" / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(_FOLDER))
    import packed_store

    yield packed_store
    for name in ("packed_store", "measuring"):
        sys.modules.pop(name, None)


def test_it_compares_and_opens(benchmark, tmp_path):
    out = tmp_path / "t.md"
    words = ["--tiles", "6", "--size", "64", "--large", "50", "--rounds", "1", "--markdown", str(out)]
    assert benchmark.main(words) == 0
    text = out.read_text()
    for name in ("memory (the ceiling)", "packed store", "folder, OpenCV", "folder, read_rgb", "opened, names read"):
        line = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
        assert re.search(r"\| [\d.]+ \([\d.]+\.\.[\d.]+\)", line), line


def test_the_sparse_store_is_one(benchmark, tmp_path):
    benchmark.write_sparse(tmp_path / "s.safetensors", 20, 32)
    store = benchmark.PackedTiles(tmp_path / "s.safetensors")
    assert store.shape == (20, 32, 32, 3) and not store[19].any() and store.items[19] == "tiles/000019.png"
