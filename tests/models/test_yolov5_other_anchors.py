"""Weights are tested, and gone on with, under the anchors that they were trained with alone."""

import pytest
import torch
from box_files import tiny_detection, write_squares

from pathzoo.apis.test import test
from pathzoo.apis.train import train
from pathzoo.cli import main
from pathzoo.errors import CheckpointError

CONFIG = "glomerulus_yolov5/yolov5n_1xb8_40e_glomeruli_small.py"
OTHER = [[[12, 13], [20, 30], [33, 23]], [[30, 61], [62, 45], [59, 119]], [[116, 90], [156, 198], [373, 326]]]
BOTH = r"epoch_1\.pth: .*anchors \[\[\[10\.0, 13\.0\].*the config has \[\[\[12\.0, 13\.0\]"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of one epoch and its options. Read only."""
    folder = tmp_path_factory.mktemp("other_anchors")
    options = tiny_detection(write_squares(folder / "tiles"))
    return train(CONFIG, folder / "run", options=options, no_validate=True), options


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_test_with_other_anchors_is_refused_and_writes_nothing(run, tmp_path, capfd):
    folder, options = run
    before = content(folder)
    with pytest.raises(CheckpointError, match=BOTH) as caught:
        test(CONFIG, work_dir=folder, options={**options, "model.bbox_head.anchors": OTHER})
    assert "\n" not in str(caught.value)
    assert content(folder) == before
    words = [f"{key}={value}".replace(" ", "") for key, value in {**options, "model.bbox_head.anchors": OTHER}.items()]
    arguments = ["test", CONFIG, str(folder / "epoch_1.pth"), "--work-dir", str(tmp_path / "new")]
    assert main([*arguments, "--cfg-options", *words]) == 2
    [line] = capfd.readouterr().err.strip().splitlines()[-1:]
    assert line.startswith("pathzoo: ") and "anchors" in line
    assert not (tmp_path / "new").exists()


def test_resuming_with_other_anchors_is_refused_and_changes_nothing(run):
    """With an average (EMA), which loads the checkpoint itself."""
    folder, options = run
    before = content(folder)
    changed = {**options, "train_cfg.max_epochs": 2, "model.bbox_head.anchors": OTHER}
    with pytest.raises(CheckpointError, match=BOTH):
        train(CONFIG, folder, options=changed, no_validate=True, resume=True)
    assert content(folder) == before


def test_beginning_with_weights_of_other_anchors_goes_on_with_the_configs_and_the_log_says_so(run, tmp_path):
    folder, options = run
    changed = {**options, "load_from": str(folder / "epoch_1.pth"), "model.bbox_head.anchors": OTHER}
    new = train(CONFIG, tmp_path / "new", options=changed, no_validate=True)
    assert "the weights are for anchors" in next(new.glob("*/*.log")).read_text()
    state = torch.load(new / "epoch_1.pth", weights_only=True)["state_dict"]
    assert state["bbox_head.anchors"].tolist() == OTHER
