"""Checkpoints: nothing is unpickled, nothing half-written is taken, and our own need plain torch.load alone."""

import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from tiny_run import CONFIG, tiny_options

from pathzoo.apis.train import train
from pathzoo.engine.checkpoint import (
    history_from_plain,
    history_to_plain,
    latest_checkpoint,
    load_checkpoint_safely,
    state_dict_of,
)
from pathzoo.errors import CheckpointError


class _Evil:
    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return os.system, (f"touch {self.witness}",)


def test_code_in_a_checkpoint_is_refused_by_name_and_does_not_run(tmp_path):
    path, witness = tmp_path / "evil.pth", tmp_path / "ran"
    torch.save({"state_dict": {"weight": torch.zeros(2)}, "meta": _Evil(witness)}, path)
    with pytest.raises(CheckpointError, match=r"evil\.pth.*(posix|nt)\.system") as refused:
        load_checkpoint_safely(path)
    assert not witness.exists()
    assert "\n" not in str(refused.value)
    torch.load(path, weights_only=False)  # the same file does run code where pickle may: the test can fail
    assert witness.exists()


def test_plain_pickle_is_refused_too(tmp_path):
    """Not a zip as torch writes today, but a bare pickle, as it once did."""
    path, witness = tmp_path / "old.pth", tmp_path / "ran"
    path.write_bytes(pickle.dumps({"meta": _Evil(witness)}))
    with pytest.raises(CheckpointError, match=r"old\.pth"):
        load_checkpoint_safely(path)
    assert not witness.exists()


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.999])
def test_truncated_file_is_one_clear_line(tmp_path, kept):
    path = tmp_path / "epoch_3.pth"
    torch.save({"state_dict": {"weight": torch.randn(100, 100)}}, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(CheckpointError, match=r"epoch_3\.pth: .*(truncated|damaged)") as refused:
        load_checkpoint_safely(path)
    assert "\n" not in str(refused.value)


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"gone\.pth: no such checkpoint"):
        load_checkpoint_safely(tmp_path / "gone.pth")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint_safely(tmp_path)


def test_something_other_than_a_dict_is_refused(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(CheckpointError, match=r"tensor\.pth: holds a Tensor, not a dict"):
        load_checkpoint_safely(tmp_path / "tensor.pth")


def test_our_runs_need_plain_torch_load_alone(cohort, tmp_path):
    """No allow-list of classes, no `getattr`: what torch takes by default. The log history is in it, as tensors."""
    folder = train(CONFIG, tmp_path / "run", options=tiny_options(cohort))
    checkpoint = torch.load(folder / "epoch_1.pth", weights_only=True)
    loss = checkpoint["message_hub"]["log_scalars"]["train/loss"]["history"]
    assert loss.shape == (3,)  # 12 images in batches of 4
    assert torch.isfinite(loss).all()
    assert set(checkpoint) >= {"meta", "state_dict", "optimizer", "param_schedulers", "message_hub"}
    torch.load(next(folder.glob("best_*.pth")), weights_only=True)


def test_log_history_makes_the_round_trip():
    hub = MessageHub("round-trip")
    for value in (3.0, 2.0, 1.5):
        hub.update_scalar("train/loss", value)
    hub.update_info("best_score", np.float64(0.25))
    hub.update_info("epoch", 7)
    before = hub.state_dict()
    plain = history_to_plain(before)
    again = MessageHub("round-trip-back")
    again.load_state_dict(history_from_plain(plain))
    ours, theirs = again.get_scalar("train/loss"), hub.get_scalar("train/loss")
    assert isinstance(ours, HistoryBuffer)
    for mine, other in zip(ours.data, theirs.data, strict=True):
        np.testing.assert_array_equal(mine, other)
    assert ours.mean(2) == theirs.mean(2) == 1.75
    ours.update(1.0)  # still grows
    assert len(ours.data[0]) == 4
    assert again.get_info("best_score") == 0.25
    assert type(plain["runtime_info"]["best_score"]) is float
    assert again.get_info("epoch") == 7


def test_latest_is_counted_not_spelled_and_drafts_do_not_count(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    for name in ("epoch_9.pth", "epoch_10.pth", "best_nll_epoch_11.pth", ".epoch_12.pth.tmp", "epoch_13.pth.part"):
        (tmp_path / name).touch()
    assert latest_checkpoint(tmp_path) == tmp_path / "epoch_10.pth"


def test_state_dict_is_found_and_freed_of_its_wrapper():
    weight = torch.zeros(1)
    for checkpoint in (
        {"state_dict": OrderedDict({"module.fc.weight": weight}), "meta": {}},
        {"fc.weight": weight, "epoch": 3},
    ):
        assert state_dict_of(checkpoint) == {"fc.weight": weight}
