"""Pseudonyms: stable for a table, different names for different slides, and nothing lost when two processes draw."""

import csv
import re
import subprocess
import sys

import pytest

from pathzoo.errors import DataError
from pathzoo.wsi.pseudonyms import pseudonyms

_DRAW = """
import sys
from pathlib import Path
from pathzoo.wsi.pseudonyms import pseudonyms
for n in range(30):
    pseudonyms(Path(sys.argv[1]), [f"{sys.argv[2]}{n}.svs", f"both{n}.svs"])
"""


def test_names_keep_their_pseudonym_and_new_ones_are_added(tmp_path):
    first = pseudonyms(tmp_path / "out.names.csv", ["a.svs", "b.svs", "a.svs"])
    assert list(first) == ["a.svs", "b.svs"] and len(set(first.values())) == 2
    assert all(re.fullmatch("slide-[0-9a-f]{8}", name) for name in first.values())
    later = pseudonyms(tmp_path / "out.names.csv", ["c.svs", "b.svs"])
    assert later["b.svs"] == first["b.svs"]
    with (tmp_path / "out.names.csv").open(newline="") as file:
        assert {row["slide"]: row["pseudonym"] for row in csv.DictReader(file)} == first | later


def test_processes_that_draw_at_once_lose_nothing_and_agree(tmp_path):
    table = tmp_path / "out.names.csv"
    processes = [subprocess.Popen([sys.executable, "-c", _DRAW, str(table), who]) for who in "xy"]
    assert [process.wait(60) for process in processes] == [0, 0]
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 90 and len({row["slide"] for row in rows}) == len({row["pseudonym"] for row in rows}) == 90


def test_another_table_and_a_place_that_cannot_be_written_are_refused(tmp_path):
    (tmp_path / "t.csv").write_text("slide,mpp\na,0.5\n")
    with pytest.raises(DataError, match=r"t\.csv: has the columns .* is it another table"):
        pseudonyms(tmp_path / "t.csv", ["a"])
    with pytest.raises(DataError, match="cannot be written"):
        pseudonyms(tmp_path / "t.csv/out.names.csv", ["a"])
