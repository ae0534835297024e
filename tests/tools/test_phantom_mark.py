"""What is made of a phantom's files stays marked as drawn, through every converter, up to a run's record."""

import shutil

import pytest
from dataset_converters import annotations_to_boxes, annotations_to_regions, annotations_to_tiles, masks_to_regions

from pathzoo.apis.run_record import _is_synthetic
from pathzoo.datasets.detection_tiles import TileDetection
from pathzoo.datasets.phantom import write_biopsies, write_regions
from pathzoo.datasets.regions import RegionSegmentation
from pathzoo.datasets.tiles import TileClassification
from pathzoo.phantom_mark import any_phantom


@pytest.fixture(scope="module")
def labs(tmp_path_factory):
    """The same slides and regions twice: with the phantom's mark, and as if they were somebody's own."""
    root = tmp_path_factory.mktemp("labs")
    write_biopsies(root / "drawn", patients=2, slides_per_patient=1, size=(1000, 700), mpp=2.0, class_is_look=True)
    write_regions(root / "drawn_regions", patients=2, regions_per_patient=1, size=(96, 80), mpp=2.0)
    for name in ("drawn", "drawn_regions"):
        own = root / name.replace("drawn", "own")
        shutil.copytree(root / name, own)
        (own / "phantom.json").unlink()
    return root


def _slides(root):
    return ["--slides", root / "slides", "--annotations", root / "annotations", "--patients", root / "patients.csv"]


def _boxes(labs, kind, out):
    looks = ["--classes", "normal", "sclerosed", "crescent"]
    return annotations_to_boxes, [*_slides(labs / kind), *looks, "--tile", 448, 448, "--mpp", 2, "--out", out]


def _tiles(labs, kind, out):
    return annotations_to_tiles, [*_slides(labs / kind), "--tile", 128, "--mpp", 2, "--around-objects", "--out", out]


def _regions(labs, kind, out):
    classes = ["--classes", "rest", "normal"]
    return annotations_to_regions, [*_slides(labs / kind), *classes, "--mpp", 2, "--cut", "whole", "--out", out]


def _masks(labs, kind, out):
    table = labs / f"{kind}_regions" / "regions.csv"
    return masks_to_regions, ["--table", table, "--classes", "normal", "benign", "malignant", "--out", out]


@pytest.mark.parametrize(
    ("command", "dataset"),
    [
        (_boxes, lambda out: TileDetection(data_root=str(out), ann_file="tiles.json")),
        (_tiles, lambda out: TileClassification(ann_file=str(out / "tiles.csv"))),
        (_regions, lambda out: RegionSegmentation(str(out))),
        (_masks, lambda out: RegionSegmentation(str(out))),
    ],
)
def test_converters_keep_the_mark(labs, command, dataset, tmp_path):
    for kind, drawn in (("drawn", True), ("own", False)):
        out = tmp_path / kind
        tool, words = command(labs, kind, out)
        assert tool.main([str(word) for word in words]) in (0, None)
        assert (out / "phantom.json").exists() is drawn
        data = dataset(out)
        data.full_init()
        assert _is_synthetic(data) is drawn


def test_the_mark_is_looked_for_above_a_file(labs):
    assert any_phantom([labs / "drawn" / "slides" / "B001-1.tif"])
    assert not any_phantom([labs / "own" / "slides" / "B001-1.tif"])
