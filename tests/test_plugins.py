"""Another lab's plug-in: installed, listed, trained with, published with, and missed where it is not there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_run

_EXAMPLE = Path(__file__).resolve().parent / "example_plugin"
_CARD = {"description": "A test.", "licence": "Apache-2.0", "commercial_use": True}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder that the example plug-in was installed into; on PYTHONPATH it is installed, off it it is not."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", str(folder), str(_EXAMPLE)], check=True, capture_output=True)
    return folder


def _pathzoo(*words: object, site: Path | None, **environment: str) -> subprocess.CompletedProcess:
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PATHZOO_PLUGINS")}
    env |= {"NO_ALBUMENTATIONS_UPDATE": "1"} | environment
    if site:
        env["PYTHONPATH"] = str(site)
    return subprocess.run([sys.executable, "-m", "pathzoo", *map(str, words)], env=env, capture_output=True, text=True)


def _components(done: subprocess.CompletedProcess) -> dict[tuple[str, str], str]:
    assert done.returncode == 0, done.stderr
    return {(row["kind"], row["name"]): row["origin"] for row in json.loads(done.stdout)}


def test_component_is_listed_with_its_origin(site):
    found = _components(_pathzoo("list", "--components", "--json", site=site))
    assert found["model", "MaxPooling"] == "pathzoo-example-plugin 1.2.0"
    assert found["model", "TimmBackbone"].startswith("pathzoo ")


def test_an_empty_choice_leaves_it_out(site):
    found = _components(_pathzoo("list", "--components", "--json", site=site, PATHZOO_PLUGINS=""))
    assert ("model", "MaxPooling") not in found


def test_a_plug_in_that_is_not_there_is_named(site):
    done = _pathzoo("list", "--components", site=site, PATHZOO_PLUGINS="exmaple")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no plug-in 'exmaple' is installed; installed: ['example']" in done.stderr


def test_a_broken_plug_in_is_one_line(site, tmp_path):
    (tmp_path / "pathzoo_example_plugin.py").write_text("import no_such_package")
    done = _pathzoo("list", "--components", site=f"{tmp_path}{os.pathsep}{site}")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "plug-in pathzoo-example-plugin 1.2.0 fails to import" in done.stderr


@pytest.mark.slow
def test_trained_published_and_refused_where_the_plug_in_is_missing(site, tmp_path):
    tiny_run.draw_cohort(tmp_path / "data")
    options = tiny_run.tiny_options(tmp_path / "data") | {"model.neck.type": "pathzoo.MaxPooling"}
    run = tmp_path / "run"
    done = _pathzoo("train", tiny_run.CONFIG, "--work-dir", run, *tiny_run.as_words(options), site=site)
    assert done.returncode == 0, done.stderr
    (tmp_path / "card.json").write_text(json.dumps(_CARD))
    words = ("--name", "plugged", "--card", tmp_path / "card.json", "--out", tmp_path / "zoo")
    done = _pathzoo("publish", run / "epoch_1.pth", *words, site=site)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "zoo/plugged/1.0.0"
    manifest = json.loads((folder / "model.json").read_text())
    assert manifest["model"]["neck"] == {"type": "pathzoo.MaxPooling"}
    assert manifest["plugins"] == [{"name": "pathzoo-example-plugin", "version": "1.2.0"}]
    image = next((tmp_path / "data").rglob("*.png"))
    predict = ("predict", "-i", image, "-m", folder, "--mpp", "0.98", "-o")
    done = _pathzoo(*predict, tmp_path / "with", site=site)
    assert done.returncode == 0, done.stderr
    done = _pathzoo(*predict, tmp_path / "without", site=None)
    assert done.returncode == 2
    assert "pathzoo-example-plugin" in done.stderr
    assert not (tmp_path / "without").exists()
