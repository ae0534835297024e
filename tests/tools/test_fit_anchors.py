"""Anchors fitted to boxes whose clusters are known, the measures against loops, and bad files."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from box_files import tiny_detection, write_squares

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


CONFIG = "glomerulus_yolov5/yolov5n_1xb8_40e_glomeruli_small.py"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Five patients with boxes of 40 x 36 px; the second patient's, 4 tiles each, are wider the later the tile."""
    root = write_squares(tmp_path_factory.mktemp("lab") / "tiles")
    content = json.loads((root / "tiles.json").read_text())
    for note in content["annotations"]:
        note["bbox"][2] = 20 + 2 * note["image_id"]  # every box is told by its width
    content["annotations"][0]["ignore"] = 1
    (root / "tiles.json").write_text(json.dumps(content))
    return root


def test_a_configs_training_tiles_alone_are_fitted_at_the_size_that_they_are_trained_at(lab, tmp_path, capsys):
    options = tiny_detection(lab, side=192) | {"train_dataloader.dataset.background_rate": 0.0}
    found = tool.read_training_sides(CONFIG, options)
    from pathzoo.apis.config import load_config
    from pathzoo.registry import DATASETS

    content = json.loads((lab / "tiles.json").read_text())
    patients = DATASETS.build(load_config(CONFIG, options).train_dataloader.dataset).split.subsets["train"].items
    of = {image["id"]: image["file_name"] for image in content["images"]}
    expected = [
        [2 * note["bbox"][2], 2 * note["bbox"][3]]  # tiles of 96 px, trained at 192
        for note in content["annotations"]
        if not note.get("ignore") and of[note["image_id"]] in patients
    ]
    assert 0 < len(expected) < len(content["annotations"])
    np.testing.assert_allclose(sorted(found.tolist()), sorted(expected))
    load_config(CONFIG).dump(str(tmp_path / "copy.py"))  # as a run leaves it
    np.testing.assert_array_equal(tool.read_training_sides(str(tmp_path / "copy.py"), options), found)
    words = [f"{key}={value}".replace(" ", "") for key, value in options.items()]
    assert tool.main(["--config", CONFIG, "--levels", "1", "--cfg-options", *words]) == 0
    out = capsys.readouterr().out
    assert f"training tiles of {CONFIG}: {len(expected)} boxes" in out and "anchors=[" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "a COCO file or --config"),
        (["tiles.json", "--config", CONFIG], "a COCO file or --config"),
        (["--config", CONFIG, "--size", "640"], "--size: the config says"),
        (["tiles.json", "--cfg-options", "a=1"], "--cfg-options: goes with --config"),
        (["--config", "none.py"], "none.py"),
        (["--config", "breakhis_xception/full_resnet10t_1xb16_20e_tiles_small.py"], "no tiles with boxes"),
        (["tiles.json", "--size", "-5"], "--size -5: "),
        (["tiles.json", "--size", "0"], "--size 0: "),
        (["tiles.json", "--size", "nan"], "--size nan: "),
        (["tiles.json", "--restarts", "0"], "--restarts 0: "),
        (["tiles.json", "--levels", "-1", "--per-level", "-3"], "--levels -1: "),
        (["tiles.json", "--per-level", "0"], "--per-level 0: "),
        (["tiles.json", "--seed", "-1"], "--seed -1: "),
    ],
)
def test_numbers_and_words_that_make_no_sense_are_refused(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    coco(Path("tiles.json"), [[0, 0, float(w), float(h)] for w, h in clusters(20)])
    assert tool.main(words) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and message in line


@pytest.mark.parametrize(
    "box",
    ['["a", 0, 1, 1]', "null", "[0, 0, null, 1]", "[0, 0, Infinity, 1]", "[0, 0, NaN, 1]", "[0, 0, 1e999, 1]", "5"],
)
def test_a_box_that_is_no_four_numbers_is_refused(tmp_path, capsys, box):
    path = tmp_path / "bad.json"
    text = '{"images": [{"id": 1, "width": 9, "height": 9}], "annotations": [{"id": 4, "image_id": 1, "bbox": BOX}]}'
    path.write_text(text.replace("BOX", box))
    assert tool.main([str(path)]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"error: {path}: annotation 4: bbox ")


@pytest.mark.parametrize("size", ["0", "-3", "null", "Infinity", '"9"'])
def test_a_picture_without_size_is_refused(tmp_path, capsys, size):
    path = tmp_path / "bad.json"
    note = '{"id": 4, "image_id": 7, "bbox": [0, 0, 3, 3]}'
    text = f'{{"images": [{{"id": 7, "width": {size}, "height": 0}}], "annotations": [{note}]}}'
    path.write_text(text)
    assert tool.main([str(path), "--size", "640"]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"error: {path}: image 7: ")


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
