"""The mmengine metric, fed with mmseg's samples through mmengine's Evaluator, in one process and in two."""

import csv
import json
from pathlib import Path

import numpy as np
import processes
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData
from mmseg.datasets.transforms import PackSegInputs
from mmseg.evaluation import IoUMetric
from PIL import Image

from pathzoo.errors import ConfigError, DataError
from pathzoo.evaluation.functional import confusion_counts, segmentation_report
from pathzoo.evaluation.metrics import SegmentationMetric
from pathzoo.evaluation.metrics.segmentation import META_KEYS, count_by_value
from pathzoo.registry import METRICS

META = {"classes": ("normal", "benign", "malignant"), "palette": [[0, 158, 115], [230, 159, 0], [213, 94, 0]]}
SIDE, HEIGHT, WIDTH = 32, 70, 90  # patches and regions in pixels: three rows of three patches, the last ones padded


def regions(folder, n=5, seed=0):
    """Truth, prediction (H, W) of regions that differ in how well they are predicted, their images in `folder`."""
    rng = np.random.default_rng(seed)
    made = []
    for index in range(n):
        truth = np.kron(rng.integers(0, 3, (7, 9)), np.ones((10, 10), int)).astype(np.uint8)
        wrong = rng.random(truth.shape) < 0.1 + 0.1 * ((index + 2) % n)
        prediction = np.where(wrong, rng.integers(0, 3, truth.shape), truth)
        truth[:4] = 255
        path = folder / f"region{index}.png"
        Image.fromarray(rng.integers(100, 255, (HEIGHT, WIDTH, 3), np.uint8)).save(path)
        made.append((truth, prediction, str(path)))
    return made


def patches(made):
    """Plain arrays and their origin, a dict for each patch of each region, as the dataset's grid has it."""
    found = []
    for index, (truth, prediction, path) in enumerate(made):
        for y in range(0, HEIGHT, SIDE):
            for x in range(0, WIDTH, SIDE):
                maps = []
                for whole, fill in ((truth, 255), (prediction, 0)):
                    part = np.full((SIDE, SIDE), fill, np.int64)
                    own = whole[y : y + SIDE, x : x + SIDE]
                    part[: own.shape[0], : own.shape[1]] = own
                    maps.append(part)
                origin = {"item": f"region{index}.png", "patient": f"p{index // 2}", "slide": None, "img_path": path}
                place = {"region_index": index, "patch_x": x, "patch_y": y, "sample_idx": len(found)}
                found.append({**origin, **place, "gt_seg_map": maps[0], "prediction": maps[1]})
    return found


def samples(made):
    """What a model hands to the evaluator: packed by mmseg's own transform, with a prediction."""
    pack = PackSegInputs(meta_keys=META_KEYS)
    out = []
    for patch in patches(made):
        sample = pack({"img": np.zeros((SIDE, SIDE, 3), np.uint8), **patch})["data_samples"]
        sample.pred_sem_seg = PixelData(data=torch.from_numpy(patch["prediction"])[None])
        out.append(sample)
    return out


def evaluate(batch, size=None, meta=META, **arguments):
    evaluator = Evaluator(METRICS.build({"type": "SegmentationMetric", **arguments}))
    evaluator.dataset_meta = meta
    for start in range(0, len(batch), 4):
        evaluator.process(batch[start : start + 4])
    return evaluator.evaluate(size or len(batch)), evaluator.metrics[0]


def test_numbers_are_those_of_the_whole_regions(tmp_path):
    made = regions(tmp_path)
    values, metric = evaluate(samples(made), n_bootstrap=100)
    counts = np.stack([confusion_counts(truth, prediction, 3) for truth, prediction, _ in made])
    expected = segmentation_report(counts, ["p0", "p0", "p1", "p1", "p2"], META["classes"], n_bootstrap=100)
    assert [row for row in metric.rows if row["level"] != "patch"] == expected  # padding counts nowhere
    assert {row["n"] for row in metric.rows if row["level"] == "patch" and row["metric"] == "miou"} == {45}
    for row in metric.rows:
        name = row["metric"] if row["level"] == "pixel" else f"{row['level']}_{row['metric']}"
        if name in values:
            assert values[name] == row["value"]
    assert set(values) == {
        *("miou", "miou_micro", "f1", "f1_micro", "accuracy", "pixel_accuracy"),
        *(f"{of}_{name}" for of in ("iou", "f1") for name in META["classes"]),
        *(f"{level}_{of}" for level in ("patch", "region", "patient") for of in ("miou", "f1")),
    }


def test_pooled_numbers_equal_mmseg_s(tmp_path):
    batch = samples(regions(tmp_path))
    values, _ = evaluate(batch)
    peer = IoUMetric(iou_metrics=["mIoU", "mFscore"])
    peer.dataset_meta = META
    peer.process({}, [sample.to_dict() for sample in batch])
    theirs = peer.evaluate(len(batch))
    for ours, name in (("miou", "mIoU"), ("f1", "mFscore"), ("pixel_accuracy", "aAcc")):
        assert 100 * values[ours] == pytest.approx(theirs[name], abs=0.006)  # it rounds to two digits


def test_repeats_count_once_and_a_second_evaluation_starts_anew(tmp_path):
    batch = samples(regions(tmp_path, 2))
    evaluator = Evaluator(SegmentationMetric())
    evaluator.dataset_meta = META
    evaluator.process(batch + batch[:3])
    first = evaluator.evaluate(len(batch))
    evaluator.process(batch)
    assert evaluator.evaluate(len(batch)) == first


def test_samples_that_are_missing_are_said(tmp_path):
    batch = samples(regions(tmp_path, 1))
    with pytest.raises(ConfigError, match=r"8 of 9 samples were counted.*sample_idx"):
        evaluate(batch[:-1], size=9)


def test_prefix_and_own_class_names(tmp_path):
    batch = samples(regions(tmp_path, 2))
    values, _ = evaluate(batch, prefix="test", classes=("a", "b", "c"), meta={})
    assert {"test/iou_a", "test/miou"} <= set(values)
    with pytest.raises(ConfigError, match="no class names"):
        evaluate(batch, meta={})


def test_an_absent_class_is_left_out_of_the_log(tmp_path):
    values, metric = evaluate(samples(regions(tmp_path, 2)), classes=("a", "b", "c", "d"))
    assert "iou_d" not in values
    assert {row["value"] for row in metric.rows if row["metric"].endswith("_d")} == {None}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"gt": (0, 0, 3)}, DataError, r"region0\.png, patch at x 32, y 0: truth holds the value 3 \(1 pixels\)"),
        ({"pred": (0, 0, 3)}, DataError, r"region0\.png, patch at x 32, y 0: prediction holds the value 3"),
        ({"crop": True}, DataError, r"region0\.png: truth of \(32, 32\) and prediction of \(16, 32\) pixels"),
        ({"drop": "region_index"}, ConfigError, r"samples lack region_index.*meta_keys"),
        ({"drop": "gt_sem_seg"}, ConfigError, r"region0\.png has no gt_sem_seg"),
        ({"item": "other.png"}, ConfigError, r"region0\.png and other\.png have the same region_index 0"),
    ],
)
def test_bad_samples_are_named(tmp_path, change, error, message):
    first, sample, *_ = (sample.to_dict() for sample in samples(regions(tmp_path, 1)))
    if place := change.get("gt"):
        sample["gt_sem_seg"]["data"][place[:1] + place[:2]] = place[2]
    if place := change.get("pred"):
        sample["pred_sem_seg"]["data"][place[:1] + place[:2]] = place[2]
    if change.get("crop"):
        sample["pred_sem_seg"]["data"] = sample["pred_sem_seg"]["data"][:, :16]
    sample.pop(change.get("drop"), None)
    sample["item"] = change.get("item", sample["item"])
    metric = SegmentationMetric(classes=META["classes"])
    with pytest.raises(error, match=message):
        metric.process(None, [first, sample])


def test_counting_leaves_the_maps_alone():
    truth, prediction = torch.randint(0, 3, (2, 50, 40), dtype=torch.int32)
    before = truth.clone()
    counts = count_by_value(truth, prediction, 3)
    np.testing.assert_array_equal(counts[:3], confusion_counts(truth.numpy(), prediction.numpy(), 3))
    assert torch.equal(truth, before)


def test_files_and_pictures(tmp_path):
    made = regions(tmp_path)
    out = tmp_path / "out"
    (out / "plots").mkdir(parents=True)
    (out / "plots" / "region_9.png").write_text("of an earlier evaluation")
    values, metric = evaluate(samples(made), out_dir=str(out))
    written = json.loads((out / "metrics.json").read_text())
    assert written["rows"] == metric.rows
    assert written["rows"][0]["value"] == values["miou"]
    assert written["rows"][0]["low"] < written["rows"][0]["high"]  # files come with intervals
    assert (written["n_regions"], written["n_patches"]) == (5, 45)
    with (out / "regions.csv").open(newline="") as file:
        assert [line["item"] for line in csv.DictReader(file)] == [f"region{index}.png" for index in range(5)]
    assert sorted(path.name for path in (out / "plots").iterdir()) == [f"region_{k}.png" for k in (1, 2, 3)]
    # The picture holds the stitched prediction: that of the worst region is region 2's, by construction the worst.
    from pathzoo.visualization.segmentation import panels

    values = [float(line) for line in _column(out / "regions.csv", "miou")]
    worst = int(np.argmin(values))
    truth, prediction, path = made[worst]
    expected = panels(
        np.array(Image.open(path)),
        truth,
        {"prediction": prediction},
        META["classes"],
        [tuple(color) for color in META["palette"]],
        title=f"region{worst}.png, worst of 5 by mIoU",
    )
    np.testing.assert_array_equal(np.array(Image.open(out / "plots" / "region_1.png")), expected)


def test_a_region_whose_image_is_gone_is_not_drawn_but_counted(tmp_path):
    made = regions(tmp_path, 3)
    batch = samples(made)
    Path(made[0][2]).unlink()
    evaluate(batch, out_dir=str(tmp_path / "out"))
    assert len(list((tmp_path / "out" / "plots").glob("*.png"))) == 2
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["n_regions"] == 3


def _column(path, name):
    with path.open(newline="") as file:
        return [line[name] for line in csv.DictReader(file)]


# The worker reads plain arrays, what Evaluator makes of samples: importing mmseg twice would cost most of the time.
_WORKER = """
import json, sys
import numpy as np
import torch
import torch.distributed as dist
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator
from pathzoo.evaluation.metrics import SegmentationMetric
dist.init_process_group("gloo")
out_dir, samples, meta = sys.argv[1:]
arrays = np.load(samples)
batch = [
    {
        **origin,
        "gt_sem_seg": {"data": torch.from_numpy(truth[None])},
        "pred_sem_seg": {"data": torch.from_numpy(prediction[None])},
    }
    for origin, truth, prediction in zip(json.loads(str(arrays["origin"])), arrays["truth"], arrays["prediction"])
]

def evaluate(shuffle, **arguments):
    metric = SegmentationMetric(**arguments)
    metric.dataset_meta = json.loads(meta)
    evaluator = Evaluator(metric)
    evaluator.process([batch[index] for index in DefaultSampler(batch, shuffle=shuffle, seed=0)])
    values = evaluator.evaluate(len(batch))
    assert (metric.rows != []) == (dist.get_rank() == 0)
    return values

values = evaluate(False, out_dir=out_dir)
try:
    refused = str(evaluate(True))
except Exception as error:
    refused = str(error)
print(json.dumps([values, refused]), flush=True)
dist.barrier()
dist.destroy_process_group()
"""


def test_two_processes_give_what_one_gives_and_refuse_a_shuffling_sampler(tmp_path):
    made = regions(tmp_path)  # 45 patches, odd: one of the two processes gets a repeat
    expected, metric = evaluate(samples(made), out_dir=str(tmp_path / "one"))
    for values, refused in in_two_processes(tmp_path, made):  # both know the numbers, for save_best
        assert values == pytest.approx(expected, rel=1e-12)
        assert "samples were counted" in refused
    one, two = tmp_path / "one", tmp_path / "two"
    written = json.loads((two / "metrics.json").read_text())["rows"]
    assert len(written) == len(metric.rows)
    for row, other in zip(metric.rows, written, strict=True):
        for key in ("value", "low", "high"):
            assert other.pop(key) == pytest.approx(row.pop(key), rel=1e-12)
        assert other == row
    assert (two / "regions.csv").read_text() == (one / "regions.csv").read_text()
    for number in (1, 2, 3):  # each process had every second patch; the pictures are whole
        name = f"plots/region_{number}.png"
        assert (two / name).read_bytes() == (one / name).read_bytes()


def in_two_processes(tmp_path, made):
    """What each of two processes printed; the files lie in tmp_path / "two"."""
    found = patches(made)
    truth, prediction = (np.stack([patch.pop(key) for patch in found]) for key in ("gt_seg_map", "prediction"))
    np.savez(tmp_path / "samples.npz", truth=truth, prediction=prediction, origin=json.dumps(found))
    printed = processes.run(_WORKER, tmp_path / "two", tmp_path / "samples.npz", json.dumps(META), cwd=tmp_path)
    return [json.loads(text.splitlines()[-1]) for text in printed]
