"""The tiny classifier of these tests, and what a run of it would have recorded."""

import json
from pathlib import Path

import numpy as np

from pathzoo.fileio import canonical_json, sha256_bytes

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
INPUT = {
    "tile_size": [TILE, TILE],
    "mpp": 0.5,
    "mpp_tolerance": 0.1,
    "mean": MEAN,
    "std": STD,
    "resize": {"kind": "mpp"},
}
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
