"""A tiny classifier with random weights, the run folder that it could come from, and its published folder."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pathzoo.fileio import canonical_json, sha256_bytes, sha256_file
from pathzoo.zoo.manifest_file import render, self_digest

TILE = 64
CLASSES = ["benign", "malignant"]
MEAN, STD = [180.0, 130.0, 170.0], [40.0, 50.0, 35.0]
MODEL = {
    "type": "mmpretrain.ImageClassifier",
    "backbone": {"type": "pathzoo.TimmBackbone", "name": "test_resnet"},
    "neck": {"type": "mmpretrain.GlobalAveragePooling"},
    "head": {
        "type": "mmpretrain.LinearClsHead",
        "num_classes": 2,
        "in_channels": 96,
        "loss": {"type": "mmpretrain.CrossEntropyLoss", "loss_weight": 1.0},
    },
    "data_preprocessor": {
        "type": "mmpretrain.ClsDataPreprocessor",
        "mean": MEAN,
        "std": STD,
        "to_rgb": False,
        "num_classes": 2,
    },
}
INPUT = {"tile_size": [TILE, TILE], "mpp": 0.5, "mpp_tolerance": 0.1, "mean": MEAN, "std": STD, "resize": {"kind": "mpp"}}
CARD = {
    "description": "Benign or malignant, a toy.",
    "organ": "breast",
    "stain": "H&E",
    "licence": "CC-BY-4.0",
    "commercial_use": True,
    "attributions": [
        {
            "title": "BreakHis",
            "authors": "Spanhol et al.",
            "licence": "CC-BY-4.0",
            "reference": "IEEE TBME 63(7):1455-1462, 2016",
        }
    ],
    "limits": "Random weights.",
}
SPLIT_SUBSETS = {
    "train": {
        "groups": ["22549", "P-0007", "unknown", "7"],
        "items": {
            "benign/SOB_B_A-14-22549AB-40-001.png": "a" * 64,
            "malignant/slide_0815x/smith-john.png": "b" * 64,
        },
    },
    "val": {"groups": ["9146"], "items": {"malignant/SOB_M_DC-14-9146-40-002.png": "c" * 64}},
}


def tiles(n: int = 3, seed: int = 1) -> np.ndarray:
    """Random RGB uint8 tiles (n, TILE, TILE, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (n, TILE, TILE, 3), dtype=np.uint8)


def write_split(folder: Path) -> str:
    content = {"format": 1, "scheme": "patient_ratio", "seed": 0, "group_key": "patient", "parameters": {}}
    content |= {"classes": CLASSES, "n_unknown_patients_items": 1, "subsets": SPLIT_SUBSETS}
    digest = sha256_bytes(canonical_json(content))
    (folder / "splits.json").write_text(json.dumps({**content, "digest": digest}))
    return digest


def train_run(split_digest: str) -> dict:
    counts = {"images": 2, "patients": 3, "unknown_patient_images": 1, "per_class": {"benign": 1, "malignant": 1}}
    return {
        "pathzoo": {"version": "0.1.0"},
        "command": ["tools/train.py", "/home/somebody/config.py"],
        "config": {"file": "tiny.py", "text": "model = 1", "digest": "d" * 64},
        "model": MODEL,
        "git": {"commit": "0" * 40, "dirty": False},
        "versions": {"torch": "2.15.0", "python": "3.11.9"},
        "seed": 3,
        "data": {
            "dataset": "BreakHis",
            "digest": "e" * 64,
            "split": {"scheme": "patient_ratio", "digest": split_digest, "file": "splits.json"},
            "counts": {"train": counts},
            "synthetic": False,
        },
        "model_input": INPUT,
        "classes": CLASSES,
        "study": "breakhis_xception",
        "initial_weights": {"source": "random"},
        "timings": {"train_s": 1.0},
    }


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
    torch.nn.init.normal_(module.head.fc.weight, std=0.5)
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
