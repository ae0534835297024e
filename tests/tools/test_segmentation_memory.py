"""The memory benchmark runs and writes a whole table; how much memory it takes, the benchmark itself says."""

import subprocess
import sys
from pathlib import Path

_TOOL = Path(__file__).parents[2] / "tools" / "benchmarks" / "segmentation_memory.py"


def test_small_slides_give_a_row_each_and_nothing_stays(tmp_path):
    (tmp_path / "work").mkdir()
    words = ["--width", "900", "--heights", "300", "600", "--folder", str(tmp_path / "work")]
    command = [sys.executable, str(_TOOL), *words, "--markdown", str(tmp_path / "table.md")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "table.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| 900 x")]
    assert [row[0] for row in rows] == ["900 x 300", "900 x 600"]
    for row in rows:
        assert 0.05 < float(row[1]) < 2
        assert int(row[-1]) > 1
    assert list((tmp_path / "work").iterdir()) == []
