"""Training that ends where validation no longer gets better: when, what is left behind, and what a resumed run does."""

import json

import pytest
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from tiny_run import CONFIG, tiny_options

from pathzoo.apis.config import load_config
from pathzoo.apis.train import train
from pathzoo.engine.checkpoint import load_checkpoint_safely
from pathzoo.engine.hooks import CheckpointHook
from pathzoo.errors import ConfigError
from pathzoo.paths import configs_root

_KEY = "default_hooks.checkpoint.patience"


class Scripted(BaseMetric):
    """Gives the next of `values` as nll: that of the epoch."""

    default_prefix = ""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return {"nll": self.values[MessageHub.get_current_instance().get_info("epoch")]}


class Interrupt(Hook):
    """Ends the run as Ctrl-C would, before an epoch (counted from 0)."""

    def __init__(self, epoch):
        self.epoch = epoch

    def before_train_epoch(self, runner):
        if runner.epoch == self.epoch:
            raise KeyboardInterrupt


#: Best after the second of eight epochs.
_VALUES = (1.0, 0.8, 0.9, 0.8, 0.85, 0.7, 0.9, 0.9)


def _options(cohort, values=_VALUES, patience=3, **more):
    own = {"val_evaluator": {"type": Scripted, "values": list(values)}, _KEY: patience}
    return tiny_options(cohort, epochs=len(values), **more) | own


def _left(folder):
    return sorted(path.name for path in folder.glob("*.pth"))


def test_it_stops_after_as_many_validations_without_a_better_one(cohort, tmp_path):
    folder = train(CONFIG, tmp_path / "run", options=_options(cohort))
    assert _left(folder) == ["best_nll_epoch_2.pth", "epoch_5.pth"]  # as good as the best is no better
    record = json.loads((folder / "train_run.json").read_text())
    assert (record["status"], record["epochs"], record["epochs_done"]) == ("finished", 8, 5)
    log = next(folder.rglob("*.log")).read_text()
    assert "3 validations without a better nll than 0.8000: training ends after epoch 5 of 8" in log


def test_a_better_one_begins_the_count_anew_and_without_patience_all_epochs_run(cohort, tmp_path):
    values = (1.0, 1.1, 0.9, 1.0, 0.8)
    assert _left(train(CONFIG, tmp_path / "a", options=_options(cohort, values, 2)))[-1] == "epoch_5.pth"
    assert _left(train(CONFIG, tmp_path / "b", options=_options(cohort, _VALUES[:5], None)))[-1] == "epoch_5.pth"


def test_where_checkpoints_are_rarer_than_validations_the_last_epoch_is_kept_too(cohort, tmp_path):
    options = _options(cohort, patience=2, default_hooks__checkpoint__interval=3)
    assert _left(train(CONFIG, tmp_path / "run", options=options)) == ["best_nll_epoch_2.pth", "epoch_4.pth"]


def test_a_resumed_run_stops_where_an_unbroken_one_does(cohort, tmp_path):
    options = _options(cohort)
    hooks = [*load_config(CONFIG).to_dict()["custom_hooks"], {"type": Interrupt, "epoch": 4}]
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, tmp_path / "run", options=options | {"custom_hooks": hooks})
    assert "epoch_4.pth" in _left(tmp_path / "run")
    assert _left(train(CONFIG, tmp_path / "run", options=options, resume=True))[-1] == "epoch_5.pth"


def test_a_stopped_run_stays_stopped_and_more_patience_goes_on(cohort, tmp_path):
    options = _options(cohort)
    folder = train(CONFIG, tmp_path / "run", options=options)
    before = (folder / "epoch_5.pth").read_bytes()
    train(CONFIG, folder, options=options, resume=True)
    assert (folder / "epoch_5.pth").read_bytes() == before
    train(CONFIG, folder, options=options | {_KEY: 4}, resume=True)
    assert _left(folder) == ["best_nll_epoch_6.pth", "epoch_8.pth"]


def test_a_loss_that_is_no_number_is_no_better(cohort, tmp_path):
    nan = float("nan")
    folder = train(CONFIG, tmp_path / "run", options=_options(cohort, (nan,) * 4, 2))
    assert _left(folder) == ["epoch_2.pth"]
    assert load_checkpoint_safely(folder / "epoch_2.pth")["meta"]["epoch"] == 2


@pytest.mark.parametrize("value", [0, -1, 2.5, "3", True])
def test_patience_is_a_whole_number(value):
    with pytest.raises(ConfigError, match="whole number above 0"):
        CheckpointHook(save_best="nll", rule="less", patience=value)


@pytest.mark.parametrize("best", [None, ["nll", "accuracy"]])
def test_patience_needs_one_measure_to_wait_for(best):
    with pytest.raises(ConfigError, match="save_best"):
        CheckpointHook(save_best=best, rule=best and "less", patience=2)


_LEAVES = [str(path.relative_to(configs_root())) for folder in ("simclr", "rotation_pred")
           for path in sorted((configs_root() / folder).glob("*.py"))]  # fmt: skip


@pytest.mark.parametrize("name", _LEAVES)
def test_every_config_of_study_2_takes_it(name):
    """All but the peers, which have no validation: there it is refused when the run is built."""
    config = load_config(name, {_KEY: 10}).to_dict()
    hook = config["default_hooks"]["checkpoint"]
    assert hook["patience"] == 10
    if config["val_dataloader"] is not None:
        assert (hook["save_best"], hook["rule"]) in (("loss", "less"), ("nll", "less"))
