"""The benchmark of Pix2Pix's training: what it compares is the same, tables are whole; no test says how fast."""

import gc
import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from slice_stores import write_slices

_FOLDER = Path(__file__).parents[2] / "tools" / "benchmarks"
_SMALL = ["--size", "64", "--base-channels", "2", "--batch-size", "2", "--patients", "4", "--slices", "6"]
_SMALL += ["--iterations", "3", "--rounds", "1"]


@pytest.fixture(autouse=True)
def _no_collection(monkeypatch):
    """There is one before each measurement, and it takes half a second over all that a test process holds."""
    monkeypatch.setattr(gc, "collect", lambda *generation: 0)


@pytest.fixture
def load(monkeypatch):
    """Loads a script as it runs: with its own folder on the path."""
    monkeypatch.syspath_prepend(_FOLDER)
    known = set(sys.modules)

    def by_name(name):
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(name, _FOLDER / f"{name}.py")
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield by_name
    for name in {path.stem for path in _FOLDER.glob("*.py")} - known:
        sys.modules.pop(name, None)


@pytest.fixture(autouse=True)
def _without_gpu(monkeypatch):
    """The Runner would train on one."""
    monkeypatch.setattr("mmengine.device.utils.DEVICE", "cpu")


@pytest.mark.filterwarnings("ignore:Unnecessary conv bias")
def test_tables_are_whole_and_both_sides_compute_the_same(load, tmp_path):
    assert load("pix2pix_training").main([*_SMALL, "--markdown", str(tmp_path / "t.md")]) == 0
    text = (tmp_path / "t.md").read_text()
    titles = re.findall(r"^\*\*(.+)\*\*$", text, flags=re.M)
    assert titles == ["Pix2Pix, 64 px, batches of 2", "Pix2Pix, 64 px, batches of 2: ratios"]
    assert text.splitlines()[4].startswith("| bare step (ceiling) |"), "the ceiling first"
    cells = re.findall(r"(\S+) \((\S+)\.\.(\S+)\)", text)
    assert len(cells) == 5 * 3 + 3
    assert all(0 < float(low) <= float(median) <= float(high) for median, low, high in cells)
    assert text.count("| over 0.95 |") == 2
    assert float(re.search(r"first 3 steps differ by (\S+) of", text)[1]) < 1e-5


@pytest.mark.filterwarnings("ignore:Unnecessary conv bias")
def test_sides_that_differ_are_not_compared(load, monkeypatch):
    module = load("pix2pix_training")
    step = module.PlainPix2Pix.step
    monkeypatch.setattr(module.PlainPix2Pix, "step", lambda self, labels, pictures: step(self, labels, -pictures))
    with pytest.raises(SystemExit, match=r"step 1: loss_gan_d_real is .* under the Runner"):
        module.main(_SMALL)


@pytest.mark.filterwarnings("ignore:Unnecessary conv bias")
def test_the_plain_step_is_the_papers(load):
    """Against the losses by hand: logarithms of sigmoids and a mean absolute difference."""
    arms = load("pix2pix_arms")
    torch.manual_seed(0)
    generator, discriminator = torch.nn.Conv2d(3, 1, 3, padding=1), torch.nn.Conv2d(4, 1, 4)
    labels, pictures = torch.rand(2, 3, 8, 8), torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        drawn = generator(labels)
        false, true = (discriminator(torch.cat((labels, p), 1)).sigmoid() for p in (drawn, pictures))
    before = {name: value.clone() for name, value in discriminator.state_dict().items()}
    losses = arms.PlainPix2Pix(generator, discriminator, 100.0, 2e-4, (0.5, 0.999)).step(labels, pictures)
    assert losses["loss_gan_d_fake"] == pytest.approx(float(-(1 - false).log().mean()), rel=1e-5)
    assert losses["loss_gan_d_real"] == pytest.approx(float(-true.log().mean()), rel=1e-5)
    assert losses["loss_pixel"] == pytest.approx(100 * float((drawn - pictures).abs().mean()), rel=1e-5)
    with torch.no_grad():  # the discriminator took its step, Adam's first of lr each way, before the generator's loss
        deceived = discriminator(torch.cat((labels, drawn), 1)).sigmoid()
    assert losses["loss_gan_g"] == pytest.approx(float(-deceived.log().mean()), rel=1e-5)
    moved = (discriminator.weight - before["weight"]).detach().abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 2e-4), rtol=1e-2, atol=0)


def test_mixed_precision_is_nearly_the_same(load):
    arms = load("pix2pix_arms")
    torch.manual_seed(0)
    labels, pictures = torch.rand(2, 3, 8, 8), torch.rand(2, 1, 8, 8)
    found = []
    for amp in (None, torch.bfloat16):
        torch.manual_seed(1)
        networks = torch.nn.Conv2d(3, 1, 3, padding=1), torch.nn.Conv2d(4, 1, 4)
        plain = arms.PlainPix2Pix(*networks, 100.0, 2e-4, (0.5, 0.999), amp)
        found.append([float(value) for _ in range(2) for value in plain.step(labels, pictures).values()])
    np.testing.assert_allclose(found[1], found[0], rtol=0.02)
    assert found[1] != found[0]


def test_the_plain_loader_gives_what_the_window_shows(load, tmp_path):
    arms = load("pix2pix_arms")
    store = write_slices(tmp_path / "store", size=(24, 16))
    hu, label = (np.load(store / "train" / f"{name}.npy") for name in ("images", "labels"))
    slices = arms.PlainSlices(store, [2, 5, 8], centre=40.0, width=300.0)
    for index, place in enumerate((2, 5, 8)):
        found, picture = slices[index]
        np.testing.assert_array_equal(found, label[place])
        np.testing.assert_allclose(picture[0], np.clip((hu[place] - 40) / 150, -1, 1), atol=1e-6)
    batches = list(arms.plain_loader(slices, 2, 4, 0, "cpu"))
    assert len(batches) == 4, "more than there are slices"
    for batch in batches:
        channels, pictures = arms.pairs_of(batch, 3, "cpu")
        assert pictures.shape == (2, 1, 16, 24) and channels.is_contiguous()
        np.testing.assert_array_equal(channels.argmax(1), batch[0])
        assert (channels.sum(1) == 1).all()


def test_what_cannot_be_trained_is_one_line(load, capsys):
    module = load("pix2pix_training")
    for words, told in (
        (["--amp"], "error: --amp: mixed precision needs a GPU and none is visible here; leave --amp out"),
        (["--device", "cuda"], "error: --device cuda: the Runner trains on what it finds, which is cpu; leave it out"),
        (["--size", "96"], "error: --size 96: the generator halves 6 times; give a multiple of 64"),
    ):
        assert module.main(words) == 2
        assert capsys.readouterr().err.strip().splitlines()[-1] == told


def test_the_generator_halves_as_the_paper_has_it(load, tmp_path, monkeypatch):
    module = load("pix2pix_training")
    drawn = type("Store", (), {"folder": tmp_path})
    monkeypatch.setattr(module, "draw_store", lambda *arguments: drawn)
    for words, halvings, base, batch in (
        (["--size", "128"], 6, 16, 4),
        (["--size", "512", "--base-channels", "64", "--batch-size", "8"], 8, 64, 8),
    ):
        args = module._parser().parse_args(words)
        args.device = "cpu"
        config = module.make_config(args, args.size[0], tmp_path)
        assert config.model.generator.num_down == halvings
        assert config.model.generator.base_channels == config.model.discriminator.base_channels == base
        loader = config.train_dataloader
        assert (loader.batch_size, loader.sampler.samples_per_epoch) == (batch, 40 * batch)
