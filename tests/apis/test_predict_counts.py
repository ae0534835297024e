"""The table of counts: drawn from the slides' records, by several processes at once."""

import csv
import json
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from pathzoo.apis.predict_counts import check_counts, write_counts
from pathzoo.errors import DataError, OutputError

MODEL = SimpleNamespace(name="m", version="1.0.0", digest="d" * 64, classes=("gland", "vessel"))
GRADER = SimpleNamespace(name="g", version="2.0.0", digest="e" * 64, classes=("good", "bad"))


def finished(out, name, gland, vessel=0, *, mm2=2.0, model=MODEL, classifier=None, skipped=0):
    """A slide's folder, as far as it is read here."""

    def who(one):
        return {"name": one.name, "version": one.version, "digest": one.digest}

    record = {
        "slide": {"mpp": 0.25, "tissue_mm2": mm2},
        "model": who(model),
        "tiles": {"by_class": {"gland": gland, "vessel": vessel}},
        "detection": {"score_threshold": 0.3},
        "skipped_tiles": [{}] * skipped,
    }
    if classifier is not None:
        parts = {"gland": {"good": gland - 1, "bad": 1}, "vessel": {"good": 0, "bad": vessel}}
        record |= {"classifier": who(classifier), "grades": {"by_class": parts}}
    (out / name).mkdir(parents=True)
    (out / name / "predict_run.json").write_text(json.dumps(record))


def table(out):
    with (out / "counts.csv").open(newline="") as file:
        return list(csv.reader(file))


def test_a_row_for_each_slide_that_these_models_made(tmp_path):
    finished(tmp_path, "b", 3, 1, skipped=2)
    finished(tmp_path, "a", 0, mm2=None)
    finished(tmp_path, "c", 1, mm2=0.0)
    finished(tmp_path, ".d.abcdefgh", 5)  # half written
    finished(tmp_path, "other", 7, model=SimpleNamespace(**{**vars(MODEL), "digest": "f" * 64}))
    finished(tmp_path, "graded", 4, 2, classifier=GRADER)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/predict_run.json").write_text("[]")
    assert write_counts(tmp_path, MODEL) == tmp_path / "counts.csv"
    columns = ["slide", "mpp", "tissue_mm2", "count_gland", "per_mm2_gland", "count_vessel", "per_mm2_vessel"]
    assert table(tmp_path) == [
        [*columns, "score_threshold", "skipped_tiles"],
        ["a", "0.25", "", "0", "", "0", "", "0.3", "0"],
        ["b", "0.25", "2.0", "3", "1.5000", "1", "0.5000", "0.3", "2"],
        ["c", "0.25", "0.0", "1", "", "0", "", "0.3", "0"],
    ]
    write_counts(tmp_path, MODEL, GRADER)
    head, *rows = table(tmp_path)
    assert head[3:7] == ["count_gland", "count_gland: good", "count_gland: bad", "per_mm2_gland"]
    assert [row[:11] for row in rows] == [["graded", "0.25", "2.0", "4", "3", "1", "2.0000", "2", "0", "2", "1.0000"]]
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == [".d.abcdefgh"], "no claims are left"


def test_many_at_once_leave_one_table_with_all(tmp_path):
    def work(number):
        finished(tmp_path, f"s{number}", number)
        write_counts(tmp_path, MODEL)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(12)))
    assert sorted(row[0] for row in table(tmp_path)[1:]) == sorted(f"s{n}" for n in range(12))


def test_somebody_elses_table_is_not_replaced(tmp_path):
    check_counts(tmp_path / "not there")
    check_counts(tmp_path)
    finished(tmp_path, "a", 1)
    write_counts(tmp_path, MODEL)
    check_counts(tmp_path)
    for content in (b"slide,weight\n", b"", b"\xff\xfe\x00"):
        (tmp_path / "counts.csv").write_bytes(content)
        with pytest.raises(DataError, match=r"counts.csv: is no table of counts by pathzoo; move it"):
            check_counts(tmp_path)


def test_a_table_that_cannot_be_written_is_told_and_the_slides_are_kept(tmp_path):
    finished(tmp_path, "a", 1)
    (tmp_path / "counts.csv").mkdir()
    with pytest.raises(OutputError, match=r"counts.csv: cannot be written: .*; the slides are kept") as error:
        write_counts(tmp_path, MODEL)
    assert error.value.exit_code == 4 and (tmp_path / "a/predict_run.json").exists()
