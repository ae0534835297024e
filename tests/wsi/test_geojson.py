import json
import subprocess
import sys
import uuid

import numpy as np
import pytest
import shapely
from shapely.geometry import shape

from pathzoo.errors import DataError
from pathzoo.wsi.colors import class_colors
from pathzoo.wsi.geojson import annotation, class_regions, detection, read_annotations, write_features
from pathzoo.wsi.stitching import heat_map
from pathzoo.wsi.tiling import tile_grid


def assert_qupath_opens(path, width, height):
    """QuPath's rules, as an independent reading of the file."""
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["type"] == "FeatureCollection"
    for feature in document["features"]:
        assert set(feature) == {"type", "id", "geometry", "properties"} and feature["type"] == "Feature"
        uuid.UUID(feature["id"])
        properties = feature["properties"]
        assert properties["objectType"] == "annotation"
        assert len(properties["classification"]["color"]) == 3 and properties["classification"]["name"]
        assert all(isinstance(v, int | float) and np.isfinite(v) for v in properties["measurements"].values())
        assert feature["geometry"]["type"] == "Polygon"
        for ring in feature["geometry"]["coordinates"]:
            assert ring[0] == ring[-1] and len(ring) >= 4
            assert len({tuple(point) for point in ring}) == len(ring) - 1
        figure = shape(feature["geometry"])
        assert figure.is_valid and figure.area > 0
        assert shapely.box(0, 0, width, height).covers(figure)
    return document["features"]


def heat_of(classes_on_cells, n=2, region=(0, 0, 0, 0), tile=10):
    """A heat map where cell (r, c) is surely of the class given; -1 is not predicted."""
    cells = np.array(classes_on_cells)
    region = region if region[2] else (0, 0, cells.shape[1] * tile, cells.shape[0] * tile)
    grid = tile_grid(region, (tile, tile), 1.0)
    probs = np.full((len(grid), n), 0.1 / (n - 1), np.float32)
    probs[np.arange(len(grid)), cells.ravel()] = 0.9
    probs[cells.ravel() < 0] = np.nan
    return heat_map(grid, probs)


def test_regions_holes_and_measurements(tmp_path):
    heat = heat_of([[1, 1, 1, -1], [1, 0, 1, -1], [1, 1, 1, 0]])
    features = class_regions(heat, ("benign", "malignant"), mpp=0.5)
    write_features(tmp_path / "a.geojson", features)
    features = assert_qupath_opens(tmp_path / "a.geojson", 40, 30)
    assert [f["properties"]["classification"]["name"] for f in features] == ["benign", "benign", "malignant"]
    ring = shape(features[2]["geometry"])
    assert ring.equals(shapely.box(0, 0, 30, 30) - shapely.box(10, 10, 20, 20))
    assert len(features[2]["geometry"]["coordinates"]) == 2
    assert [len(r) for r in features[2]["geometry"]["coordinates"]] == [5, 5]  # no corners on straight edges
    measured = features[2]["properties"]["measurements"]
    assert measured["Area µm^2"] == pytest.approx(800 * 0.25) and measured["Tiles"] == 8
    assert measured["Diameter µm"] == pytest.approx(2 * (200 / np.pi) ** 0.5)  # of a circle of 200 µm²
    assert measured["Mean probability malignant"] == pytest.approx(0.9)
    assert (
        tuple(features[2]["properties"]["classification"]["color"])
        == class_colors(("benign", "malignant"))["malignant"]
    )


def test_cells_that_touch_at_a_corner_are_two_regions():
    assert len(class_regions(heat_of([[0, -1], [-1, 0]]), ("a", "b"), mpp=1)) == 2


def test_random_maps_are_partitioned(tmp_path):
    rng = np.random.default_rng(3)
    for trial in range(8):
        cells = rng.integers(-1, 3, (12, 15))
        heat = heat_of(cells, n=3, region=(30, 40, 147, 111))  # edge cells cut by the region
        write_features(tmp_path / f"{trial}.geojson", class_regions(heat, "abc", mpp=1, origin=(30, 40)))
        features = assert_qupath_opens(tmp_path / f"{trial}.geojson", 147, 111)
        for index, name in enumerate("abc"):
            areas = [f for f in features if f["properties"]["classification"]["name"] == name]
            expected = shapely.union_all(
                [
                    shapely.box(c * 10, r * 10, min(c * 10 + 10, 147), min(r * 10 + 10, 111))
                    for r, c in np.argwhere(cells == index)
                ]
            )
            figures = [shape(f["geometry"]) for f in areas]
            assert shapely.union_all(figures).equals(expected)
            assert sum(f.area for f in figures) == pytest.approx(expected.area)
            assert sum(f["properties"]["measurements"]["Tiles"] for f in areas) == (cells == index).sum()


def test_bounds_offset_is_subtracted_and_added_back(tmp_path):
    heat = heat_of([[1]], region=(100, 40, 10, 10))
    write_features(tmp_path / "a.geojson", class_regions(heat, ("a", "b"), mpp=1, origin=(100, 40)))
    assert shape(json.loads((tmp_path / "a.geojson").read_text())["features"][0]["geometry"]).bounds == (0, 0, 10, 10)
    [(geometry, name)] = read_annotations(tmp_path / "a.geojson", origin=(100, 40))
    assert geometry.bounds == (100, 40, 110, 50) and name == "b"


def test_ids_are_stable_and_differ_by_slide():
    heat = heat_of([[1, 0]])
    ids = [[f["id"] for f in class_regions(heat, ("a", "b"), mpp=1, key=key)] for key in ("x", "x", "y")]
    assert ids[0] == ids[1] and not set(ids[0]) & set(ids[2]) and len(set(ids[0])) == 2


def test_empty_file_is_valid(tmp_path):
    write_features(tmp_path / "a.geojson", [])
    assert read_annotations(tmp_path / "a.geojson") == []
    assert_qupath_opens(tmp_path / "a.geojson", 1, 1)


def test_detections_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    corner, size = rng.uniform(0, 900, (300, 2)).round(2), rng.uniform(1, 90, (300, 2)).round(2)
    boxes = np.hstack([corner, corner + size]).tolist()
    names = ["nucleus", "mitosis"]
    features = [
        detection(tuple(box), names[i % 2], (1, 2, 3), {"Score": 0.5, "Area µm^2": 7}, f"slide|{i}")
        for i, box in enumerate(boxes)
    ]
    write_features(tmp_path / "a.geojson", iter(features))
    assert json.loads((tmp_path / "a.geojson").read_text(encoding="utf-8"))["features"] == features
    found = read_annotations(tmp_path / "a.geojson")
    assert [list(figure.bounds) for figure, _ in found] == boxes and all(f.equals(f.envelope) for f, _ in found)
    assert [name for _, name in found] == [names[i % 2] for i in range(300)]
    one = features[0]
    assert shapely.LinearRing(one["geometry"]["coordinates"][0]).is_ccw and uuid.UUID(one["id"])
    assert one["properties"]["objectType"] == "detection" and one["properties"]["classification"]["color"] == [1, 2, 3]


def test_ids_of_detections_follow_from_key_and_box():
    ids = [
        detection((0, 0, 1, b), "a", (0, 0, 0), {}, key)["id"] for key, b in (("x", 1), ("x", 1), ("y", 1), ("x", 2))
    ]
    assert ids[0] == ids[1] and len(set(ids)) == 3


def test_annotations_with_holes_round_trip(tmp_path):
    figures = [shapely.box(i, 0, i + 9.25, 10) - shapely.box(i + 1, 1.5, i + 2, 3) for i in range(0, 50, 10)]
    write_features(tmp_path / "a.geojson", (annotation(f, "a", (1, 2, 3), {}) for f in figures))
    assert all(f.equals(g) for (f, _), g in zip(read_annotations(tmp_path / "a.geojson"), figures, strict=True))


def test_features_are_written_as_they_come(tmp_path):
    """Memory does not grow with their number: the first are in the file before the last are made."""
    path, seen = tmp_path / "a.geojson", []

    def features():
        for i in range(3000):
            yield detection((i, 0, i + 1, 1), "a", (0, 0, 0), {}, "")
            seen.append(path.stat().st_size)

    write_features(path, features())
    assert seen[1000] > 100_000 and len(json.loads(path.read_text())["features"]) == 3000


def test_numbers_that_are_no_json_are_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_features(tmp_path / "a.geojson", [detection((0, 0, 1, 1), "a", (0, 0, 0), {"Score": float("nan")})])


SQUARE = {"type": "Polygon", "coordinates": [[[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]]]}


def feature(geometry=SQUARE, **properties):
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def test_reader_takes_the_forms_that_qupath_writes(tmp_path):
    path = tmp_path / "a.geojson"
    one = feature(classification={"name": "Tumor", "color": [200, 0, 0]})
    for document in (one, [one], {"type": "FeatureCollection", "features": [one]}):
        path.write_text(json.dumps(document))
        [(geometry, name)] = read_annotations(path)
        assert geometry.area == 16 and name == "Tumor"
    multi = {"type": "MultiPolygon", "coordinates": [SQUARE["coordinates"], [[[9, 9], [10, 9], [10, 10], [9, 9]]]]}
    bow = {"type": "Polygon", "coordinates": [[[0, 0], [4, 4], [4, 0], [0, 4], [0, 0]]]}
    others = [
        feature(multi, classification={"names": ["Tumor", "Positive"]}),
        feature(),
        feature({"type": "Point", "coordinates": [1, 2]}),
        feature({"type": "LineString", "coordinates": [[1, 2], [3, 4]]}),
        feature(bow, classification="Stroma"),
    ]
    path.write_text(json.dumps(others))
    found = read_annotations(path)
    assert [name for _, name in found] == ["Tumor: Positive", None, "Stroma"]
    assert [geometry.area for geometry, _ in found] == [16.5, 16, 8]
    assert all(geometry.is_valid for geometry, _ in found)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not GeoJSON"),
        ('{"type": "Topology"}', "neither a FeatureCollection"),
        ("[1, 2]", "neither a FeatureCollection"),
        (
            json.dumps([feature(), feature({"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]})]),
            "feature 1: malformed",
        ),
        (json.dumps([feature({"type": "Polygon", "coordinates": 5})]), "feature 0: malformed"),
        (json.dumps([feature({"type": "Circle"})]), "feature 0: geometry is 'Circle'"),
        (json.dumps([feature(None)]), "feature 0: geometry is None"),
    ],
)
def test_reader_names_file_and_feature(tmp_path, content, message):
    path = tmp_path / "bad.geojson"
    path.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_annotations(path)
    assert "bad.geojson" in str(caught.value)
    with pytest.raises(DataError, match="no such file"):
        read_annotations(tmp_path / "none.geojson")


@pytest.mark.real
def test_passes_the_shared_check(tmp_path, real_data):
    script = real_data.parent / "checks" / "qupath_geojson.py"
    if not script.is_file():
        pytest.skip("no ../checks/qupath_geojson.py beside the real data")
    cells = np.random.default_rng(0).integers(-1, 3, (40, 50))
    path = tmp_path / "a.geojson"
    write_features(path, class_regions(heat_of(cells, n=3), "abc", mpp=0.5))
    command = [sys.executable, str(script), str(path), "--width", "500", "--height", "400", "--type", "annotation"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
