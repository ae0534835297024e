"""PretextMetric: means over samples, whatever the batches; intervals; what it refuses."""

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmpretrain.structures import DataSample

from pathzoo.errors import ConfigError
from pathzoo.evaluation.functional import bootstrap_interval
from pathzoo.evaluation.metrics import PretextMetric


def predicted(n, seed=0, correct=True):
    generator = np.random.default_rng(seed)
    out = []
    for index in range(n):
        sample = DataSample(metainfo={"sample_idx": index, "patient": f"p{index % 6}"})
        sample.set_field(torch.tensor(generator.uniform(0, 5), dtype=torch.float32), "pretext_loss")
        if correct:
            sample.set_field(torch.tensor(float(generator.integers(0, 5)) / 4), "pretext_correct")
        out.append(sample)
    return out


def evaluate(batch, by=7, size=None, **arguments):
    evaluator = Evaluator(PretextMetric(**arguments))
    for start in range(0, len(batch), by):
        evaluator.process(batch[start : start + by])
    return evaluator.evaluate(size or len(batch)), evaluator.metrics[0].rows


@pytest.mark.parametrize("by", [1, 7, 30])
def test_every_sample_counts_the_same_whatever_the_batches(by):
    batch = predicted(30)
    values, rows = evaluate(batch, by)
    assert values["loss"] == pytest.approx(np.mean([float(sample.pretext_loss) for sample in batch]))
    assert values["accuracy"] == pytest.approx(np.mean([float(sample.pretext_correct) for sample in batch]))
    assert [(row["metric"], row["level"], row["n"], row["value"], row["low"]) for row in rows] == [
        ("loss", "tile", 30, values["loss"], None),
        ("accuracy", "tile", 30, values["accuracy"], None),
    ]


def test_repeats_that_even_processes_out_count_once():
    batch = predicted(10)
    assert evaluate(batch + batch[:3], size=10)[0] == evaluate(batch)[0]


def test_a_loss_alone():
    values, rows = evaluate(predicted(9, correct=False), level="image")
    assert list(values) == ["loss"]
    assert [row["level"] for row in rows] == ["image"]


def test_half_precision_is_taken():
    batch = predicted(4, correct=False)
    for sample in batch:
        sample.pretext_loss = sample.pretext_loss.half()
    assert evaluate(batch)[0]["loss"] == pytest.approx(np.mean([float(sample.pretext_loss) for sample in batch]))


def test_intervals_are_over_patients():
    batch = predicted(30)
    _, rows = evaluate(batch, n_bootstrap=200, seed=4)
    losses = np.array([float(sample.pretext_loss) for sample in batch])
    expected = bootstrap_interval(
        lambda weights: weights @ losses / weights.sum(1), [sample.patient for sample in batch], 200, 4
    )
    assert (rows[0]["low"], rows[0]["high"]) == pytest.approx(expected[:2])
    assert rows[0]["low"] < rows[0]["value"] < rows[0]["high"]


def test_unknown_patients_have_no_interval():
    batch = [DataSample() for _ in range(4)]
    for sample in batch:
        sample.set_field(torch.tensor(1.0), "pretext_loss")
    assert evaluate(batch, n_bootstrap=50)[1][0]["low"] is None


def test_a_model_without_a_pretext_loss_is_refused():
    with pytest.raises(ConfigError, match=r"no pretext_loss.*val_evaluator"):
        PretextMetric().process(None, [{"sample_idx": 0}])
