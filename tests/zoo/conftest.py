"""A tiny classifier with random weights, the run folder that it could come from, and its published folder."""

import json
import shutil
from pathlib import Path

import pytest
from tiny_model import CARD, MODEL, train_run, write_split

from pathzoo import compat
from pathzoo.fileio import sha256_file
from pathzoo.zoo.manifest_file import render, self_digest

compat.install()  # as every command does, before any test imports a host's models by itself


@pytest.fixture(scope="session")
def network():
    """The classifier as training would leave it, in eval mode."""
    import torch

    from pathzoo.zoo.allowlist import build_from_data

    torch.manual_seed(0)
    module = build_from_data(MODEL)
    for name, buffer in module.named_buffers():  # statistics other than 0 and 1, so that losing them would show
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(*((-0.1, 0.1) if name.endswith("mean") else (0.1, 0.4)))
    torch.nn.init.normal_(module.head.fc.weight, std=0.02)
    return module.eval()


@pytest.fixture(scope="session")
def run_folder(network, tmp_path_factory) -> Path:
    import torch

    folder = tmp_path_factory.mktemp("run")
    torch.save({"state_dict": network.state_dict(), "meta": {"epoch": 5, "iter": 40}}, folder / "epoch_5.pth")
    (folder / "train_run.json").write_text(json.dumps(train_run(write_split(folder))))
    rows = [
        {"metric": "accuracy", "level": "image", "n": 40, "value": 0.75, "low": 0.6, "high": 0.9},
        {"metric": "auc", "level": "patient", "n": 1, "value": None, "low": None, "high": None},
    ]
    (folder / "metrics.json").write_text(json.dumps({"rows": rows, "subset": "test", "dataset": "BreakHis"}))
    return folder


@pytest.fixture(scope="session")
def zoo(run_folder, tmp_path_factory) -> Path:
    """A zoo with one model, `tiny` 1.0.0. Read only."""
    from pathzoo.zoo.publish import publish_model

    root = tmp_path_factory.mktemp("zoo")
    publish_model(run_folder / "epoch_5.pth", "tiny", "1.0.0", root, CARD)
    return root


@pytest.fixture
def published(zoo, tmp_path) -> Path:
    """A copy of the published folder, to be damaged."""
    return Path(shutil.copytree(zoo / "tiny" / "1.0.0", tmp_path / "published"))


@pytest.fixture
def no_zoo(monkeypatch, tmp_path) -> Path:
    """Look-up finds nothing but what the test puts in its way; the cache's zoo is `<returned>/zoo`."""
    monkeypatch.delenv("PATHZOO_ZOO", raising=False)
    monkeypatch.setenv("PATHZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("pathzoo.zoo.find.packaged_zoo", lambda: tmp_path / "packaged")
    return tmp_path / "cache"


@pytest.fixture
def reseal():
    """Changes a model.json as a forger would: file records and self-digest are made to fit again."""

    def change(folder: Path, edit) -> None:
        path = folder / "model.json"
        content = json.loads(path.read_text())
        edit(content)
        for name, record in content["files"].items():
            if (folder / name).is_file():
                record |= {"sha256": sha256_file(folder / name), "size": (folder / name).stat().st_size}
        content["digest"] = self_digest(content)
        path.write_text(render(content), encoding="utf-8")

    return change


@pytest.fixture
def run(run_folder, tmp_path) -> Path:
    """A copy of the run folder, to be changed."""
    return Path(shutil.copytree(run_folder, tmp_path / "run"))
