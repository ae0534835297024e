"""The NT-Xent benchmark runs, its arms agree, and what would not fit is not run; how fast it is, no test says."""

import subprocess
import sys
from pathlib import Path

import pytest

_TOOL = Path(__file__).parents[2] / "tools" / "benchmarks" / "nt_xent.py"


def run(*words):
    return subprocess.run([sys.executable, str(_TOOL), *map(str, words)], capture_output=True, text=True)


def table(path):
    """Rows of the two tables, without their headings."""
    lines = [line for line in path.read_text().splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines if "---" not in line]
    return [row for row in rows if row[0] != "pairs"]


@pytest.mark.slow
def test_arms_agree_and_a_batch_that_would_not_fit_says_what_it_needs(tmp_path):
    words = ["--pairs", 16, 512, "--dimensions", 4, "--limit-gib", 0.001, "--rounds", 1, "--threads", 1]
    done = run(*words, "--markdown", tmp_path / "table.md")
    assert done.returncode == 0, done.stderr
    assert "losses differ" not in done.stderr and "lightly is left out" in done.stderr
    memory, large_memory, timing, large_timing = table(tmp_path / "table.md")
    assert [row[0] for row in (memory, large_memory, timing, large_timing)] == ["16", "512"] * 2
    assert all(float(cell.split()[0]) > 0 for cell in (*memory[1:3], *timing[1:4], large_timing[1]))
    assert large_memory[2] == "not run: about 0.0125 GiB" and large_timing[2] == "not run"  # 3.2 of 1024 x 1024
    assert memory[3] == timing[4] == "not run"


def test_bad_input_is_one_line():
    for words, told in ((("--pairs", 0), "--pairs [0]"), (("--peer-python", "/no/python"), "/no/python: No such file")):
        done = run(*words)
        assert done.returncode == 2
        [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert told in line
