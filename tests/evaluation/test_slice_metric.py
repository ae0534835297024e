"""The metric of CT slices: fed with mmseg's samples of a store's slices through mmengine's Evaluator."""

import json
import shutil

import numpy as np
import processes
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData
from mmseg.datasets.transforms import PackSegInputs
from PIL import Image

from pathzoo.ct.store import SliceStore, slice_sha256
from pathzoo.ct.store_writer import slice_store_writer
from pathzoo.datasets.splits import Split, SplitItem, Subset
from pathzoo.errors import ConfigError
from pathzoo.evaluation.functional import confusion_counts, segmentation_report, slice_report
from pathzoo.evaluation.metrics.slices import SLICE_KEYS
from pathzoo.registry import METRICS

META = {"classes": ("background", "kidney", "tumour"), "palette": [[0, 0, 0], [0, 158, 115], [213, 94, 0]]}
SIDE, COUNT, WINDOW = 24, 6, (-200.0, 200.0)


def drawn(index):
    """HU, truth and prediction of a slice; slice 2 is predicted worst, slice 0 best."""
    rng = np.random.default_rng(index)
    hu = rng.integers(-1000, 400, (SIDE, SIDE)).astype(np.int16)
    truth, guess = np.zeros((2, SIDE, SIDE), np.uint8)
    truth[4:14, 4:14], truth[10:16, 10:16] = 1, 2 if index % 2 else 1
    guess[4 : 14 - 2 * ((index + 3) % COUNT), 4:14] = 1
    if index == 0:
        guess = truth.copy()
    elif index % 2:
        guess[11:16, 10:16] = 2
    return hu, truth, guess


@pytest.fixture
def store(tmp_path):
    shas = [slice_sha256(*drawn(k)[:2]) for k in range(COUNT)]
    items = [SplitItem(f"case_{k // 2:05d}/{k:04d}", 2 if k % 2 else 1, shas[k], f"p{k // 2}") for k in range(COUNT)]
    split = Split("patient_ratio", {"test": Subset.of(items)}, META["classes"])
    with slice_store_writer(tmp_path / "store", size=(SIDE, SIDE), source="kits19", phantom=True, split=split) as out:
        for k, item in enumerate(items):
            hu, truth, _ = drawn(k)
            out.add("test", hu, truth, item=item.item, patient=item.patient, case=item.item[:10], slice=k)
    return SliceStore(tmp_path / "store")


def samples(store, scale=1):
    """Packed by mmseg's own transform with what the data set gives, and a prediction."""
    pack, out = PackSegInputs(meta_keys=SLICE_KEYS), []
    for k, record in enumerate(store.records("test")):
        _, truth, guess = (np.kron(part, np.ones((scale, scale), part.dtype)) for part in drawn(k))
        info = {"item": record.item, "patient": record.patient, "slide": record.case, "store": str(store.folder)}
        info |= {"subset": "test", "slice_index": k, "hu_window": WINDOW, "region_index": k, "sample_idx": k}
        info |= {"patch_x": 0, "patch_y": 0, "img": np.zeros((*truth.shape, 1), np.float32), "gt_seg_map": truth}
        sample = pack(info)["data_samples"]
        sample.pred_sem_seg = PixelData(data=torch.from_numpy(guess.astype(np.int64))[None])
        out.append(sample)
    return out


def evaluate(batch, **arguments):
    evaluator = Evaluator(METRICS.build({"type": "SliceMetric", **arguments}))
    evaluator.dataset_meta = META
    for start in range(0, len(batch), 4):
        evaluator.process(batch[start : start + 4])
    return evaluator.evaluate(len(batch)), evaluator.metrics[0]


def expected_rows(n_bootstrap):
    counts = np.stack([confusion_counts(*drawn(k)[1:], 3) for k in range(COUNT)])
    patients = [f"p{k // 2}" for k in range(COUNT)]
    own = slice_report(counts, patients, META["classes"], n_bootstrap)
    return own, segmentation_report(counts, patients, META["classes"], n_bootstrap=n_bootstrap)


def test_rows_and_log_are_those_of_both_reports(store):
    values, metric = evaluate(samples(store), n_bootstrap=60)
    own, common = expected_rows(60)
    assert metric.rows[: len(own)] == own
    assert [row for row in metric.rows[len(own) :] if row["level"] != "patch"] == common
    names = ("slice_iou", "slice_iou_absent_1", "slice_iou_foreground", "slice_iou_kidney", "slice_iou_tumour")
    assert {*names, "patient_dice_kidney", "patient_dice_tumour", "miou", "patient_miou"} <= set(values)
    for row in own:
        assert values.get(row["metric"]) == row["value"]  # one that is undefined is in neither
    assert values["slice_iou"] == pytest.approx(values["region_miou"])  # a region is a slice


def test_files_and_pictures(store, tmp_path):
    from pathzoo.visualization.segmentation import panels

    values, metric = evaluate(samples(store), out_dir=str(tmp_path / "out"))
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written["rows"] == metric.rows and written["rows"][0]["metric"] == "slice_iou"
    assert written["rows"][0]["value"] == values["slice_iou"]
    assert written["rows"][0]["low"] < values["slice_iou"] < written["rows"][0]["high"]
    ious = [np.nanmean([_iou(*drawn(k)[1:], c) for c in range(3)]) for k in range(COUNT)]
    worst = int(np.argmin(ious))
    hu, truth, guess = drawn(worst)
    grey = np.rint((np.clip(hu.astype(float), *WINDOW) + 200) / 400 * 255).astype(np.uint8)
    title = f"case_{worst // 2:05d}/{worst:04d}, worst of {COUNT} by mIoU"
    colors = [tuple(color) for color in META["palette"]]
    page = panels(np.stack([grey] * 3, -1), truth, {"prediction": guess}, META["classes"], colors, title=title)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "out" / "plots" / "region_1.png")), page)


def test_a_slice_is_drawn_at_the_size_of_its_prediction(store, tmp_path):
    small, _ = evaluate(samples(store))
    large, _ = evaluate(samples(store, scale=2), out_dir=str(tmp_path / "out"))
    assert {name: large[name] for name in small} == pytest.approx(small)
    metric = METRICS.build({"type": "SliceMetric"})
    sample = {**samples(store)[0].to_dict(), "hu_window": WINDOW}
    slice_ = metric.region_type(*(sample[key] for key in metric.region_type._fields))
    maps = np.zeros((2, 2 * SIDE, 3 * SIDE), np.uint8)
    metric._maps.add(0, 0, 0, *maps)
    picture = metric._picture(slice_, metric._maps.of([0])[0])
    assert picture.shape == (2 * SIDE, 3 * SIDE, 3) and picture.dtype == np.uint8


def test_a_store_that_is_gone_is_not_drawn_but_counted(store, tmp_path):
    batch = samples(store)
    shutil.rmtree(store.folder)
    values, _ = evaluate(batch, out_dir=str(tmp_path / "out"))
    assert "slice_iou" in values and not list((tmp_path / "out").glob("plots/*.png"))


def test_what_a_sample_lacks_is_named(store):
    batch = [sample.to_dict() for sample in samples(store)]
    del batch[1]["store"]
    metric = METRICS.build({"type": "SliceMetric", "classes": META["classes"]})
    with pytest.raises(ConfigError, match=r"SliceMetric: samples lack store; .*'hu_window'"):
        metric.process(None, batch)


def test_save_best_finds_the_name(store):
    values, _ = evaluate(samples(store), prefix="val")
    assert "val/slice_iou" in values


def _iou(truth, guess, k):
    either = ((truth == k) | (guess == k)).sum()
    return ((truth == k) & (guess == k)).sum() / either if either else np.nan


# Plain arrays, what Evaluator makes of samples: importing mmseg twice would cost most of the time.
_WORKER = """
import json, sys
import numpy as np
import torch
import torch.distributed as dist
from pathzoo.evaluation.metrics import SliceMetric
dist.init_process_group("gloo")
out_dir, arrays, classes = sys.argv[1:]
arrays = np.load(arrays)
metric = SliceMetric(classes=json.loads(classes), out_dir=out_dir, n_bootstrap=20)
for index, info in enumerate(json.loads(str(arrays["info"]))):
    if index % 2 == dist.get_rank():
        maps = {"gt_sem_seg": arrays["truth"][index], "pred_sem_seg": arrays["guess"][index]}
        metric.process(None, [{**info, **{k: {"data": torch.from_numpy(v)[None]} for k, v in maps.items()}}])
print(json.dumps(metric.evaluate(index + 1)), flush=True)
dist.barrier()
dist.destroy_process_group()
"""


def test_two_processes_give_what_one_gives(store, tmp_path):
    batch = samples(store)
    expected, metric = evaluate(batch, n_bootstrap=20, out_dir=str(tmp_path / "one"))
    info = [{key: sample.get(key) for key in SLICE_KEYS} for sample in batch]
    truth, guess = (np.stack([drawn(k)[part] for k in range(COUNT)]) for part in (1, 2))
    np.savez(tmp_path / "samples.npz", truth=truth, guess=guess, info=json.dumps(info))
    given = tmp_path / "two", tmp_path / "samples.npz", json.dumps(META["classes"])
    for printed in processes.run(_WORKER, *given):
        assert json.loads(printed.splitlines()[-1]) == pytest.approx(expected)
    written = json.loads((tmp_path / "two" / "metrics.json").read_text())["rows"]
    assert [row["metric"] for row in written] == [row["metric"] for row in metric.rows]
    assert len(list((tmp_path / "two" / "plots").glob("region_*.png"))) == 3  # the main process had but half of them
