"""Bad slices, folders that are no stores, full disks: one clear line, and nothing left behind."""

import errno
import shutil

import numpy as np
import pytest
from small_slice_store import H, W, build, fill, pixels, split

from pathzoo.ct import store_writer
from pathzoo.ct.store import SliceStore, is_store
from pathzoo.ct.store_writer import slice_store_writer
from pathzoo.errors import ConfigError, DataError, OutputError, SlideError


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such store of slices"):
        SliceStore(tmp_path / "nowhere")
    with pytest.raises(DataError, match="not a store of slices"):
        SliceStore(tmp_path)
    (tmp_path / "store.json").write_text('{"format": 9}')
    with pytest.raises(DataError, match="expected a store of format 1, found 9"):
        SliceStore(tmp_path)
    with pytest.raises(ConfigError, match="no subset 'vali'; it has train, test"):
        build(tmp_path / "s").records("vali")


def test_bad_slices_are_refused_and_leave_nothing(tmp_path):
    image, label = pixels(1)
    cases = [
        (image.astype(np.int32), label, "image is int32"),
        (image[:-1], label, r"takes int16 \(5, 7\)"),
        (image, label.astype(bool), "label is bool"),
        (image, label + np.uint8(9), "label value 11; the classes are 0 to 2"),
    ]
    for bad_image, bad_label, text in cases:
        with pytest.raises(DataError, match=text), slice_store_writer(tmp_path / "s", size=(W, H), source="dicom") as w:
            w.add("train", image, label, item="ok", patient=None, case="c", slice=0)
            w.add("train", bad_image, bad_label, item="bad", patient=None, case="c", slice=1)
    with pytest.raises(DataError, match="ok: stands already in train"):  # noqa: SIM117
        with slice_store_writer(tmp_path / "s", size=(W, H), source="dicom") as w:
            for subset in ("train", "test"):
                w.add(subset, image, label, item="ok", patient=None, case="c", slice=0)
    with (
        pytest.raises(DataError, match="no slice to store"),
        slice_store_writer(tmp_path / "s", size=(W, H), source="dicom"),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_a_split_of_other_slices_is_refused(tmp_path):
    with pytest.raises(DataError, match="no split"):
        build(tmp_path / "s", split=None)
    image, label = pixels(1)
    with pytest.raises(DataError, match="the split and the slices added differ in 'train'"):  # noqa: SIM117
        with slice_store_writer(tmp_path / "s", size=(W, H), source="kits19", split=split()) as writer:
            fill(writer)
            writer.add("train", image, label, item="one more", patient=None, case="c", slice=0)
    assert not list(tmp_path.iterdir())


def test_a_store_is_replaced_only_when_asked_and_nothing_else_ever(tmp_path):
    old = build(tmp_path / "s")
    with pytest.raises(SlideError, match="exists already"):
        build(tmp_path / "s")
    with (
        pytest.raises(ZeroDivisionError),
        slice_store_writer(tmp_path / "s", size=(W, H), source="kits19", overwrite=True) as writer,
    ):
        fill(writer)
        raise ZeroDivisionError
    SliceStore(tmp_path / "s").verify()
    new = build(tmp_path / "s", phantom=True, overwrite=True)
    assert new.phantom and new.digest != old.digest and [path.name for path in tmp_path.iterdir()] == ["s"]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    with pytest.raises(ConfigError, match="is not a store of slices, so it is not replaced"):
        build(tmp_path / "photos", overwrite=True)
    assert (tmp_path / "photos" / "a.jpg").exists()


def test_real_slices_are_not_replaced_by_drawn_ones_nor_those_by_real(tmp_path):
    image, label = pixels(0)
    about = {"item": "a", "patient": "P", "case": "c", "slice": 0, "source": "b"}
    settings = {"size": (W, H), "source": "synthetic", "synthetic": {}, "overwrite": True}

    def draw():
        with slice_store_writer(tmp_path / "s", **settings) as writer:
            writer.add("train", image, label, **about)

    build(tmp_path / "s")
    with pytest.raises(ConfigError, match="holds real slices, which synthetic ones do not replace: choose another"):
        draw()
    SliceStore(tmp_path / "s").verify()
    shutil.rmtree(tmp_path / "s")
    draw()
    draw()
    with pytest.raises(ConfigError, match="holds synthetic slices, which real ones do not replace"):
        build(tmp_path / "s", overwrite=True)


class FullDisk:
    """A file that takes some bytes and then says that the disk is full."""

    def __init__(self, file, room):
        self.file, self.room, self.name = file, room, file.name

    def write(self, data):
        self.room -= memoryview(data).nbytes
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)

    def close(self):
        self.file.close()


@pytest.mark.parametrize("room", [60, 150])
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, room):
    kind = store_writer.SubsetFiles
    build_files = kind.__init__

    def with_little_room(self, folder):
        build_files(self, folder)
        self._images = FullDisk(self._images, room)

    monkeypatch.setattr(kind, "__init__", with_little_room)
    with pytest.raises(OutputError, match=r"s: cannot be written \(No space left on device\); nothing was left behind"):
        build(tmp_path / "s")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_while_flushing_leaves_nothing(tmp_path, monkeypatch):
    def fails(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathzoo.wsi.outputs.os.fsync", fails)
    with pytest.raises(OutputError, match="No space left on device"):
        build(tmp_path / "s")
    assert not list(tmp_path.iterdir())


def test_an_error_of_reading_is_not_taken_for_one_of_writing(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match="scan"),
        slice_store_writer(tmp_path / "s", size=(W, H), source="kits19"),
    ):
        raise FileNotFoundError("scan")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"source": "mri"}, "source='mri'"),
        ({"source": "synthetic"}, "a record of how they were made"),
        ({"synthetic": {}}, "for no other"),
        ({"size": (0, 5)}, "above 0"),
        ({"known_range": (255, 0)}, "low below high"),
    ],
)
def test_bad_arguments(tmp_path, options, text):
    with pytest.raises(ConfigError, match=text):
        build(tmp_path / "s", **options)


def test_what_a_killed_build_leaves_does_not_open(tmp_path):
    with slice_store_writer(tmp_path / "s", size=(W, H), source="kits19", split=split()) as writer:
        fill(writer)
        (left,) = tmp_path.iterdir()  # what stands there while it is built, and after a kill
        assert left.name != "s" and not is_store(left)
        with pytest.raises(DataError, match="not a store of slices"):
            SliceStore(left)
        with pytest.raises((EOFError, ValueError)):
            np.load(left / "train" / "images.npy")
    SliceStore(tmp_path / "s").verify()
