"""tools/reproduce.py: rows, skipping, "not run", and the table."""

import csv

import pytest
import reproduce
from studies import breakhis_xception
from studies.results import END, KEYS, START, Results, columns, replace_table

from pathzoo.datasets.phantom import write_breakhis
from pathzoo.errors import DataError

_METRICS = breakhis_xception.METRICS


def _row(**changes: object) -> dict[str, object]:
    row = {"scale": "small", "data": "real", "arm": "a", "seed": 0, "config_digest": "c", "data_digest": "d"}
    return row | {"status": "done"} | changes


def test_rows_come_back_and_match_by_every_key(tmp_path):
    results = Results(tmp_path / "results.csv", _METRICS)
    results.append(_row(accuracy_image="0.5000"))
    assert results.rows()[0]["accuracy_image"] == "0.5000"
    assert results.has(_row())
    for key in KEYS:
        assert not results.has(_row(**{key: "other"}))


def test_a_row_that_was_not_run_does_not_stop_a_run(tmp_path):
    results = Results(tmp_path / "results.csv", _METRICS)
    results.append(_row(status="not run"))
    assert not results.has(_row())
    assert results.has(_row(status="not run"))


def test_foreign_columns_are_refused(tmp_path):
    (tmp_path / "results.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"results\.csv: its columns"):
        Results(tmp_path / "results.csv", _METRICS).rows()


def test_table_keeps_what_stands_around_it(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- results: drawn by tools/reproduce.py -->\nold\n<!-- end of results -->\nafter\n")
    replace_table(readme, "| new |")
    assert readme.read_text().split() == ["before", *f"{START} | new | {END}".split(), "after"]
    readme.write_text("no marks")
    with pytest.raises(DataError, match="lacks the marks"):
        replace_table(readme, "x")


def test_smoke_runs_both_arms_once_and_a_rerun_skips_them(tmp_path, capsys):
    words = ["breakhis_xception", "--work-dir", str(tmp_path)]
    assert reproduce.main(words) == 0
    path = tmp_path / "breakhis_xception/smoke/results.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == columns(_METRICS)
    assert [row["status"] for row in rows] == ["done", "done"]
    assert rows[0]["data_digest"] != rows[1]["data_digest"]  # the control's labels are others
    before = path.read_bytes()
    capsys.readouterr()
    assert reproduce.main(words) == 0
    assert capsys.readouterr().out.count("has its row") == 2
    assert path.read_bytes() == before


def test_arms_without_weights_read_not_run(tmp_path):
    write_breakhis(tmp_path / "data", patients=10, images_per_patient=1)
    words = [
        "breakhis_xception",
        "--scale",
        "paper",
        "--data-root",
        str(tmp_path / "data"),
        "--work-dir",
        str(tmp_path),
    ]
    arm = "Xception, ImageNet, top 4 layers, 40X"
    assert (
        reproduce.main([*words, "--work-dir", str(tmp_path), "--results", str(tmp_path / "r.csv"), "--arms", arm]) == 0
    )
    rows = Results(tmp_path / "r.csv", _METRICS).rows()
    assert [(row["status"], row["accuracy_image"]) for row in rows] == [("not run", "")]
    assert "not run: no ImageNet weights of legacy_xception" in breakhis_xception.table(rows)


def test_bad_usage_is_one_line_and_2(tmp_path, capsys):
    assert reproduce.main(["breakhis_xception", "--weights", "a=gone.pth", "--work-dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert reproduce.main(["breakhis_xception", "--arms", "nothing", "--work-dir", str(tmp_path)]) == 2
