"""The benchmarks run and print whole tables; how fast anything is, no test says."""

import importlib.util
import json
import math
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

_FOLDER = Path(__file__).parents[2] / "tools" / "benchmarks"


@pytest.fixture(scope="module")
def load():
    """Loads a script as it runs: with its own folder on the path."""
    before, known = list(sys.path), set(sys.modules)
    sys.path.insert(0, str(_FOLDER))

    def by_name(name):
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(name, _FOLDER / f"{name}.py")
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield by_name
    sys.path[:] = before
    for name in [path.stem for path in _FOLDER.glob("*.py")]:
        if name not in known:
            sys.modules.pop(name, None)


def tables(path):
    """title -> (columns, rows) of a Markdown file that a benchmark wrote."""
    found = {}
    for block in re.split(r"^\*\*", path.read_text(), flags=re.M)[1:]:
        title, rest = block.split("**", 1)
        lines = [line for line in rest.splitlines() if line.startswith("|")]
        cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
        found[title] = cells[0], cells[2:]
    return found


def assert_sound(cell):
    """`median (low..high)`, finite, positive, in order."""
    median, low, high = map(float, re.fullmatch(r"(\S+) \((\S+)\.\.(\S+)\)", cell).groups())
    assert all(math.isfinite(value) and value > 0 for value in (median, low, high))
    assert low <= median <= high


def test_turns_rotate_and_rounds_stay_together(load):
    order = []

    def arm(name):
        order.append(name)
        return float(len(order))

    values = load("measuring").in_turns({name: lambda name=name: arm(name) for name in "abc"}, rounds=3, warmup=1)
    assert sorted(order[:3]) == ["a", "b", "c"]
    assert "".join(order[3:]) == "abcbcacab"
    assert values == {"a": [4.0, 9.0, 11.0], "b": [5.0, 7.0, 12.0], "c": [6.0, 8.0, 10.0]}


def test_ratio_is_taken_round_by_round(load):
    measuring = load("measuring")
    # The machine slows down threefold between rounds: medians apart would hide that one side is twice the other.
    assert measuring.ratio([20, 60, 180], [10, 30, 90]) == (2, 2, 2)
    assert measuring.ratio([1, 4, 9], [1, 2, 3]) == (2, 1, 3)
    assert measuring.spread([3, 1, 2]).show() == "2.00 (1.00..3.00)"
    assert measuring.spread([123.4, 1234.0, 0.01234]).show() == "123 (0.0123..1234)"


def test_channels_last(load, tmp_path, capsys):
    words = ["--models", "resnet10t", "--batch-size", "2", "--size", "64", "--steps", "1", "--rounds", "2"]
    assert load("channels_last").main([*words, "--markdown", str(tmp_path / "t.md")]) == 0
    [(columns, rows)] = tables(tmp_path / "t.md").values()
    assert len(columns) == 4
    assert [row[0] for row in rows] == ["resnet10t"]
    for cell in rows[0][1:]:
        assert_sound(cell)
    assert rows[0][3] in capsys.readouterr().out


def test_help_alone(load, tmp_path):
    assert load("startup").main(["--help-only", "--rounds", "1", "--markdown", str(tmp_path / "t.md")]) == 0
    [(_, rows)] = tables(tmp_path / "t.md").values()
    assert [row[0][0] for row in rows] == ["A", "B"]
    for row in rows:
        assert_sound(row[1])
        assert_sound(row[3])


@pytest.mark.slow
def test_startup(load, tmp_path):
    words = ["--rounds", "1", "--patients", "10", "--batch-size", "2", "--size", "64"]
    assert load("startup").main([*words, "--markdown", str(tmp_path / "t.md")]) == 0
    commands, parts = tables(tmp_path / "t.md").values()
    assert [row[0][0] for row in commands[1]] == ["A", "B", "C", "D", "E"]
    for row in [*commands[1], *parts[1]]:
        assert_sound(row[1])
    names = [row[0] for row in parts[1]]
    assert names[-2:] == ["first iteration", "sum"]
    seconds = [float(row[1].split()[0]) for row in parts[1]]
    assert seconds[-1] == pytest.approx(sum(seconds[:-1]), rel=0.02)


def test_a_command_that_fails_ends_the_benchmark(load):
    with pytest.raises(SystemExit, match=r"(?s)ended with 3.*no such thing"):
        load("startup")._run(
            [sys.executable, "-c", "print('no such thing'); raise SystemExit(3)"], "done", dict(os.environ)
        )


def test_merging(load, tmp_path):
    words = ["--boxes", "300", "--rounds", "1", "--markdown", str(tmp_path / "t.md")]
    assert load("merging").main(words) == 0
    [(columns, [row])] = tables(tmp_path / "t.md").values()
    of = dict(zip(columns, row, strict=True))
    assert int(of["boxes"].replace(",", "")) >= 300
    assert columns[3] == "found" and row[3] == of["objects"], "as many objects as were drawn"
    for name in ("merge_boxes, s", "batched_nms, s", "definition, s", "def./ours"):
        assert_sound(of[name])


def write_slide(path):
    """Two levels of tissue in glass, 1000 x 800 px of 0.5 microns."""
    pixels = np.full((800, 1000, 3), 243, np.uint8)
    pixels[200:700, 250:800] = (190, 100, 170)
    pixels[200:700, 250:800] += np.random.default_rng(0).integers(0, 40, (500, 550, 3)).astype(np.uint8)
    resolution = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", compression="jpeg", **resolution)
    return path


def test_slide_reading(load, tmp_path, capsys):
    words = ["--slide", str(write_slide(tmp_path / "s.tif")), "--rounds", "1", "--markdown", str(tmp_path / "t.md")]
    assert load("slide_reading").main(words) == 0
    found = tables(tmp_path / "t.md")
    assert len(found) == 3, "three tasks"
    for _, rows in found.values():
        by_name = {row[0]: row for row in rows}
        assert {"pathzoo", "pathzoo, own process", "openslide"} <= set(by_name)
        for row in rows:
            assert_sound(row[1])
        assert float(by_name["openslide"][-1].split(",")[0]) < 0.1, "the same pixels"
    assert load("slide_reading").main(["--slide", str(tmp_path / "none.tif")]) == 2
    assert "none.tif: no such file" in capsys.readouterr().err


def test_arms_of_slide_prediction_do_the_same_tiles(load, tmp_path, capsys):
    slide, module = write_slide(tmp_path / "s.tif"), load("slide_prediction")
    for factor in (1.0, 2.0):
        wanted = module._lay(slide, factor, 112)
        (tmp_path / "tiles.json").write_text(json.dumps(wanted))
        words = ["--slide", str(slide), "--tiles", str(tmp_path / "tiles.json"), "--tile", "112", "--batch-size", "4"]
        for arm in ("bare", "pathzoo", "loop"):  # an arm that does another number of tiles fails
            assert module.main([*words, "--arm", arm, "--workers", "1"]) == 0
            found = json.loads(capsys.readouterr().out.splitlines()[-1])
            assert found["tiles"] == len(wanted["corners"]) > 5
            assert found["seconds"] >= found["alone"] > 0 and found["peak_mib"] > 50


@pytest.mark.slow
def test_train_throughput(load, tmp_path, capsys):
    words = ["--batch-size", "2", "--iterations", "2", "--rounds", "2", "--pipeline-images", "3"]
    assert load("train_throughput").main([*words, "--markdown", str(tmp_path / "t.md")]) == 0
    training, ratios, pipelines = tables(tmp_path / "t.md").values()
    assert training[1][0][0] == "bare step (ceiling)"
    assert [row[0] for row in training[1][1:]] == ["plain loop, torchvision", "plain loop, our pipeline", "Runner"]
    assert len(ratios[1]) == 2
    assert pipelines[1][0][0] == "ours"
    assert len(pipelines[1]) == 5
    for row in [*training[1], *pipelines[1]]:
        assert_sound(row[1])
        assert_sound(row[2])
    for row in ratios[1]:
        assert_sound(row[1])
    assert "in turns" in capsys.readouterr().out


def test_too_few_images_are_refused(load, tmp_path, capsys):
    from pathzoo.datasets.phantom import write_breakhis

    write_breakhis(tmp_path, patients=8, images_per_patient=1)
    assert load("train_throughput").main(["--data-root", str(tmp_path), "--batch-size", "4", "--iterations", "3"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and "8 images" in error and "--iterations 2" in error


@pytest.mark.parametrize("backend", ["tensor", "pillow"])
def test_peer_gives_the_same_picture_as_ours(load, tmp_path, backend):
    """Without the random parts, the peer's image is the file's, at the size that our pipeline resizes to."""
    peer = load("peer_pipeline")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    infos = [{"img_path": str(tmp_path / "a.png"), "gt_label": 1, "mpp": 0.5}]
    mean, std = [100.0, 110.0, 120.0], [50.0, 60.0, 70.0]
    images = peer.TorchvisionImages(infos, lambda size, mpp: size, (40, 60), mean, std, backend)
    keep = type(images.transform)(images.transform.transforms[-3:])  # to image, to float, normalised
    images.transform = keep
    image, label = images[0]
    assert label == 1
    assert np.allclose(image.permute(1, 2, 0).numpy(), (pixels - np.array(mean)) / np.array(std), atol=1e-4)


def test_peer_draws_all_eight_symmetries(load, tmp_path):
    peer = load("peer_pipeline")
    pixels = np.arange(0, 36, dtype=np.uint8).reshape(6, 6)[..., None].repeat(3, 2)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    infos = [{"img_path": str(tmp_path / "a.png"), "gt_label": 0, "mpp": None}]
    images = peer.TorchvisionImages(infos, lambda size, mpp: size, (6, 6), [0] * 3, [255] * 3, hue=False)
    moves = type(images.transform)([t for t in images.transform.transforms if "Jitter" not in repr(t)])
    images.transform = moves
    turned = [np.rot90(pixels[..., 0], k) for k in range(4)]
    wanted = {picture.tobytes() for one in turned for picture in (one, one.T)}
    seen = {(images[0][0][0] * 255).round().byte().numpy().tobytes() for _ in range(200)}
    assert len(wanted) == 8
    assert seen == wanted


def test_peer_resizes_as_the_config_does(load):
    from pathzoo.datasets.transforms import ResizeShortSide, ResizeToMpp

    peer = load("peer_pipeline")
    for step, mpp in (
        ({"type": ResizeToMpp, "mpp": 0.5}, 0.2),
        ({"type": ResizeToMpp, "mpp": 0.5}, 0.505),
        ({"type": ResizeShortSide, "size": 31}, None),
    ):
        settings = {key: value for key, value in step.items() if key != "type"}
        results = {"img": np.zeros((46, 70, 3), np.uint8), "mpp": mpp, "img_shape": (46, 70)}
        assert peer.resize_of([step])((46, 70), mpp) == step["type"](**settings)(results)["img"].shape[:2]
    assert peer.resize_of([{"type": "LoadTile"}])((46, 70), None) == (46, 70)
