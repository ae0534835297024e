"""Folders as `pathzoo predict` leaves them, annotations of their slides, and what an evaluation of both wrote."""

import csv
import json

from analysis_tools.slide_detection import main
from shapely.geometry import box

from pathzoo.wsi.geojson import annotation, write_features

BOX, OTHER, FAR = [100, 100, 200, 200], [300, 300, 380, 380], [600, 600, 700, 700]
THREE = ("s1", "s2", "s3")
GOOD = {"s1": (None, [("glomerulus", BOX)]), "s2": (None, [("glomerulus", BOX)])}


def detection(corners, score, name="glomerulus"):
    return [*corners, score, name]


def annotate(path, boxes, name="glomerulus"):
    path.parent.mkdir(exist_ok=True)
    write_features(path, [annotation(box(*one), name, (0, 0, 0), {}, str(k)) for k, one in enumerate(boxes)])


def by_hand(folder, name, rows, bounds=(0, 0, 1000, 1000), task="detection", digest="abc", skipped=(), least=0.05):
    """What `pathzoo predict` leaves of a slide, as far as it is read; rows of detections.csv."""
    out = folder / "predictions" / name
    out.mkdir(parents=True)
    with (out / "detections.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["x0", "y0", "x1", "y1", "score", "class"], *rows])
    model = {"name": "m", "version": "1.0.0", "digest": digest, "task": task, "classes": ["glomerulus", "vessel"]}
    slide = {"bounds": list(bounds), "dimensions": [2000, 2000], "mpp": 0.5}
    run = {"model": model, "slide": slide, "detection": {"score_threshold": least}, "skipped_tiles": list(skipped)}
    (out / "predict_run.json").write_text(json.dumps(run))


def objects_file(folder, slides):
    """objects.json of annotations_to_boxes.py; slides: name -> (patient, list of (class, box))."""
    listed = [
        {
            "slide": name,
            "patient": patient,
            "mpp": 0.5,
            "width": 2000,
            "height": 2000,
            "objects": [{"id": f"{name}:{k}", "class": c, "box": b, "area": 1.0} for k, (c, b) in enumerate(objects)],
        }
        for name, (patient, objects) in slides.items()
    ]
    known = {"format": "pathzoo.objects", "version": 1, "classes": ["glomerulus"]}
    (folder / "objects.json").write_text(json.dumps({**known, "slides": listed}))
    return folder / "objects.json"


def evaluate(folder, objects, *more):
    return main(
        ["--predictions", str(folder / "predictions"), "--objects", str(objects), "--out", str(folder / "out"), *more]
    )


def values(folder):
    written = json.loads((folder / "out" / "metrics.json").read_text())
    return {row["metric"]: row["value"] for row in written["rows"]}, written


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
