"""What the README files say is true: their tables are drawn from the data, their paths exist."""

import importlib
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from reproduce import STUDIES
from studies.results import END, START, Results

_ROOT = Path(__file__).resolve().parent.parent
_TOOLS = sorted(_ROOT.glob("tools/*.py")) + sorted(_ROOT.glob("tools/*/[a-z]*.py"))
_READMES = [_ROOT / "README.md", *sorted((_ROOT / "configs").glob("*/README.md"))]


def _between(text: str, start: str, end: str) -> str:
    return text.split(start, 1)[1].split(end, 1)[0].strip()


def test_table_of_models_is_drawn_from_the_zoo():
    from analysis_tools.model_table import END, START, model_table

    assert _between((_ROOT / "README.md").read_text(), START, END) == model_table(), (
        "run: python tools/analysis_tools/model_table.py"
    )


@pytest.mark.parametrize("study", STUDIES)
def test_table_of_results_is_drawn_from_the_rows(study):
    folder, module = _ROOT / "configs" / study, importlib.import_module(f"studies.{study}")
    text = (folder / "README.md").read_text()
    if START not in text and END not in text:
        pytest.skip("shows no table yet")
    drawn = module.table(Results(folder / "results.csv", module.METRICS).rows()).strip()
    assert _between(text, START, END) == drawn, f"run: python tools/reproduce.py {study} --scale small --table-only"


@pytest.mark.parametrize("readme", _READMES, ids=lambda path: str(path.relative_to(_ROOT)))
def test_files_that_a_readme_names_exist(readme):
    named = set(re.findall(r"(?:tools|configs|tests|checkpoints)/[\w./-]+\.(?:py|md)", readme.read_text()))
    assert named
    assert [name for name in sorted(named) if not (_ROOT / name).exists()] == []


def test_ci_runs_the_readmes_test_command():
    command = next(line.split("#")[0].strip() for line in (_ROOT / "README.md").read_text().splitlines()
                   if line.startswith("make test"))  # fmt: skip
    assert f"exec {command}" in (_ROOT / ".ci/run").read_text().splitlines()


@pytest.mark.parametrize("tool", _TOOLS, ids=lambda path: path.name)
def test_every_tool_that_is_a_command_answers_help(tool, monkeypatch, capsys):
    if "__main__" not in tool.read_text():
        pytest.skip("a module of tools, no command")
    # As `python TOOL --help` runs it, but in this process, which has torch in memory already.
    monkeypatch.setattr(sys, "argv", [str(tool), "--help"])
    monkeypatch.syspath_prepend(tool.parent)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(tool), run_name="__main__")
    assert ended.value.code == 0
    assert "usage" in capsys.readouterr().out


def test_no_path_of_a_machine_and_no_registry_stands_in_a_tracked_file():
    done = subprocess.run(["git", "-C", str(_ROOT), "ls-files"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip("no git checkout")
    pattern = re.compile(r"://[^/ ]*(?:py" + "pi|pythonho" + r"sted)[^/ ]*|(?<![\w.])/(?:work|ro" + r"ot)/")
    found = []
    for name in done.stdout.split():
        path = _ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".txt", ".json", ".csv", "") and path.is_file():
            found += [f"{name}: {m[0]}" for m in pattern.finditer(path.read_text(encoding="utf-8", errors="ignore"))]
    assert found == []
