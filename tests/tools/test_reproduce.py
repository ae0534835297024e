"""tools/reproduce.py: rows, skipping, "not run", and the table."""

import csv
from concurrent.futures import ThreadPoolExecutor

import pytest
import reproduce
from studies import breakhis_xception, self_training
from studies.results import END, KEYS, START, Results, columns, comparable, replace_table

from pathzoo.datasets.phantom import write_breakhis, write_regions
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


def _kept(*rows: dict[str, object]) -> tuple[list[tuple[str, str]], str]:
    """(seed, note) of the rows that count, and what is said of the others."""
    kept, text = comparable([{"note": "", **{key: str(value) for key, value in row.items()}} for row in rows])
    return [(row["seed"], row["note"]) for row in kept], text


def test_the_newest_row_of_a_seed_counts_and_its_place_stays():
    rows = [_row(seed=1, note="old"), _row(seed=2), _row(seed=1, note="new")]
    assert _kept(*rows) == ([("1", "new"), ("2", "")], "")


def test_settings_of_the_newest_row_count_and_the_others_are_counted():
    rows = [_row(seed=seed, config_digest="old") for seed in (1, 2, 3)]
    rows += [_row(seed=2, config_digest="new"), _row(arm="b", config_digest="other")]
    kept, text = _kept(*rows)
    assert kept == [("2", ""), ("0", "")]
    assert text.startswith("Left out: 2 rows made with other settings") and text.endswith(": a (seeds 1, 3).")


def test_no_row_is_lost_where_several_write_at_once(tmp_path):
    results = Results(tmp_path / "new" / "results.csv", ())
    with ThreadPoolExecutor(8) as pool:  # a lock of a folder is held by whoever opened it: threads wait as processes do
        list(pool.map(lambda seed: results.append(_row(seed=seed)), range(40)))
    assert sorted(int(row["seed"]) for row in results.rows()) == list(range(40))


def test_settings_that_are_taken_up_again_find_their_seeds_again():
    rows = [_row(seed=1, config_digest="a"), _row(seed=1, config_digest="b", note="b"), _row(seed=2, config_digest="a")]
    assert _kept(*rows) == ([("1", ""), ("2", "")], "")


def test_data_may_differ_between_the_seeds_of_a_phantom_alone():
    rows = [_row(seed=seed, data_digest=f"d{seed}") for seed in (1, 2)]
    assert _kept(*rows)[0] == [("2", "")]
    assert _kept(*({**row, "data": "phantom"} for row in rows)) == ([("1", ""), ("2", "")], "")


def test_a_row_that_was_not_run_hides_none_that_was_and_settles_nothing():
    later = {"status": "not run", "note": "no weights", "config_digest": "without"}
    rows = [_row(seed=1), _row(seed=1, **later), _row(seed=2, **later)]
    assert _kept(*rows) == ([("1", ""), ("2", "no weights")], "")


def test_what_is_left_out_of_several_data_sets_names_them():
    rows = [_row(data=data, seed=seed, config_digest=f"c{seed}") for data in ("x", "y") for seed in (1, 2)]
    assert "2 rows" in _kept(*rows)[1] and "x, small scale, a (seed 1); y, small scale, a (seed 1)." in _kept(*rows)[1]


@pytest.mark.slow
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


def test_arms_of_self_training_without_weights_read_not_run_too(tmp_path, monkeypatch):
    write_regions(tmp_path / "data", patients=6, regions_per_patient=1, size=(256, 256))
    place = ["--data-root", str(tmp_path / "data"), "--work-dir", str(tmp_path), "--results", str(tmp_path / "r.csv")]
    words = ["self_training", "--scale", "paper", *place, "--arms", "supervised, 35 %"]
    assert reproduce.main(words) == 0
    (tmp_path / "w.pth").write_bytes(b"weights")
    begun = []

    def measure(file, work, options, *rest):
        begun.append(options["model.backbone.pretrained"])
        return {}

    monkeypatch.setattr(self_training, "_train_and_test", measure)
    assert reproduce.main([*words, "--weights", f"resnest50d={tmp_path / 'w.pth'}"]) == 0
    rows = Results(tmp_path / "r.csv", self_training.METRICS).rows()
    assert [(row["status"], row["note"]) for row in rows] == [
        ("not run", "no ImageNet weights of resnest50d at hand"),
        ("done", ""),
    ]
    assert rows[0]["config_digest"] != rows[1]["config_digest"]
    assert begun == [str(tmp_path / "w.pth")]


def test_bad_usage_is_one_line_and_2(tmp_path, capsys):
    assert reproduce.main(["breakhis_xception", "--weights", "a=gone.pth", "--work-dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert reproduce.main(["breakhis_xception", "--arms", "nothing", "--work-dir", str(tmp_path)]) == 2
    (tmp_path / "w.pth").touch()
    words = ["--weights", f"resnet50={tmp_path / 'w.pth'}", "--work-dir", str(tmp_path)]
    assert reproduce.main(["breakhis_xception", *words]) == 2
    assert "no arm that was asked for begins with ImageNet weights of resnet50" in capsys.readouterr().err
