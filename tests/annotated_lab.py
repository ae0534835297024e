"""Slides with annotations for the tests of the converter to regions, and what to call it by."""

import csv
import json

import numpy as np
import shapely
import tifffile
from dataset_converters import annotations_to_regions as tool
from PIL import Image
from shapely.geometry import mapping

CLASSES = ["normal", "benign", "malignant"]


def geojson(path, areas):
    features = [
        {
            "type": "Feature",
            "geometry": mapping(area),
            "properties": {"objectType": "annotation", **({"classification": {"name": name}} if name else {})},
        }
        for area, name in areas
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def picture(width=640, height=480, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def box_mask(boxes, width=640, height=480, background=255):
    mask = np.full((height, width), background, np.uint8)
    for (x0, y0, x1, y1), value in boxes:
        mask[y0:y1, x0:x1] = value
    return mask


def write_annotated_lab(tmp_path):
    """Slides of 0.5 microns: `a` a tiled TIFF that says so, `b` a PNG that does not, `c` nobody has annotated."""
    (tmp_path / "slides").mkdir()
    tifffile.imwrite(
        tmp_path / "slides" / "a.tif",
        picture(seed=1),
        tile=(128, 128),
        photometric="rgb",
        resolution=(20000, 20000),
        resolutionunit="CENTIMETER",
    )
    Image.fromarray(picture(seed=2)).save(tmp_path / "slides" / "b.png")
    Image.fromarray(picture(seed=3)).save(tmp_path / "slides" / "c.png")
    geojson(
        tmp_path / "drawn" / "a.geojson",
        [
            (shapely.box(250, 100, 400, 250), "malignant"),
            (shapely.box(100, 100, 300, 200), "benign"),
            (shapely.box(500, 400, 600, 450), "normal"),
            (shapely.box(500, 400, 510, 410), "Ignore*"),
            (shapely.box(0, 300, 100, 400), "Necrosis"),
            (shapely.box(0, 300, 100, 400), None),
            (shapely.box(80, 80, 440, 280), "Region"),
        ],
    )
    (tmp_path / "drawn" / "b.xml").write_text(
        '<Annotations><Annotation Name="malignant"><Regions><Region Type="0"><Vertices><Vertex X="10" Y="20"/>'
        '<Vertex X="50" Y="20"/><Vertex X="50" Y="60"/><Vertex X="10" Y="60"/></Vertices></Region>'
        '<Region Type="1" NegativeROA="1"><Vertices><Vertex X="20" Y="30"/><Vertex X="25" Y="35"/></Vertices></Region>'
        "</Regions></Annotation></Annotations>"
    )
    (tmp_path / "mpp.csv").write_text("slide,mpp\nb.png,0.5\nc.png,0.5\n")
    (tmp_path / "patients.csv").write_text("slide,patient\na,p1\nb,p2\nc,p3\n")
    return tmp_path


def run(lab, *more, out="out", classes=CLASSES):
    folders = ["--slides", lab / "slides", "--annotations", lab / "drawn", "--out", lab / out]
    tables = ["--mpp-csv", lab / "mpp.csv", "--patients", lab / "patients.csv"]
    given = ["--classes", *classes] if classes else []
    return tool.main([*map(str, [*folders, *tables, *more]), *given])


def table(lab, out="out"):
    with (lab / out / "regions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def read(lab, name, out="out"):
    with Image.open(lab / out / name) as image:
        return np.asarray(image)


A_MASK = box_mask([((100, 100, 300, 200), 1), ((250, 100, 400, 250), 2), ((500, 400, 600, 450), 0)])
A_MASK[400:410, 500:510] = 255
B_MASK = box_mask([((10, 20, 50, 60), 2), ((20, 30, 25, 35), 255)])
