"""tools/analysis_tools/compare_segmenters.py: pictures of runs side by side, by models that the runs left."""

import shutil

import numpy as np
import pytest
import torch
from analysis_tools import compare_segmenters
from PIL import Image

from pathzoo.apis.run_model import load_run_model
from pathzoo.apis.train import train
from pathzoo.datasets.phantom import write_regions
from pathzoo.engine.checkpoint import load_checkpoint_safely
from pathzoo.errors import CheckpointError, ConfigError

_CONFIG = "self_training/supervised_resnest14d-unet_1xb8_48e_breastlesions_small.py"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with data and a run of two steps."""
    root = tmp_path_factory.mktemp("runs")
    write_regions(root / "data", patients=6, regions_per_patient=1, size=(128, 96), mpp=2.0)
    options = {"data_root": str(root / "data"), "patches_per_epoch": 4, "train_cfg.max_epochs": 1}
    train(_CONFIG, root / "run", options=options | {"train_dataloader.batch_size": 2}, no_validate=True)
    return root


def test_pictures_of_two_runs(trained, tmp_path, capsys):
    words = [_CONFIG, "--runs", f"one={trained / 'run'}", f"other={trained / 'run'}", "--pictures", "1"]
    words += ["--out", str(tmp_path / "out"), "--cfg-options", f"data_root={trained / 'data'}"]
    assert compare_segmenters.main(words) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["region_1.png"]
    assert capsys.readouterr().out.split() == [str(tmp_path / "out" / "region_1.png")]
    page = np.asarray(Image.open(tmp_path / "out/region_1.png"))
    assert page.shape[1] > 4 * 500  # image, truth, two predictions
    assert compare_segmenters.main(words) == 2
    assert "exists already" in capsys.readouterr().err


def test_the_run_gives_back_the_model_that_it_saved(trained):
    model = load_run_model(trained / "run")
    saved = load_checkpoint_safely(trained / "run" / "epoch_1.pth")["state_dict"]
    mine = model.state_dict()
    assert set(mine) == set(saved) and not model.training
    assert all(torch.equal(mine[key], saved[key]) for key in mine)


def test_what_is_no_run(trained, tmp_path):
    with pytest.raises(ConfigError, match=r"train_run.json: not there; .* is no work folder"):
        load_run_model(tmp_path)
    shutil.copytree(trained / "run", tmp_path / "run")
    path = tmp_path / "run" / "train_run.json"
    text = path.read_text()
    path.write_text(text.replace("num_classes=3", "num_classes=2"))
    with pytest.raises(CheckpointError, match=r"epoch_1.pth: is not of the model in .*train_run.json \(size mismatch"):
        load_run_model(tmp_path / "run")
    path.write_text(text[:-20])
    with pytest.raises(ConfigError, match="holds no config that can be read"):
        load_run_model(tmp_path / "run")


def test_bad_arguments_are_one_line(trained, tmp_path, capsys):
    for runs, message in (
        (["one"], "expected NAME=WORK_DIR"),
        (["one=nowhere"], "no such folder"),
        ([f"a={trained / 'run'}", f"a={trained / 'run'}"], "stands there twice"),
    ):
        assert compare_segmenters.main([_CONFIG, "--runs", *runs, "--out", str(tmp_path / "x")]) == 2
        assert message in capsys.readouterr().err
