"""COCO's average precision by faster-coco-eval: the same numbers as pycocotools', sooner."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pathzoo.errors import ConfigError
from pathzoo.evaluation.functional.detection_matching import Picture

#: Our name -> its place in COCO's summary of boxes.
_PLACES = {"ap": 0, "ap50": 1, "ap75": 2, "ar100": 8}


def coco_summary(pictures: Sequence[Picture], classes: Sequence[str]) -> dict[str, float]:
    """ap, ap50, ap75 and ar100 of a set, as COCO's own evaluation defines them; NaN where no object is to be found.

    Ignored objects are passed on as crowds.

    Args:
        pictures: tiles or slides, in the order in which detections of equal score count.
        classes: C names.

    Raises:
        ConfigError: faster-coco-eval is not installed.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        raise ConfigError(
            "faster-coco-eval is not installed; it counts COCO's average precision: pip install pathzoo[detection]"
        ) from None
    truth = coco_truth(pictures, classes)
    found = coco_detections(pictures)
    if all(annotation["iscrowd"] for annotation in truth["annotations"]):
        return dict.fromkeys(_PLACES, np.nan)
    if not found:
        return dict.fromkeys(_PLACES, 0.0)
    objects = COCO(truth)
    evaluation = COCOeval_faster(objects, objects.loadRes(found), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return {name: float(evaluation.stats[place]) for name, place in _PLACES.items()}


def coco_truth(pictures: Sequence[Picture], classes: Sequence[str]) -> dict[str, Any]:
    """The objects as a COCO data set; numbers of pictures, objects and classes begin at 1."""
    annotations: list[dict[str, Any]] = []
    for number, picture in enumerate(pictures, start=1):
        for box, label, ignored in zip(picture.objects, picture.object_labels, picture.ignored, strict=True):
            x, y, width, height = _corner_and_size(box)
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": int(label) + 1}
            entry |= {"bbox": [x, y, width, height], "area": width * height, "iscrowd": int(ignored)}
            annotations.append(entry)
    return {
        "images": [{"id": number} for number in range(1, len(pictures) + 1)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes, start=1)],
        "annotations": annotations,
    }


def coco_detections(pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    """The detections as COCO results."""
    return [
        {"image_id": number, "category_id": int(label) + 1, "bbox": list(_corner_and_size(box)), "score": float(score)}
        for number, picture in enumerate(pictures, start=1)
        for box, label, score in zip(picture.boxes, picture.labels, picture.scores, strict=True)
    ]


def _corner_and_size(box: np.ndarray) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box.tolist()
    return x0, y0, x1 - x0, y1 - y0
