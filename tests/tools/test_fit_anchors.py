"""Anchors fitted to boxes whose clusters are known, the measures against loops, and bad files."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from pathzoo.errors import ConfigError

_TOOL = Path(__file__).parents[2] / "tools" / "analysis_tools" / "fit_anchors.py"
_spec = importlib.util.spec_from_file_location("fit_anchors", _TOOL)
tool = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tool)

CENTRES = np.array([[10, 20], [40, 12], [60, 70], [150, 90], [100, 300], [400, 350]], float)


def clusters(each=60):
    random = np.random.RandomState(0)
    return np.concatenate([centre * np.exp(random.uniform(-0.1, 0.1, (each, 2))) for centre in CENTRES])


def coco(path, boxes, size=(800, 400), **extra):
    images = [{"id": 1, "width": size[0], "height": size[1]}]
    notes = [{"id": k, "image_id": 1, "category_id": 1, "bbox": box, **extra} for k, box in enumerate(boxes)]
    path.write_text(json.dumps({"images": images, "annotations": notes, "categories": [{"id": 1, "name": "g"}]}))
    return path


def test_known_clusters_are_found():
    found = tool.fit_anchors(clusters(), 6)
    expected = CENTRES[np.argsort(CENTRES.prod(axis=1))]
    np.testing.assert_allclose(found, expected, rtol=0.05)
    np.testing.assert_array_equal(found, tool.fit_anchors(clusters(), 6))


def test_more_anchors_than_clusters_fit_no_worse():
    sides = clusters()
    means = [tool.fitness(sides, tool.fit_anchors(sides, k))[1] for k in (2, 4, 6, 9)]
    assert means == sorted(means) and means[2] > 0.9


def test_the_measures_are_those_of_the_definition():
    random = np.random.RandomState(1)
    sides, anchors = np.exp(random.uniform(1, 6, (50, 2))), np.exp(random.uniform(1, 6, (4, 2)))
    best = []
    for w, h in sides:
        worst = [max(w / a, a / w, h / b, b / h) for a, b in anchors]
        best.append(1 / min(worst))
    recall, mean = tool.fitness(sides, anchors)
    assert (recall, mean) == pytest.approx((np.mean(np.array(best) > 0.25), np.mean(best)))
    assert 0 < recall < 1


def test_boxes_are_scaled_as_their_pictures_are(tmp_path):
    path = coco(tmp_path / "a.json", [[5, 5, 100, 50]])
    np.testing.assert_allclose(tool.read_sides(path), [[100, 50]])
    np.testing.assert_allclose(tool.read_sides(path, 1600), [[200, 100]])


def test_the_command_prints_a_config(tmp_path, capsys):
    sides = clusters(20)
    path = coco(tmp_path / "a.json", [[0, 0, float(w), float(h)] for w, h in sides])
    content = json.loads(path.read_text())
    content["annotations"] += [
        {"id": 999, "image_id": 1, "bbox": [0, 0, 1, 999], key: 1} for key in ("ignore", "iscrowd")
    ]
    path.write_text(json.dumps(content))
    assert tool.main([str(path), "--per-level", "2", "--restarts", "3"]) == 0
    out = capsys.readouterr().out
    assert f"{len(sides)} boxes" in out and "fitted: best possible recall 1.0000 at ratio 4" in out
    read = eval("[" + out.partition("anchors=[")[2].rstrip().rstrip(","))  # the config is Python
    found = np.array(read, float).reshape(-1, 2)
    np.testing.assert_allclose(found, CENTRES[np.argsort(CENTRES.prod(axis=1))], rtol=0.1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no COCO file of boxes"),
        ('{"images": [], "annotations": [{"id": 1, "image_id": 3, "bbox": [0, 0, 1, 1]}]}', "no COCO file of boxes"),
        ('{"images": [{"id": 1, "width": 9, "height": 9}], "annotations": []}', "holds no boxes"),
        (
            '{"images": [{"id": 1, "width": 9, "height": 9}], "annotations": [{"id": 4, "image_id": 1, '
            '"bbox": [0, 0, 0, 3]}]}',
            "annotation 4: bbox [0, 0, 0, 3] has no size",
        ),
    ],
)
def test_a_file_without_boxes_is_refused(tmp_path, capsys, content, message):
    (tmp_path / "bad.json").write_text(content)
    assert tool.main([str(tmp_path / "bad.json")]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and "bad.json" in line and message in line


def test_a_missing_file_and_too_few_boxes_are_refused(tmp_path, capsys):
    assert tool.main([str(tmp_path / "none.json")]) == 2
    assert "none.json: cannot be read" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="9 anchors for 1 boxes"):
        tool.fit_anchors(np.array([[3.0, 4.0]] * 20), 9)
