"""The mmengine metric, fed with mmpretrain's samples through mmengine's Evaluator, in one process and in two."""

import json

import numpy as np
import processes
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmpretrain.datasets.transforms import PackInputs
from mmpretrain.structures import DataSample

from pathzoo.errors import ConfigError
from pathzoo.evaluation.functional import classification_report
from pathzoo.evaluation.metrics import ClassificationMetric
from pathzoo.evaluation.metrics.classification import META_KEYS
from pathzoo.registry import METRICS

CLASSES = ("benign", "malignant")


def samples(n=30, seed=0):
    """What a model hands to the evaluator: packed by mmpretrain's own transform, scored."""
    generator = np.random.default_rng(seed)
    pack = PackInputs(meta_keys=META_KEYS)
    out = []
    for index in range(n):
        label = index % 2
        patient = None if index < 3 else f"p{index % 7}"
        info = {"item": f"a/{index}.png", "patient": patient, "slide": f"s{index % 9}", "gt_label": label}
        sample = pack({"img": np.zeros((4, 4, 3), np.uint8), **info})["data_samples"]
        score = torch.softmax(torch.tensor(generator.normal(size=2) + np.eye(2)[label], dtype=torch.float32), 0)
        out.append(sample.set_pred_score(score).set_pred_label(score.argmax()))
    return out


def arrays(batch):
    return (
        np.stack([sample.pred_score.numpy() for sample in batch]),
        np.array([int(sample.gt_label) for sample in batch]),
        [sample.patient for sample in batch],
        [sample.slide for sample in batch],
    )


def evaluate(batch, size=None, **arguments):
    evaluator = Evaluator(METRICS.build({"type": "ClassificationMetric", **arguments}))
    evaluator.dataset_meta = {"classes": CLASSES}
    for start in range(0, len(batch), 8):
        evaluator.process(batch[start : start + 8])
    return evaluator.evaluate(size or len(batch)), evaluator.metrics[0]


def test_log_has_plain_names_and_the_report_s_numbers():
    batch = samples()
    values, metric = evaluate(batch)
    rows = classification_report(*arrays(batch), CLASSES, n_bootstrap=0)
    assert metric.rows == rows
    for row in rows:
        name = row["metric"] if row["level"] == "image" else f"{row['level']}_{row['metric']}"
        if row["value"] is None:  # p0..p6 have images of both labels
            assert name not in values
        else:
            assert values[name] == row["value"]
    assert 0 <= values["balanced_accuracy"] <= 1
    assert {"roc_auc", "patient_recognition_rate", "slide_recognition_rate"} <= set(values)


def test_half_precision_scores_are_taken():
    batch = samples()
    for sample in batch:
        sample.set_field(sample.pred_score.bfloat16(), "pred_score", dtype=torch.Tensor)
        sample.pred_score = (sample.pred_score.float() / sample.pred_score.float().sum()).half()
    assert 0 <= evaluate(batch)[0]["accuracy"] <= 1


def test_repeats_that_pad_the_last_batch_count_once():
    batch = samples(10)
    assert evaluate(batch + batch[:3], size=10)[0] == evaluate(batch)[0]


def test_positive_class_by_name_and_prefix():
    batch = samples()
    by_index, _ = evaluate(batch, positive=0)
    by_name, _ = evaluate(batch, positive="benign", prefix="test")
    assert by_name == {f"test/{name}": value for name, value in by_index.items()}
    with pytest.raises(ConfigError, match=r"positive='bening' is none of the classes"):
        evaluate(batch, positive="bening")


def test_files_are_written_where_a_folder_is_given(tmp_path):
    batch = samples()
    values, metric = evaluate(batch, out_dir=str(tmp_path / "test"), level="tile")
    written = json.loads((tmp_path / "test" / "metrics.json").read_text())
    assert written["rows"] == metric.rows
    accuracy = written["rows"][0]
    assert (accuracy["metric"], accuracy["level"], accuracy["value"]) == ("accuracy", "tile", values["accuracy"])
    assert accuracy["low"] < accuracy["high"]  # files come with intervals
    assert len((tmp_path / "test" / "predictions.csv").read_text().splitlines()) == 31


def test_missing_origin_or_class_names_are_named():
    bare = DataSample().set_gt_label(1).set_pred_score(torch.tensor([0.5, 0.5]))
    metric = ClassificationMetric()
    with pytest.raises(ConfigError, match=r"samples lack item, patient, slide.*meta_keys"):
        metric.process(None, [bare.to_dict()])
    metric.process(None, [sample.to_dict() for sample in samples(4)])
    with pytest.raises(ConfigError, match="no class names"):
        metric.evaluate(4)


# The worker reads plain dicts, what Evaluator makes of samples: importing mmpretrain twice would cost most of the time.
_WORKER = """
import json, sys
import torch
import torch.distributed as dist
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator
from pathzoo.evaluation.metrics import ClassificationMetric
dist.init_process_group("gloo")
out_dir, collect_dir, samples = sys.argv[1:]
batch = [
    {**sample, "gt_label": torch.tensor(sample["gt_label"]), "pred_score": torch.tensor(sample["pred_score"])}
    for sample in json.loads(samples)
]
metric = ClassificationMetric(out_dir=out_dir, collect_dir=collect_dir)
metric.dataset_meta = {"classes": ["benign", "malignant"]}
evaluator = Evaluator(metric)
evaluator.process([batch[index] for index in DefaultSampler(batch, shuffle=False)])
values = evaluator.evaluate(len(batch))
assert (metric.rows != []) == (dist.get_rank() == 0)
print(json.dumps(values), flush=True)
dist.barrier()
dist.destroy_process_group()
"""


def test_two_processes_give_what_one_gives(tmp_path):
    batch = samples(11)  # odd: one of the two processes gets a repeat
    plain = [{key: v.tolist() if torch.is_tensor(v) else v for key, v in s.to_dict().items()} for s in batch]
    outputs = processes.run(_WORKER, tmp_path / "out", tmp_path / "parts", json.dumps(plain), cwd=tmp_path)
    expected, _ = evaluate(batch)
    for printed in outputs:  # both processes know the numbers, for save_best
        assert json.loads(printed.splitlines()[-1]) == pytest.approx(expected)
    assert len((tmp_path / "out" / "predictions.csv").read_text().splitlines()) == 12
