"""Boxes in a results dict, as plain arrays: `gt_bboxes` may be an ndarray or a box structure of mmdet."""

from typing import Any

import numpy as np

#: Entries that hold one value per box and are filtered with them.
PER_BOX = ("gt_bboxes_labels", "gt_ignore_flags", "gt_bboxes_weights")
#: Entries that lie in the picture's plane but that no transform here moves; they must not be left behind silently.
NOT_MOVED = ("gt_masks", "proposals", "gt_keypoints", "gt_depth_map", "gt_edge_map")


def get_boxes(results: dict[str, Any]) -> np.ndarray | None:
    """The boxes as float32 (n, 4), x0 y0 x1 y1 in pixels; None where there is no `gt_bboxes`."""
    boxes = results.get("gt_bboxes")
    if boxes is None:
        return None
    array = boxes.tensor.detach().cpu().numpy() if hasattr(boxes, "tensor") else boxes
    return np.asarray(array, dtype=np.float32).reshape(-1, 4)


def set_boxes(results: dict[str, Any], boxes: np.ndarray, kept: np.ndarray) -> None:
    """Puts boxes back in the type they had, and filters what belongs to them.

    Args:
        results: changed in place.
        boxes: (m, 4), x0 y0 x1 y1 in pixels.
        kept: (m,) which of the former boxes these are.
    """
    old = results["gt_bboxes"]
    boxes = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    kept = np.asarray(kept, dtype=np.int64)
    results["gt_bboxes"] = type(old)(old.tensor.new_tensor(boxes)) if hasattr(old, "tensor") else boxes
    for key in PER_BOX:
        values = results.get(key)
        if isinstance(values, list | tuple):
            results[key] = type(values)(values[i] for i in kept)
        elif values is not None:
            results[key] = values[kept]


def clip_boxes(boxes: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes cut to the picture, without those of which nothing is left: (m, 4) and (m,) indices of the kept ones."""
    cut = np.clip(boxes, 0, np.array([width, height, width, height], boxes.dtype))
    kept = np.flatnonzero((cut[:, 2] > cut[:, 0]) & (cut[:, 3] > cut[:, 1]))
    return cut[kept], kept
