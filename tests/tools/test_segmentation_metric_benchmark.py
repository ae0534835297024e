"""The benchmark runs and prints a whole table; how fast anything is, no test says."""

import re
import subprocess
import sys
from pathlib import Path

_TOOL = Path(__file__).parents[2] / "tools" / "benchmarks" / "segmentation_metric.py"


def test_small_patches_give_a_row_each(tmp_path):
    words = ["--sizes", "48", "80", "--megapixels", "0.1", "--rounds", "2", "--markdown", str(tmp_path / "table.md")]
    done = subprocess.run([sys.executable, str(_TOOL), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "table.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if re.match(r"\| \d", line)]
    assert [row[:2] for row in rows] == [["48", "43"], ["80", "16"]]
    for row in rows:
        for cell in row[2:]:
            median, low, high = map(float, re.fullmatch(r"(\S+) \((\S+)\.\.(\S+)\)", cell).groups())
            assert 0 < low <= median <= high
    assert "per class results" not in done.stdout + done.stderr  # the peer's own tables are kept away
