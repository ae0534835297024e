"""The command line: exit codes, one clear line, JSON."""

import json

import pytest

from pathzoo.cli import main, one_line
from pathzoo.errors import DataError


def test_unknown_command_is_bad_usage():
    with pytest.raises(SystemExit) as end:
        main(["paint"])
    assert end.value.code == 2


def test_unknown_config_names_the_nearest_and_ends_with_2(capsys):
    assert main(["train", "breakhis_xception/top4_xception_1xb32_50e_breakhis40x_29.py"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "did you mean 'breakhis_xception/top4_xception_1xb32_50e_breakhis40x_299.py'" in error


def test_list_json_has_at_least_name_version_and_task(capsys):
    assert main(["list", "--json"]) == 0
    for row in json.loads(capsys.readouterr().out):
        assert {"name", "version", "task"} <= set(row)


def test_a_damaged_model_is_left_out_of_the_list_with_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "damaged/1.0.0").mkdir(parents=True)
    (tmp_path / "damaged/1.0.0/model.json").write_text("{")
    monkeypatch.setenv("PATHZOO_ZOO", str(tmp_path))
    assert main(["list", "--json"]) == 0
    error = capsys.readouterr().err
    assert error.startswith("pathzoo: left out of the list: ") and error.count("\n") == 1


def test_components_name_kind_and_origin(capsys):
    assert main(["list", "--components", "--json"]) == 0
    rows = {(row["kind"], row["name"]): row["origin"] for row in json.loads(capsys.readouterr().out)}
    assert rows["dataset", "BreakHis"].startswith("pathzoo ")
    assert rows["model", "TimmBackbone"].startswith("pathzoo ")


def test_unknown_model_is_one_line_and_2(capsys):
    assert main(["info", "no-such-model"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_doctor_json_lists_checks_with_remedies(capsys):
    main(["doctor", "--json"])
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert checks["python"]["ok"]
    assert checks["torch pair"]["ok"]
    assert "opencv" in checks
    assert all(check["ok"] or check["remedy"] for check in checks.values())


def test_missing_input_is_one_line_and_2(tmp_path, capsys):
    assert main(["predict", "-i", str(tmp_path / "gone.svs"), "-m", "any", "-o", str(tmp_path / "out")]) == 2
    assert "gone.svs: no such file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_error_wrapped_by_a_loader_worker_shows_its_last_line_alone():
    wrapped = DataError(
        "Caught DataError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File ...\n"
        "pathzoo.errors.DataError: a.png: damaged\n"
    )
    assert one_line(wrapped) == "a.png: damaged"
