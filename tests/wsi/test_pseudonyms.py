"""Pseudonyms: stable for a table, different names for different slides, and nothing lost when two processes draw."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pathzoo.errors import DataError
from pathzoo.wsi.pseudonyms import pseudonyms, table_beside, without_names

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
    (tmp_path / "l.csv").write_bytes("slide,pseudonym\nM\u00fcller,a\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"l\.csv: is no CSV in UTF-8"):
        pseudonyms(tmp_path / "l.csv", ["a"])


def test_the_table_lies_beside_the_output_however_that_is_called(tmp_path, monkeypatch):
    (tmp_path / "out/in").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "out")
    for name in (".", "../out", str(tmp_path / "out"), "in/.."):
        assert table_beside(name) == tmp_path / "out.names.csv"
    assert table_beside("in") == tmp_path / "out/in.names.csv"
    with pytest.raises(DataError, match="nothing beside it"):
        table_beside("/")


def test_a_reason_can_be_told_without_the_slides_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("SMITH/JOHN_7.svs")
    reason = f"SMITH/JOHN_7.svs: cannot open {tmp_path}/SMITH/JOHN_7.svs: john_7.SVS, JOHN_7 and JOHN_77 are damaged"
    assert (
        without_names(reason, path, "slide-1")
        == "slide-1: cannot open slide-1: slide-1, slide-1 and JOHN_77 are damaged"
    )
