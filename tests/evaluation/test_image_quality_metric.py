"""ImageQuality, fed through mmengine's Evaluator: its numbers, its files, and two processes."""

import csv
import json
from pathlib import Path

import numpy as np
import processes
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import BaseDataElement, PixelData
from PIL import Image

from pathzoo.errors import ConfigError, DataError
from pathzoo.evaluation.functional import bootstrap_interval
from pathzoo.evaluation.functional.image_quality import ssim
from pathzoo.evaluation.metrics import ImageQuality
from pathzoo.evaluation.metrics import image_quality as module
from pathzoo.evaluation.metrics.image_quality import spread_pictures
from pathzoo.registry import METRICS

META = {"classes": ("background", "kidney", "tumour")}


def pictures(n, channels=1, side=32, seed=0):
    """(real, drawn) of (n, K, H, W), drawn ever worse, and label maps (n, H, W)."""
    rng = np.random.default_rng(seed)
    real = rng.uniform(0, 255, (n, channels, side, side)).astype(np.float32)
    noise = rng.normal(0, 1, real.shape) * np.linspace(4, 120, n)[:, None, None, None]
    return real, np.clip(real + noise, 0, 255).astype(np.float32), rng.integers(0, 3, (n, side, side))


def samples(n, channels=1, side=32, patients=True):
    out = []
    for index, (real, drawn, labels) in enumerate(zip(*pictures(n, channels, side), strict=True)):
        origin = {"item": f"case/{index:04d}", "sample_idx": index}
        sample = BaseDataElement(metainfo={**origin, "patient": f"p{index % 6}"} if patients else origin)
        sample.real_image = PixelData(data=torch.from_numpy(real))
        sample.drawn_image = PixelData(data=torch.from_numpy(drawn))
        sample.gt_sem_seg = PixelData(data=torch.from_numpy(labels)[None])
        out.append(sample)
    return out


def evaluate(batch, by=7, size=None, meta=META, **arguments):
    evaluator = Evaluator(METRICS.build({"type": "ImageQuality", **arguments}))
    evaluator.dataset_meta = meta
    for start in range(0, len(batch), by):
        evaluator.process(batch[start : start + by])
    return evaluator.evaluate(size or len(batch)), evaluator.metrics[0]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_means_are_over_pictures(channels):
    values, metric = evaluate(samples(12, channels), n_bootstrap=200, seed=4)
    real, drawn, _ = (part.astype(np.float64) for part in pictures(12, channels))
    each = np.array([ssim(np.moveaxis(a, 0, -1), np.moveaxis(b, 0, -1), 255) for a, b in zip(real, drawn, strict=True)])
    assert values == pytest.approx({"mae": np.abs(real - drawn).mean(), "ssim": each.mean()})
    assert [(row["metric"], row["level"], row["n"]) for row in metric.rows] == [
        ("mae", "image", 12),
        ("ssim", "image", 12),
    ]
    patients = [f"p{k % 6}" for k in range(12)]
    expected = bootstrap_interval(lambda weights: weights @ each / weights.sum(1), patients, 200, 4)
    assert (metric.rows[1]["low"], metric.rows[1]["high"]) == pytest.approx(expected[:2])


def test_batches_repeats_and_a_second_evaluation_change_nothing(tmp_path):
    batch = samples(10)
    expected = evaluate(batch)[0]
    assert evaluate(batch, by=1)[0] == expected
    evaluator = Evaluator(ImageQuality(out_dir=str(tmp_path)))
    evaluator.dataset_meta = META
    evaluator.process(batch + batch[:3])
    assert evaluator.evaluate(10) == expected
    first = (tmp_path / "plots" / "pictures.png").read_bytes()
    evaluator.process(batch)
    assert evaluator.evaluate(10) == expected
    assert (tmp_path / "plots" / "pictures.png").read_bytes() == first


def test_equal_pictures_are_alike_and_patients_may_be_unknown():
    batch = samples(3, patients=False)
    for sample in batch:
        sample.drawn_image = sample.real_image
    values, metric = evaluate(batch, n_bootstrap=50)
    assert values == pytest.approx({"mae": 0, "ssim": 1})
    assert metric.rows[0]["low"] is None


def test_files_hold_the_numbers_and_the_drawings(tmp_path):
    _, metric = evaluate(samples(12, 3), out_dir=str(tmp_path), n_bootstrap=50, pictures=3)
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["rows"] == metric.rows
    assert (written["n_pictures"], written["n_patients"], written["n_pictures_of_unknown_patient"]) == (12, 6, 0)
    assert written["intervals"] == {"level": 0.95, "resampled": "patient", "n_replicates": 50, "seed": 0}
    with (tmp_path / "pictures.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["item"] for line in lines] == [f"case/{k:04d}" for k in range(12)]
    assert np.mean([float(line["mae"]) for line in lines]) == pytest.approx(metric.rows[0]["value"], abs=1e-5)
    page = np.asarray(Image.open(tmp_path / "plots" / "pictures.png"))
    assert page.shape[2] == 3 and page.shape[0] > 3 * 256 and page.shape[1] > 3 * 256
    evaluate(samples(12), out_dir=str(tmp_path), n_bootstrap=0, pictures=0, meta=None)
    assert not (tmp_path / "plots" / "pictures.png").exists()  # an earlier evaluation's


def test_few_pictures_are_kept_the_worst_and_the_best_among_them(monkeypatch):
    monkeypatch.setattr(module, "_CANDIDATES", 8)
    metric = ImageQuality(out_dir="unused")
    metric.dataset_meta = META
    batch = [sample.to_dict() for sample in samples(50)]
    order = np.random.default_rng(1).permutation(50)
    for k in order:
        metric.process(None, [batch[k]])
        assert len(metric._candidates) <= 8
    kept = [candidate.ssim for candidate in metric._candidates]
    every = [result["ssim"] for result in metric.results]
    assert min(kept) == min(every) and max(kept) == max(every)


def test_chosen_pictures_lie_evenly_by_rank():
    values = np.random.default_rng(0).permutation(101).tolist()
    assert [values[k] for k in spread_pictures(values, values, 5)] == [0, 25, 50, 75, 100]
    assert [[0, 3, 48, 60, 100][k] for k in spread_pictures(values, [0, 3, 48, 60, 100], 3)] == [0, 48, 100]
    assert spread_pictures([3, 1], [3, 1], 5) == [1, 0]
    assert spread_pictures([3, 1, 2], [3, 1, 2], 1) == [1]
    assert spread_pictures([1, 1, 1], [1, 1, 1], 2) == [0, 1]
    assert spread_pictures([], [], 3) == [] and spread_pictures([1, 2], [1, 2], 0) == []


def test_what_it_cannot_evaluate_is_named(tmp_path):
    batch = samples(2)
    with pytest.raises(ConfigError, match=r"lack drawn_image.*LabelToImage"):
        ImageQuality().process(None, [{"item": "a", "real_image": {}}])
    del batch[0].gt_sem_seg
    evaluate(batch)  # needed for drawings alone
    with pytest.raises(ConfigError, match="lack gt_sem_seg"):
        evaluate(batch, out_dir=str(tmp_path))
    with pytest.raises(ConfigError, match="no class names"):
        evaluate(samples(2), meta=None, out_dir=str(tmp_path))
    broken = samples(2)
    broken[1].drawn_image = PixelData(data=torch.full((1, 32, 32), torch.nan))
    with pytest.raises(DataError, match=r"case/0001: .*NaN"):
        evaluate(broken)
    broken[1].drawn_image = PixelData(data=torch.zeros(1, 32, 30))
    with pytest.raises(DataError, match=r"case/0001: SSIM of \(32, 32, 1\) and \(32, 30, 1\)"):
        evaluate(broken)
    assert list(tmp_path.iterdir()) == []


_WORKER = """
import json, os, sys
import torch
from mmengine.evaluator import Evaluator
from pathzoo.evaluation.metrics import ImageQuality
sys.path.insert(0, sys.argv[2])
from test_image_quality_metric import META, samples
torch.distributed.init_process_group("gloo")
rank = int(os.environ["RANK"])
evaluator = Evaluator(ImageQuality(out_dir=sys.argv[1], n_bootstrap=50, pictures=4))
evaluator.dataset_meta = META
batch = samples(11)
evaluator.process((batch + batch[:1])[rank::2])
print(json.dumps(evaluator.evaluate(11)))
"""


def test_two_processes_give_what_one_gives(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    expected, _ = evaluate(samples(11), out_dir=str(one), n_bootstrap=50, pictures=4)
    for printed in processes.run(_WORKER, two, Path(__file__).parent, cwd=tmp_path):
        assert json.loads(printed.splitlines()[-1]) == pytest.approx(expected)
    for name in ("metrics.json", "pictures.csv", "plots/pictures.png"):
        assert (two / name).read_bytes() == (one / name).read_bytes()
