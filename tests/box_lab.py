"""Annotated slides for the tests of the converter to boxes, and what to call it by."""

import json

import numpy as np
import shapely
import tifffile
from annotated_lab import geojson
from dataset_converters import annotations_to_boxes as tool

SIZE = (400, 300)
BOXES = [(10, 10, 60, 60), (120, 80, 180, 130), (250, 200, 390, 290)]


def tissue(seed):
    """Pink, with glass at the right quarter."""
    picture = np.random.default_rng(seed).integers(0, 40, (SIZE[1], SIZE[0], 3)) + np.array([200, 100, 160])
    picture[:, 300:] = 245
    return picture.astype(np.uint8)


def make_lab(tmp_path):
    """Slides a to e of 0.5 microns, of patients p0 (a, b), p1 (c) and p2 (d); nobody has annotated e."""
    (tmp_path / "slides").mkdir()
    lines = ["slide,patient"]
    for number, name in enumerate("abcde"):
        tifffile.imwrite(
            tmp_path / "slides" / f"{name}.tif",
            tissue(number),
            tile=(64, 64),
            photometric="rgb",
            resolution=(20000, 20000),
            resolutionunit="CENTIMETER",
        )
        if name != "e":
            geojson(tmp_path / "drawn" / f"{name}.geojson", [(shapely.box(*box), "glomerulus") for box in BOXES])
            lines.append(f"{name},p{max(0, number - 1)}")
    (tmp_path / "patients.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def run(lab, *more, out="out", mpp="0.5", tile=("120", "90"), drawn="drawn"):
    given = ["--slides", lab / "slides", "--annotations", lab / drawn, "--out", lab / out, "--classes", "glomerulus"]
    given += ["--patients", lab / "patients.csv", "--tile", *tile]
    return tool.main([*map(str, given), *(["--mpp", mpp] if mpp else ["--keep-pixels"]), *map(str, more)])


def load(lab, name="tiles.json", out="out"):
    return json.loads((lab / out / name).read_text())
