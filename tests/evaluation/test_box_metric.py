"""The metric of detection configs, fed with mmdet's samples through mmengine's Evaluator, in one process and in two."""

import csv
import json

import numpy as np
import processes
import pytest
import torch
from mmdet.datasets.transforms import PackDetInputs
from mmdet.models import DetDataPreprocessor
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData
from PIL import Image
from test_detection_matching import picture

from pathzoo.datasets.transforms import LetterBox
from pathzoo.errors import ConfigError, DataError
from pathzoo.evaluation.coco_summary import coco_summary
from pathzoo.evaluation.functional.detection_matching import Picture
from pathzoo.evaluation.metrics import BoxMetric
from pathzoo.evaluation.metrics.detection import META_KEYS
from pathzoo.models.dense_heads.yolov5_head import YOLOv5Head
from pathzoo.registry import METRICS

META = {"classes": ("open", "sclerosed")}
SIDE = 300


def cut(one):
    """The picture with its detections cut at the edges of a tile of 300 px."""
    boxes = one.boxes.astype(np.float32).astype(float).clip(0, SIDE)
    return Picture(boxes, one.scores.astype(np.float32), one.labels, one.objects.astype(np.float32), *one[4:])


def tiles(n=15, ignored=0.2):
    return [cut(picture(seed, 2, ignored)) for seed in range(n)]


def sample(one, index, scale=1.0):
    """What a model hands to the evaluator: packed by mmdet's own transform, with predictions."""
    results = {
        "img": np.zeros((int(SIDE * scale), int(SIDE * scale), 3), np.uint8),
        "img_shape": (int(SIDE * scale), int(SIDE * scale)),
        "scale_factor": (scale, scale),
        "gt_bboxes": one.objects.astype(np.float32) * scale,
        "gt_bboxes_labels": one.object_labels,
        "gt_ignore_flags": one.ignored,
        "item": f"tile{index}.png",
        "patient": f"p{index // 3}",
        "slide": f"s{index // 2}",
    }
    packed = PackDetInputs(meta_keys=META_KEYS)(results)["data_samples"]
    packed.pred_instances = InstanceData(
        bboxes=torch.tensor(one.boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor(one.scores, dtype=torch.float32),
        labels=torch.tensor(one.labels),
    )
    return packed


def evaluate(batch, **arguments):
    evaluator = Evaluator(METRICS.build({"type": "BoxMetric", **arguments}))
    evaluator.dataset_meta = META
    for start in range(0, len(batch), 4):
        evaluator.process(batch[start : start + 4])
    return evaluator.evaluate(len(batch)), evaluator.metrics[0]


def test_numbers_are_coco_s_and_those_at_the_thresholds():
    pictures = tiles()
    values, metric = evaluate([sample(one, k) for k, one in enumerate(pictures)], target_recall=0.4, threshold=0.5)
    expected = coco_summary(pictures, META["classes"])
    assert {name: values[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert {"ap_open", "best_f1", "recall_at_target_recall", "f1_at_given_threshold", "highest_recall"} <= set(values)
    assert values["recall_at_target_recall"] >= 0.4
    assert all(row["level"] == "tile" and row["n"] == 15 and row["low"] is None for row in metric.rows)
    assert values == {row["metric"]: row["value"] for row in metric.rows}


def test_a_picture_that_the_pipeline_resized_is_scaled_back():
    pictures = tiles(8)
    whole, _ = evaluate([sample(one, k) for k, one in enumerate(pictures)])
    halved, _ = evaluate([sample(one, k, 0.5) for k, one in enumerate(pictures)])
    assert halved == pytest.approx(whole, abs=1e-6)


def test_predictions_are_cut_at_the_edge_and_dropped_outside():
    none = np.zeros(0, int)
    objects, label = np.array([[200.0, 200, 300, 300]]), np.zeros(1, int)
    boxes = np.array([[200.0, 200, 400, 400], [310, 10, 350, 60]])
    one = Picture(boxes, np.array([0.9, 0.8]), np.zeros(2, int), objects, label, np.zeros(1, bool))
    values, _ = evaluate([sample(one, 0)])
    assert values["best_f1"] == 1.0 and values["ap"] == pytest.approx(1)
    empty = Picture(np.zeros((0, 4)), np.zeros(0), none, objects, label, np.zeros(1, bool))
    values, metric = evaluate([sample(empty, 0)])
    assert values["ap"] == 0 and "best_f1" not in values
    assert any(row["metric"] == "best_f1" and "no detection" in row["note"] for row in metric.rows)


def test_files(tmp_path):
    pictures = tiles()
    batch = [sample(one, k) for k, one in enumerate(pictures)]
    values, metric = evaluate(batch, out_dir=str(tmp_path), target_recall=0.3)
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["rows"] == metric.rows and written["rows"][0]["value"] == values["ap"]
    assert written["rows"][0]["low"] < written["rows"][0]["high"]  # files come with intervals
    assert (written["n_tiles"], written["n_slides"], written["n_patients"]) == (15, 8, 5)
    assert written["n_objects"] == sum(int((~one.ignored).sum()) for one in pictures)
    assert written["n_objects_ignored"] == sum(int(one.ignored.sum()) for one in pictures)
    assert written["n_detections"] == sum(len(one.boxes) for one in pictures)
    lines = rows_of(tmp_path / "matches.csv")
    count = {what: sum(line["outcome"] == what for line in lines) for what in {line["outcome"] for line in lines}}
    assert count["found"] + count["missed"] == written["n_objects"]
    assert count["again"] == written["n_detections_of_objects_found_before"]
    assert count["left out"] == written["n_detections_left_out"]
    assert sum(count.values()) - count["missed"] == written["n_detections"]
    for line in lines:
        one = pictures[int(line["item"][4:-4])]
        if line["outcome"] == "missed":
            real_first = one.objects[np.argsort(one.ignored, kind="stable")]  # as mmdet packs them
            expected = real_first[int(line["object"])].tolist()
            assert [float(line[c]) for c in ("x0", "y0", "x1", "y1")] == pytest.approx(expected, abs=0.006)
    confidence = [line for line in rows_of(tmp_path / "curves/confidence.csv") if line["class"] == "(all classes)"]
    at_best = [line for line in confidence if float(line["threshold"]) == values["threshold_at_best_f1"]]
    assert float(at_best[0]["f1"]) == values["best_f1"]
    assert max(float(line["recall"]) for line in confidence) == values["highest_recall"]
    assert {line["class"] for line in rows_of(tmp_path / "curves/froc.csv")} == {"(all classes)", "open", "sclerosed"}
    for name in ("precision_recall", "confidence", "froc"):
        assert np.array(Image.open(tmp_path / "plots" / f"{name}.png").convert("L")).std() > 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves", "matches.csv", "metrics.json", "plots"]


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"drop": "slide"}, ConfigError, r"samples lack slide.*PackDetInputs needs meta_keys"),
        ({"drop": "pred_instances"}, ConfigError, r"tile1\.png has no pred_instances"),
        ({"labels": 2}, DataError, r"tile1\.png: detection 0 .*class 2.* none of 0\.\.1"),
        ({"bboxes": torch.nan}, DataError, r"tile1\.png: detection 0 .*not finite"),
    ],
)
def test_bad_samples_are_named(change, error, message):
    first, second = (sample(cut(picture(k)), k).to_dict() for k in (1, 1))
    second["item"] = "tile1.png"
    second.pop(change.get("drop"), None)
    for key in ("labels", "bboxes"):
        if key in change:
            second["pred_instances"][key][0] = change[key]
    metric = BoxMetric(classes=META["classes"])
    with pytest.raises(error, match=message):
        metric.process(None, [first, second])
        metric.evaluate(2)


def test_arguments_out_of_bounds():
    batch = [sample(one, k) for k, one in enumerate(tiles(3))]
    with pytest.raises(DataError, match=r"iou 1\.5"):
        evaluate(batch, iou=1.5)
    with pytest.raises(ConfigError, match="no class names"):
        BoxMetric().compute_metrics([])


# The worker reads plain arrays, what Evaluator makes of samples: importing mmdet twice would cost most of the time.
_WORKER = """
import json, sys
import numpy as np
import torch
import torch.distributed as dist
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator
from pathzoo.evaluation.metrics import BoxMetric
dist.init_process_group("gloo")
out_dir, samples = sys.argv[1:]
tensors = lambda values: {key: torch.tensor(value) for key, value in values.items()}
batch = [
    {key: tensors(value) if key.endswith("_instances") else value for key, value in one.items()}
    for one in json.load(open(samples))
]
metric = BoxMetric(out_dir=out_dir, classes=("open", "sclerosed"), target_recall=0.3)
evaluator = Evaluator(metric)
evaluator.process([batch[index] for index in DefaultSampler(batch, shuffle=False)])
values = evaluator.evaluate(len(batch))
assert (metric.rows != []) == (dist.get_rank() == 0)
print(json.dumps(values), flush=True)
dist.barrier()
dist.destroy_process_group()
"""


def test_two_processes_give_what_one_gives(tmp_path):
    batch = [sample(one, k) for k, one in enumerate(tiles())]  # 15, odd: one of the two gets a repeat
    expected, _ = evaluate(batch, out_dir=str(tmp_path / "one"), target_recall=0.3)
    listed = [
        {
            key: {name: part.tolist() for name, part in value.items()} if key.endswith("_instances") else value
            for key, value in one.to_dict().items()
        }
        for one in batch
    ]
    (tmp_path / "samples.json").write_text(json.dumps(listed))
    for values in in_two_processes(tmp_path):  # both know the numbers, for save_best
        assert values == pytest.approx(expected, rel=1e-12)
    for name in ("matches.csv", "curves/confidence.csv", "plots/froc.png", "metrics.json"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def in_two_processes(tmp_path):
    """What each of two processes printed; the files lie in tmp_path / "two"."""
    printed = processes.run(_WORKER, tmp_path / "two", tmp_path / "samples.json", cwd=tmp_path)
    return [json.loads(text.splitlines()[-1]) for text in printed]


def test_what_lies_in_the_filling_of_a_letter_box_is_no_detection():
    """A tile of 1200 x 1600 px, or half of it enlarged, in a frame 16 px higher, as glomerulus_yolov5 is tested."""
    for small in (1, 2):
        tile = {"img": np.zeros((1200 // small, 1600 // small, 3), np.uint8), "patient": "p", "slide": "s", "item": "t"}
        truth = np.array([[100, 1100, 200, 1200]], np.float32)
        tile |= {"gt_bboxes": truth / small, "gt_bboxes_labels": np.zeros(1, int), "gt_ignore_flags": np.zeros(1, bool)}
        results = LetterBox((1600, 1216))(tile)
        assert results["img"].shape == (1216, 1600, 3)
        packed = PackDetInputs(meta_keys=META_KEYS)(results)["data_samples"]
        boxes = torch.tensor([[100.0, 1100, 200, 1216], [400, 1201, 500, 1216]]) / small
        scores = torch.tensor([0.9, 0.95])
        packed.pred_instances = InstanceData(bboxes=boxes, scores=scores, labels=torch.zeros(2, dtype=torch.int64))
        values, _ = evaluate([packed], classes=("open",))
        assert values["ap"] == pytest.approx(1.0) and values["precision_at_best_f1"] == 1.0


def test_the_detector_itself_cuts_at_the_fitted_picture():
    """Preprocessor and head keep what the filling is: every cell answers with a box of its anchor round it."""
    head = YOLOv5Head(num_classes=1, in_channels=(4, 4, 4), strides=(8, 16, 32))
    preprocessor = DetDataPreprocessor(mean=[0] * 3, std=[255] * 3, pad_size_divisor=32, pad_value=114)
    results = LetterBox((96, 64))({"img": np.zeros((48, 96, 3), np.uint8)})
    data = preprocessor({key: [value] for key, value in PackDetInputs(meta_keys=("img_shape",))(results).items()})
    [sample] = data["data_samples"]
    assert (sample.img_shape, sample.pad_shape, sample.batch_input_shape) == ((48, 96), (64, 96), (64, 96))
    maps = [torch.full((1, 3, 64 // s, 96 // s, 6), 5.0) for s in head.strides]
    [found] = head.predict_by_feat(maps, [sample.metainfo], {"score_thr": 0.001, "max_per_img": 1000})
    assert len(found) and found.bboxes[:, 3].max() <= 48 and (found.bboxes[:, 2:] > found.bboxes[:, :2]).all()
