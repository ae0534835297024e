"""What `make demo` claims: unseen phantom patients are told apart, and nothing is learnt where nothing can be.

The cohort and the options are the demo's own, but for 12 epochs in place of 20; the demo itself runs too.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from demo import HALF_RESOLUTION

from pathzoo.apis.test import test as run_test
from pathzoo.apis.train import train
from pathzoo.datasets.phantom import write_breakhis

_CONFIG = "breakhis_xception/full_resnet10t_1xb16_20e_phantom40x_small.py"
_TOOLS = Path(__file__).resolve().parent.parent / "tools"


def _auc_of_unseen_patients(folder: Path, shuffle_labels: bool) -> dict:
    """Draws, trains and tests; returns the row of the image-level AUC."""
    write_breakhis(folder / "data", seed=0, patients=48, images_per_patient=4, shuffle_labels=shuffle_labels)
    options = {"data_root": str(folder / "data"), **HALF_RESOLUTION, "train_cfg.max_epochs": 12}
    train(_CONFIG, folder / "run", options=options, seed=0)
    rows = run_test(_CONFIG, work_dir=folder / "run", options=options)
    split = json.loads((folder / "run/splits.json").read_text())["subsets"]
    assert not set(split["test"]["groups"]) & {*split["train"]["groups"], *split["val"]["groups"]}
    return next(row for row in rows if (row["metric"], row["level"]) == ("roc_auc", "image"))


@pytest.mark.slow
def test_unseen_patients_are_classified_clearly_above_chance(tmp_path):
    row = _auc_of_unseen_patients(tmp_path, shuffle_labels=False)
    assert row["value"] > 0.8
    assert row["low"] > 0.5


@pytest.mark.slow
def test_with_shuffled_labels_the_result_is_at_chance(tmp_path):
    row = _auc_of_unseen_patients(tmp_path, shuffle_labels=True)
    assert row["low"] < 0.5 < row["high"]


@pytest.mark.slow
def test_demo_runs_to_its_table(tmp_path, capfd):
    done = subprocess.run([sys.executable, str(_TOOLS / "demo.py"), "--work-dir", str(tmp_path / "demo")], text=True)
    assert done.returncode == 0
    shown = capfd.readouterr().out
    assert "Unseen phantom patients" in shown
    assert "Files written" in shown
