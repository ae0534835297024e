"""The wheel, installed in a new environment outside the checkout: it lists, trains, loads and predicts from there."""

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import tiny_run

_ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The `bin` folder of an environment that holds pathzoo's wheel.

    Its dependencies are those of the environment that runs the tests, by a .pth file: 6 GB need not be copied, and the
    test needs no network. Files like the editable install of the checkout are not followed from there.
    """
    folder = tmp_path_factory.mktemp("wheel")
    names = subprocess.run(["git", "-C", str(_ROOT), "ls-files"], capture_output=True, text=True).stdout.split()
    if not names:
        pytest.skip("no git checkout")
    for name in names:
        if (_ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(_ROOT / name, folder / "source" / name)
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(folder),
        str(folder / "source"),
    ]
    subprocess.run(build, check=True, capture_output=True)
    shutil.rmtree(folder / "source")
    venv.create(folder / "env", with_pip=False, symlinks=True)
    site = next((folder / "env/lib").glob("python*/site-packages"))
    import torch

    (site / "dependencies.pth").write_text(f"{Path(torch.__file__).resolve().parent.parent}\n")
    wheel = next(folder.glob("pathzoo-*.whl"))
    install = [sys.executable, "-m", "pip", "--python", str(folder / "env"), "install", "--no-deps", "--no-index"]
    subprocess.run([*install, "--ignore-installed", str(wheel)], check=True, capture_output=True)
    return folder / "env/bin"


def _run(installed: Path, cwd: Path, *words: object, **environment: str) -> str:
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PATHZOO_ZOO")}
    done = subprocess.run(
        [str(installed / words[0]), *map(str, words[1:])],
        cwd=cwd,
        env=env | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_package_comes_from_the_wheel(installed, tmp_path):
    found = _run(installed, tmp_path, "python", "-c", "import pathzoo; print(pathzoo.__file__)").strip()
    assert Path(found).is_relative_to(installed.parent)


def test_configs_and_models_travel_with_it(installed, tmp_path):
    configs = json.loads(_run(installed, tmp_path, "pathzoo", "list", "--configs", "--json"))
    here = {str(f.relative_to(_ROOT / "configs")) for f in (_ROOT / "configs").glob("[a-z]*/*.py")}
    assert {row["config"] for row in configs} == here
    models = json.loads(_run(installed, tmp_path, "pathzoo", "list", "--json"))
    assert [model["name"] for model in models] == sorted(
        p.name for p in (_ROOT / "checkpoints").iterdir() if p.is_dir()
    )


@pytest.mark.slow
def test_trains_a_packaged_config_and_predicts_with_a_packaged_model(installed, tmp_path):
    tiny_run.draw_cohort(tmp_path / "data", images_per_patient=1)
    options = tiny_run.as_words(tiny_run.tiny_options(tmp_path / "data"))
    _run(installed, tmp_path, "pathzoo", "train", tiny_run.CONFIG, "--work-dir", "run", *options)
    assert json.loads((tmp_path / "run/train_run.json").read_text())["status"] == "finished"
    name = json.loads(_run(installed, tmp_path, "pathzoo", "list", "--json"))[0]["name"]
    _run(installed, tmp_path, "pathzoo", "verify", name)
    image = next((tmp_path / "data").rglob("*.png"))
    _run(installed, tmp_path, "pathzoo", "predict", "-i", image, "-m", name, "-o", "out", "--mpp", "0.49")
    assert (tmp_path / "out/predictions.csv").read_text().count("\n") == 2
