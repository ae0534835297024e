"""CollapseMonitor in real runs: of SimCLR, RotationPred and mmpretrain's BYOL and SimSiam; resumed; collapsed."""

import csv
import functools
import logging

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, default_collate
from mmpretrain.models import BYOL, CosineSimilarityLoss, LatentPredictHead, SimSiam
from pretext_models import WIDTH, Pictures, TinyBackbone, build, neck, rotation_pred, simclr
from torch import nn

from pathzoo.engine import Runner
from pathzoo.engine.hooks import CheckpointHook, CollapseMonitor, EpochSeedHook
from pathzoo.errors import ConfigError
from pathzoo.evaluation.functional.embedding_spread import embedding_spread
from pathzoo.evaluation.metrics import PretextMetric
from pathzoo.models import TimmBackbone


def latent_head(width=8):
    predictor = neck(out=width) | {"in_channels": width, "with_avg_pool": False, "with_last_bn": False}
    return {"type": LatentPredictHead, "loss": {"type": CosineSimilarityLoss}, "predictor": predictor}


MODELS = {
    "simclr": (simclr, 2),
    "rotation_pred": (functools.partial(rotation_pred, neck=neck(out=WIDTH)), 1),
    "byol": (functools.partial(build, BYOL, neck=neck(), head=latent_head(), base_momentum=0.01), 2),
    "simsiam": (functools.partial(build, SimSiam, neck=neck(), head=latent_head()), 2),
}


def run(folder, model, views, epochs=2, validate=False, lr=0.01, resume=False, **monitor):
    def loader(n):
        return {
            "batch_size": 4,
            "num_workers": 0,
            "dataset": Pictures(n, views),
            "sampler": {"type": DefaultSampler, "shuffle": False},
            "collate_fn": {"type": default_collate},
        }

    validation, best = {}, {}
    if validate:
        best = {"save_best": "loss", "rule": "less"}
        evaluator = {"type": PretextMetric}
        validation = {"val_dataloader": loader(6), "val_cfg": {}, "val_evaluator": evaluator}
    runner = Runner(
        model,
        str(folder),
        train_dataloader=loader(12),
        train_cfg={"by_epoch": True, "max_epochs": epochs},
        optim_wrapper={"optimizer": {"type": torch.optim.SGD, "lr": lr}},
        **validation,
        default_hooks={"checkpoint": {"type": CheckpointHook, "interval": 1, **best}, "logger": None},
        custom_hooks=[{"type": EpochSeedHook}, {"type": CollapseMonitor, "interval": 2, **monitor}],
        default_scope=None,
        resume=resume,
        randomness={"seed": 1},
        log_level="WARNING",
        experiment_name=f"{folder.name}-{epochs}-{resume}",
    )
    seen = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())
    runner.logger.addHandler(handler)
    runner.train()
    runner.logger.removeHandler(handler)
    return runner, [text for text in seen if "CollapseMonitor" in text]


def table(folder):
    with (folder / "collapse.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", list(MODELS))
def test_every_pretext_model_is_measured(name, tmp_path):
    make, views = MODELS[name]
    runner, warned = run(tmp_path, make(), views)
    rows = table(tmp_path)
    assert [(row["iteration"], row["epoch"]) for row in rows] == [("2", "1"), ("4", "2"), ("6", "2")]
    for row in rows:
        assert (row["n"], row["dimensions"]) == (("16", "12") if name == "rotation_pred" else ("4", "8"))
        assert 0 < float(row["spread"]) < 1.2 and 1 < float(row["effective_rank"]) <= 12
        assert -16 / 3 <= float(row["uniformity"]) < 0  # of four points: the corners of a tetrahedron
        assert (row["alignment"] == "") == (views == 1)
        assert views == 1 or 0 < float(row["alignment"]) < 4
    assert (tmp_path / "collapse.png").stat().st_size > 5000
    assert not warned
    assert not runner.model.neck._forward_hooks, "it listens only while it measures"


def test_numbers_are_those_of_the_batchs_own_projections(tmp_path):
    run(tmp_path, simclr(), 2, epochs=1, lr=0.0, max_rows=3)
    model, pictures = simclr().train(), Pictures(12, 2)
    for start in (0, 4):  # its statistics do not matter in training mode; the second batch is measured
        batch = default_collate([pictures[k] for k in range(start, start + 4)])
        with torch.no_grad():
            first, second = model.project(model.data_preprocessor(batch, training=True)["inputs"])
    expected = embedding_spread(first[:3].numpy(), second[:3].numpy())
    [row] = table(tmp_path)
    for name, value in expected._asdict().items():
        assert float(row[name]) == pytest.approx(value, rel=1e-4), name


@pytest.mark.parametrize("name", ["simclr", "simsiam"])
def test_it_changes_nothing_of_the_training(name, tmp_path):
    make, views = MODELS[name]
    one, _ = run(tmp_path / "often", make(), views, interval=1)
    other, _ = run(tmp_path / "never", make(), views, interval=1000)
    assert not (tmp_path / "never" / "collapse.csv").exists()
    for key, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[key]), key


def test_a_resumed_run_goes_on_in_the_same_file(tmp_path):
    run(tmp_path / "whole", simclr(), 2, epochs=3)
    folder = tmp_path / "broken"
    run(folder, simclr(), 2, epochs=2)
    # As if it had ended in the third epoch, before its checkpoint: those lines are made again.
    with (folder / "collapse.csv").open("a") as file:
        file.write("8,3,4,8,0.5,0.5,0.5,0.5\n")
    run(folder, simclr(), 2, epochs=3, resume=True)
    assert [row["iteration"] for row in table(folder)] == ["2", "4", "6", "8"]
    assert (folder / "collapse.csv").read_text() == (tmp_path / "whole" / "collapse.csv").read_text()


def test_a_collapsed_network_is_warned_of_once_for_each_sign(tmp_path):
    class Constant(TinyBackbone):
        """The same for every picture, but for a little along one direction."""

        def forward(self, x):
            (found,) = super().forward(x)
            along = torch.ones(WIDTH, device=x.device)
            little = found.mean((1, 2, 3), keepdim=True) * torch.eye(WIDTH)[0].view(1, -1, 1, 1) * 1e-3
            return (along.view(1, -1, 1, 1).expand_as(found) + little,)

    model = rotation_pred(backbone=Constant())
    _, warned = run(tmp_path, model, 1, module="backbone", interval=1, warn_after=2)
    assert len(warned) == 2
    assert "spread" in warned[0] and "iteration 3, below 0.1" in warned[0]
    assert "effective_rank" in warned[1]
    assert len(table(tmp_path)) == 6


def test_vectors_that_are_not_finite_are_called_so(tmp_path):
    class Broken(TinyBackbone):
        def forward(self, x):
            return tuple(found * torch.nan for found in super().forward(x))

    _, warned = run(tmp_path, rotation_pred(backbone=Broken()), 1, module="backbone", interval=1, warn_after=2)
    assert warned and all("is not a number at iteration 3" in text for text in warned)


@pytest.mark.parametrize(("name", "metrics"), [("simclr", ["loss"]), ("rotation_pred", ["loss", "accuracy"])])
def test_pretext_models_are_validated_and_the_best_is_kept(name, metrics, tmp_path):
    make, views = MODELS[name]
    runner, _ = run(tmp_path, make(), views, validate=True)
    rows = runner.val_loop.evaluator.metrics[0].rows
    assert [(row["metric"], row["n"]) for row in rows] == [(metric, 6) for metric in metrics]
    assert all(np.isfinite(row["value"]) for row in rows)
    assert len(list(tmp_path.glob("best_loss_epoch_*.pth"))) == 1


@pytest.mark.parametrize("name", ["byol", "simsiam"])
def test_mmpretrains_peers_train_over_timm_networks(name, tmp_path):
    """They have no predictions: configs go without validation."""
    make, views = MODELS[name]
    wide = {"neck": neck() | {"in_channels": 96}, "backbone": TimmBackbone("test_resnet")}
    runner, _ = run(tmp_path, make(**wide), views, epochs=1)
    before = make(**wide).state_dict()
    after = runner.model.state_dict()
    moved = [key for key, value in after.items() if value.is_floating_point() and not torch.equal(value, before[key])]
    assert any(key.startswith("backbone.timm_model.") for key in moved)
    assert len(table(tmp_path)) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"interval": 0}, "interval=0"),
        ({"interval": 2.5}, r"interval=2\.5"),
        ({"max_rows": 1}, "max_rows=1"),
        ({"warn_after": -1}, "warn_after=-1"),
        ({"spread_below": -0.1}, r"spread_below=-0\.1"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, words):
    with pytest.raises(ConfigError, match=words):
        CollapseMonitor(**arguments)


def test_a_module_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"RotationPred has no module 'neck'; there are .*backbone"):
        run(tmp_path, rotation_pred(), 1)
    assert isinstance(simclr().neck, nn.Module)
