"""COCO files of tiles: what is read, what is refused, how they are divided."""

import json

import numpy as np
import pytest
from box_files import write_coco

from pathzoo.datasets.coco_tiles import divide_document, read_coco_tiles
from pathzoo.errors import ConfigError, DataError

TILE = {"file_name": "a.png"}


def test_any_coco_file_will_do(tmp_path):
    boxes = [(2, [1, 2, 30, 40]), (1, [0, 0, 5.5, 6], {"iscrowd": 1}), (1, [70, 50, 10, 10], {"ignore": 1})]
    found = read_coco_tiles(write_coco(tmp_path / "c.json", [(TILE, boxes), ({"file_name": "s/b.png"}, [])]))
    assert found.classes == ("glomerulus", "vessel") and not found.problems
    tile, empty = found.tiles
    np.testing.assert_array_equal(tile["boxes"], np.float32([[1, 2, 31, 42], [0, 0, 5.5, 6], [70, 50, 80, 60]]))
    assert tile["labels"].tolist() == [1, 0, 0] and tile["ignore"].tolist() == [False, True, True]
    assert (tile["boxes"].dtype, tile["labels"].dtype, tile["ignore"].dtype) == (np.float32, np.int64, bool)
    assert empty["boxes"].shape == (0, 4) and empty["item"] == "s/b.png"
    assert tile["img_path"] == str(tmp_path / "a.png") and tile["downsample"] == 1 and tile["source"] == "file"
    assert [tile[name] for name in ("slide", "patient", "x", "y", "mpp")] == [None] * 5


def test_classes_may_be_chosen(tmp_path):
    path = write_coco(tmp_path / "c.json", [(TILE, [(1, [0, 0, 9, 9]), (2, [1, 1, 9, 9])])])
    found = read_coco_tiles(path, classes=["vessel"])
    assert found.tiles[0]["boxes"].tolist() == [[1, 1, 10, 10]] and found.left_out == {"glomerulus": 1}
    with pytest.raises(ConfigError, match="has no category 'glomerulos'; did you mean 'glomerulus'"):
        read_coco_tiles(path, classes=["glomerulos"])


BAD = {
    "leaves the picture of 80 x 60 px": (1, [70, 10, 20, 20]),
    "lies outside of the picture": (1, [90, 10, 20, 20]),
    "has no area": (1, [10, 10, 0, 5]),
    "no category has the id 3": (3, [1, 1, 5, 5]),
    "not of finite numbers": (1, [1, 1, float("nan"), 5]),
}


@pytest.mark.parametrize("text", BAD)
def test_bad_boxes_are_refused_cut_or_dropped(tmp_path, text):
    path = write_coco(tmp_path / "c.json", [(TILE, [(1, [1, 1, 5, 5]), BAD[text]])])
    with pytest.raises(DataError, match=rf"^1 boxes cannot be used: .*c\.json: annotation 1: .*{text}.*on_bad_box"):
        read_coco_tiles(path)
    clipped, dropped = (read_coco_tiles(path, on_bad_box=choice) for choice in ("clip", "drop"))
    assert clipped.problems == dropped.problems and text in clipped.problems[0]
    assert dropped.tiles[0]["boxes"].tolist() == [[1, 1, 6, 6]]
    assert clipped.tiles[0]["boxes"].tolist()[1:] == ([[70, 10, 80, 30]] if "leaves" in text else [])


def test_rounding_is_no_bad_box(tmp_path):
    found = read_coco_tiles(write_coco(tmp_path / "c.json", [(TILE, [(1, [-0.4, 0, 80.9, 60.5])])]))
    assert found.tiles[0]["boxes"].tolist() == [[0, 0, 80, 60]]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"file_name": "b.png", "id": 0}, "the id 0 stands twice"),
        ({"file_name": "./a.png"}, "the picture 'a.png' stands twice"),
        ({"file_name": "b.png", "source": "web"}, "source 'web'"),
        ({"file_name": "b.tif", "source": "slide"}, "needs x and y"),
        ({"file_name": "b.tif", "source": "slide", "x": 0, "y": 0, "downsample": 2.0}, "needs mpp"),
        ({"file_name": "b.png", "mpp": -1}, "mpp -1 is not a positive number"),
        ({"file_name": "b.png", "width": None}, "not a COCO file of boxes"),
    ],
)
def test_bad_images_are_named(tmp_path, change, text):
    with pytest.raises(DataError, match=text):
        read_coco_tiles(write_coco(tmp_path / "c.json", [(TILE, []), (change, [])]))


def test_tiles_of_one_slide_are_told_apart(tmp_path):
    tiles = [({"file_name": "b.tif", "source": "slide", "x": x, "y": 5}, []) for x in (0, 40)]
    found = read_coco_tiles(write_coco(tmp_path / "c.json", tiles))
    assert [tile["item"] for tile in found.tiles] == ["b.tif#x0_y5", "b.tif#x40_y5"]


def test_what_is_no_coco_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such COCO file; tools/"):
        read_coco_tiles(tmp_path / "none.json")
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        read_coco_tiles(tmp_path / "c.json")
    (tmp_path / "c.json").write_text('{"images": []}')
    with pytest.raises(DataError, match="'annotations' is missing"):
        read_coco_tiles(tmp_path / "c.json")
    path = write_coco(tmp_path / "c.json", [(TILE, [(1, [0, 0, 9, 9], {"image_id": 8})])])
    with pytest.raises(DataError, match="annotation 0: no image has the id 8"):
        read_coco_tiles(path)


def test_documents_are_divided_by_patient_in_the_shares_asked_for(tmp_path):
    tiles = [({"file_name": f"{n}.png", "patient": f"p{n // 4}"}, [(1, [0, 0, 5, 5])] * (n % 2)) for n in range(80)]
    document = json.loads(write_coco(tmp_path / "c.json", tiles).read_text())
    parts = divide_document(document, {"train": 4, "test": 1}, seed=3)
    sizes = {name: (len(part["images"]), len(part["annotations"])) for name, part in parts.items()}
    assert sizes == {"train": (64, 32), "test": (16, 8)}
    patients = [{image["patient"] for image in part["images"]} for part in parts.values()]
    assert not patients[0] & patients[1]
    again = divide_document(document, {"train": 4, "test": 1}, seed=4)
    assert again["test"]["images"] != parts["test"]["images"] and parts["test"]["categories"] == document["categories"]
    with pytest.raises(DataError, match="test=0; give each part a share above 0"):
        divide_document(document, {"train": 4, "test": 0}, seed=3)
