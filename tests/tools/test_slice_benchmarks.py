"""The benchmarks of the slice store and of its metric: what they compare is the same, tables are whole; no test says
how fast."""

import gc
import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from pathzoo.ct.store import SliceStore

_FOLDER = Path(__file__).parents[2] / "tools" / "benchmarks"


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
        spec = importlib.util.spec_from_file_location(name, _FOLDER / f"{name}.py")
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield by_name
    for name in {path.stem for path in _FOLDER.glob("*.py")} - known:
        sys.modules.pop(name, None)


def _cells(path):
    text = path.read_text()
    cells = re.findall(r"(\S+) \((\S+)\.\.(\S+)\)", text)
    assert all(0 < float(low) <= float(median) <= float(high) for median, low, high in cells)
    return text, cells


def test_store_and_nifti_are_compared(load, tmp_path, capsys):
    words = ["--patients", "4", "--slices", "6", "--size", "64", "--nifti-slices", "2", "--large", "30"]
    assert load("slice_store").main([*words, "--rounds", "1", "--markdown", str(tmp_path / "t.md")]) == 0
    text, cells = _cells(tmp_path / "t.md")
    titles = re.findall(r"^\*\*(.+)\*\*$", text, flags=re.M)
    assert titles == ["24 slices of 64 px in random order, image and label", "Opening a store of slices of 64 px"]
    assert text.splitlines()[4].startswith("| memory (the ceiling) |")
    assert len(cells) == 8 * 2 + 4 * 2
    names = re.findall(r"^\| ([^|]+?) \|", text, flags=re.M)
    for name in ("slice store, SliceSegmentation", ".nii, opened once", ".nii.gz, dataobj", ".nii.gz, get_fdata"):
        assert name in names
    assert "| opened | 24 slices, ms | 30 slices, ms |" in text
    assert "known patients" not in capsys.readouterr().out, "what data sets tell is kept away"


def test_ways_to_read_give_the_same_slice(load, tmp_path):
    module = load("slice_store")
    store = module.draw_store(tmp_path, 64, 4, 6)
    module.write_plain(tmp_path / "cases", tmp_path / "plain")
    readers = module.make_readers(tmp_path, store)
    shown = set()
    for number in range(len(store)):
        pictures = [read(number) for read in readers.values()]
        for picture, label in pictures:
            assert picture.dtype == np.float32 and picture.shape == label.shape == (64, 64)
            np.testing.assert_array_equal(picture, pictures[0][0])
            np.testing.assert_array_equal(label, pictures[0][1])
        shown |= set(np.unique(pictures[0][1]))
    assert {0, 1} <= shown
    readers[".nii, dataobj"] = lambda number: readers[".nii.gz, dataobj"](number + 1)
    with pytest.raises(SystemExit, match=r"\.nii, dataobj: slice 3 has other pixels"):
        module.refuse_other_pixels(readers, [3])


def test_the_sparse_store_is_one(load, tmp_path):
    from pathzoo.datasets.slices import SliceSegmentation

    module = load("slice_store")
    small = module.draw_store(tmp_path, 64, 4, 6)
    store = SliceStore(module.write_sparse(tmp_path / "large", small.folder, 640))
    assert len(store) == 640 and store.split is not None
    assert {name: own["patients"] for name, own in store.counts.items()} == {"train": 7, "val": 2, "test": 1}
    assert not store.image("val", 7).any() and store.size == (64, 64)
    assert len(SliceSegmentation(data_root=str(store.folder), subset="train", only_labelled=True)) == 448 // 4


def test_bad_sizes_are_one_line(load, capsys):
    assert load("slice_store").main(["--size", "20", "--patients", "4"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: 64 slices of 20x20 px: give at least")


def test_metric_and_plain_ways_are_compared(load, tmp_path):
    words = ["--slices", "32", "--size", "48", "--rounds", "2", "--markdown", str(tmp_path / "t.md")]
    assert load("slice_metric").main(words) == 0
    text, cells = _cells(tmp_path / "t.md")
    assert len(cells) == 6 * 2
    sums = [float(re.search(rf"\| {name} \| (\S+)", text)[1]) for name in ("SliceMetric, process", "SliceMetric")]
    assert sums[0] < sums[1]


def test_plain_ways_find_what_is_drawn(load):
    """A slice by hand: kidney of 4 pixels, 2 of them found and 1 too many; a tumour that is missed."""
    module = load("slice_metric")
    truth, prediction = np.zeros((2, 4, 4), np.int64)
    truth[0] = 1
    prediction[0, :2], prediction[1, 0] = 1, 1
    truth[3, 0] = 2
    for count in (module.by_masks, module.by_sklearn):
        np.testing.assert_array_equal(count(truth, prediction), [[10, 2, 0], [11, 4, 1], [13, 3, 0]])


def test_metric_that_differs_is_told(load, monkeypatch):
    module = load("slice_metric")
    monkeypatch.setattr(module, "by_masks", lambda truth, prediction: module.by_sklearn(truth, prediction)[[0, 1, 1]])
    with pytest.raises(SystemExit, match=r"slice_iou: SliceMetric finds 0\.\d+, numpy masks 0\.\d+"):
        module.main(["--slices", "32", "--size", "48", "--rounds", "1"])


def test_samples_show_all_that_is_averaged(load):
    """Tumours found, missed and imagined; slices without any class; patients without a tumour."""
    data = load("slice_metric").samples(64, 32)
    shown = {
        (bool((sample["gt_sem_seg"]["data"] == 2).any()), bool((sample["pred_sem_seg"]["data"] == 2).any()))
        for sample in data
    }
    assert len(shown) == 4
    assert any(not sample["gt_sem_seg"]["data"].any() for sample in data)
