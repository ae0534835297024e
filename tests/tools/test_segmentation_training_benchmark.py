"""The benchmark of segmentation training: what it refuses, what the peer reads, whole tables; no test says how fast."""

import importlib.util
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

_FOLDER = Path(__file__).parents[2] / "tools" / "benchmarks"
_SMALL = ["--encoder", "test_resnet", "--decoder-channels", "8", "8", "8", "4", "4", "--size", "64", "--regions", "2"]
_SMALL += ["--region-size", "288", "256", "--batch-size", "2", "--iterations", "1", "--rounds", "1"]

#: Stands in for segmentation-models-pytorch, which is never a dependency: what the peer's script asks of it.
_STAND_IN = """
import torch
__version__ = "0.6.0 stand-in"
class Unet(torch.nn.Conv2d):
    def __init__(self, encoder, encoder_weights, decoder_channels, classes):
        assert encoder == "tu-test_resnet" and encoder_weights is None and decoder_channels == [8, 8, 8, 4, 4]
        super().__init__(3, classes, 3, padding=1)
class losses:
    class DiceLoss(torch.nn.Module):
        def __init__(self, mode, from_logits, ignore_index):
            super().__init__()
            assert (mode, from_logits, ignore_index) == ("multiclass", True, 255)
        def forward(self, logits, labels):
            return logits.softmax(1).mean()
"""


@pytest.fixture
def load(monkeypatch):
    """Loads a script as it runs: with its own folder on the path."""
    monkeypatch.syspath_prepend(_FOLDER)
    loaded = {"measuring", "arms", "peer_segmentation_models"}

    def by_name(name):
        spec = importlib.util.spec_from_file_location(name, _FOLDER / f"{name}.py")
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        loaded.add(name)
        spec.loader.exec_module(module)
        return module

    yield by_name
    for name in loaded:
        sys.modules.pop(name, None)


@pytest.fixture
def regions(tmp_path):
    """Two regions, 200 x 170 px, in whose pixels each channel tells a place; a third has no mask."""
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    y, x = np.mgrid[:170, :200]
    for number in range(2):
        Image.fromarray(np.stack([x, y, np.full_like(x, number)], axis=-1).astype(np.uint8)).save(
            tmp_path / "images" / f"{number}.png"
        )
        mask = Image.fromarray(((x // 7 + y // 5) % 3).astype(np.uint8), mode="P")
        mask.putpalette([0, 0, 0, 10, 20, 30, 200, 100, 50])
        mask.save(tmp_path / "masks" / f"{number}.png")
    rows = ["image,mask,patient", *(f"images/{n}.png,masks/{n}.png,p{n}" for n in range(2)), "images/2.png,,p2"]
    (tmp_path / "regions.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


@pytest.mark.parametrize("python", ["no/such/python", sys.executable])
def test_without_the_peer_one_line_says_how_to_get_it(load, capsys, python):
    if python == sys.executable and importlib.util.find_spec("segmentation_models_pytorch"):
        pytest.skip("the peer is installed")
    assert load("segmentation_training").main(["--peer-python", python]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"error: --peer-python {python}: ")
    assert "No such file" in line or "No module named 'segmentation_models_pytorch'" in line
    assert "uv venv peers" in line and f"torch=={torch.__version__.partition('+')[0]} " in line


def test_a_folder_without_regions_is_refused(load, tmp_path, capsys):
    assert load("segmentation_training").main(["--data-root", str(tmp_path)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"error: --data-root {tmp_path}: no regions.csv in it; give a folder of regions, or none"
    ]


def test_peers_patches_are_pieces_of_the_regions(load, regions):
    """Without the changes of colour a patch still shows its place, and the mask is that place's."""
    peer = load("peer_segmentation_models")
    peer.cut_patches(regions, 64)
    assert len(list((regions / "patches").glob("*_image.png"))) == 2 * 3 * 2, "whole patches alone"
    seen = set()
    for dataset in (peer.RegionCrops(regions, 64, 40), peer.CutPatches(regions / "patches", 12)):
        moves = dataset.transform.transforms
        keep = [move for move in moves if type(move).__name__ not in ("ColorJitter", "Normalize")]
        dataset.transform = type(dataset.transform)(keep)
        for index in range(len(dataset)):
            pixels, labels = dataset[index]
            x, y, number = pixels.long()
            assert labels.dtype == torch.int64 and labels.shape == (64, 64)
            assert torch.equal(labels, (x // 7 + y // 5) % 3), "indices, not colours"
            assert len(x.unique()) == len(y.unique()) == 64
            seen.add((type(dataset), int(number.unique())))
    assert len(seen) == 4, "both regions, by both ways"


def test_peers_pixels_are_normalised_as_ours(load, regions):
    peer = load("peer_segmentation_models")
    dataset = peer.CutPatches(_cut(peer, regions), 12)
    dataset.transform = type(dataset.transform)(dataset.transform.transforms[-2:])  # normalise, to a tensor
    pixels, _ = dataset[0]
    x = pixels[0] * peer.STD[0] + peer.MEAN[0]
    torch.testing.assert_close(x[0], torch.arange(64.0), atol=1e-3, rtol=0)


def _cut(peer, regions):
    peer.cut_patches(regions, 64)
    return regions / "patches"


def test_aim_is_held_against_both_ways_to_feed_the_peer(load):
    module = load("segmentation_training")
    speeds = {**dict(zip(module._OURS.values(), (10, 8, 6), strict=True))}
    speeds |= dict(zip(module._PEER.values(), (5, 2, 4), strict=True))
    training, ratios = module._training_tables({name: [value, 2.0 * value] for name, value in speeds.items()})
    assert [row[2].split()[0] for row in training.rows] == ["1.00", "0.800", "0.600", "0.500", "0.200", "0.400"]
    found = {row[0]: (row[1].split()[0], row[2]) for row in ratios.rows}
    assert found == {
        "bare step (ceiling) / peer: bare step": ("2.00", ""),
        "ours, plain loop / peer: PNG regions": ("4.00", "1.2"),
        "ours, plain loop / peer: PNG patches cut before": ("2.00", "1.2"),
        "ours, Runner / peer: PNG regions": ("3.00", "1.2"),
        "ours, Runner / peer: PNG patches cut before": ("1.50", "1.2"),
        "ours, Runner / ours, plain loop": ("0.750", ""),
    }
    alone = module._training_tables({name: [speeds[name]] for name in module._OURS.values()})[1]
    assert [row[0] for row in alone.rows] == ["ours, Runner / ours, plain loop"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:no image of class")
def test_tables_are_whole(load, tmp_path, monkeypatch):
    """Eight processes: all arms of ours, and the peer's script over the stand-in."""
    (tmp_path / "segmentation_models_pytorch.py").write_text(_STAND_IN)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    words = [*_SMALL, "--peer-python", sys.executable, "--markdown", str(tmp_path / "t.md")]
    module = load("segmentation_training")
    monkeypatch.setattr(module, "_ENVIRONMENT", dict(os.environ))  # as it is now
    assert module.main(words) == 0
    text = (tmp_path / "t.md").read_text()
    titles = re.findall(r"^\*\*(.+)\*\*$", text, flags=re.M)
    assert titles[0] == "The network alone, by memory layout", "the bare step first"
    assert titles[1:] == ["Training, patches/s", "Training, ratios", "Reading alone, one thread"]
    cells = re.findall(r"(\S+) \((\S+)\.\.(\S+)\)", text)
    assert len(cells) == 2 * 3 + 6 * 2 + 6 + 3 * 2
    assert all(0 < float(low) <= float(median) <= float(high) for median, low, high in cells)
    assert "0.6.0 stand-in" in text and "parameters: ours" in text and "peer 84;" in text
