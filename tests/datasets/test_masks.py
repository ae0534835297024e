"""Masks: palette indices are values, lossy and many-channelled files are refused, values mean what is said."""

import os

import numpy as np
import pytest
from PIL import Image
from region_tables import labels, write_mask

from pathzoo.datasets import masks
from pathzoo.datasets.masks import (
    apply_lookup,
    class_counts,
    count_values,
    inspect_mask,
    read_known_mask,
    read_mask,
    scan_masks,
    unknown_value_text,
    unknown_values,
    value_lookup,
)
from pathzoo.datasets.phantom.regions import as_palette
from pathzoo.errors import ConfigError, DataError

VALUES = labels(37, 29, 0)


def test_grey_and_palette_files_hold_the_same_values(tmp_path):
    write_mask(tmp_path / "grey.png", VALUES)
    as_palette(VALUES, ((225, 225, 225), (0, 160, 60), (200, 0, 0))).save(tmp_path / "palette.png")
    as_palette(VALUES, ((9, 9, 9), (9, 9, 9))).save(tmp_path / "palette.tif", compression="tiff_deflate")
    for name in ("grey.png", "palette.png", "palette.tif"):
        assert np.array_equal(read_mask(tmp_path / name), VALUES)
        record = inspect_mask(tmp_path / name)
        assert record.error is None and (record.width, record.height) == (37, 29)
        assert list(record.counts) == np.bincount(VALUES.ravel(), minlength=256).tolist()


def test_one_bit_masks_are_zeros_and_ones(tmp_path):
    Image.fromarray(VALUES == 1).save(tmp_path / "bits.png")
    assert np.array_equal(read_mask(tmp_path / "bits.png"), VALUES == 1)


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        ("a.png", "RGB", "mode RGB are no class indices; save one 8-bit channel"),
        ("a.png", "RGBA", "mode RGBA"),
        ("a.png", "I;16", "mode I;16"),
        ("a.jpg", "L", "JPEG changes values on the way; save the class indices as PNG"),
    ],
)
def test_other_kinds_of_files_are_refused(tmp_path, name, mode, message):
    Image.new(mode, (8, 8)).save(tmp_path / name)
    assert message in inspect_mask(tmp_path / name).error
    with pytest.raises(DataError, match=rf"{name}: .*{message}"):
        read_mask(tmp_path / name)


def test_damage_is_found_and_absence_told_apart(tmp_path):
    write_mask(tmp_path / "a.png", VALUES)
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[:-20])
    assert "truncated" in inspect_mask(tmp_path / "a.png").error
    record = inspect_mask(tmp_path / "b.png")
    assert record.missing and record.error == "no such file"


def test_a_second_scan_reads_only_what_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(masks, "_SETTLED_NS", -(10**18))
    paths = [tmp_path / f"{n}.png" for n in range(4)]
    for number, path in enumerate(paths):
        write_mask(path, labels(20, 20, number))
    first = scan_masks(paths)
    read = []
    real = masks.inspect_mask
    monkeypatch.setattr(masks, "inspect_mask", lambda path: (read.append(path), real(path))[1])
    assert scan_masks(paths) == first and not read
    write_mask(paths[2], labels(20, 20, 9))
    os.utime(paths[2], ns=(1, 1))
    again = scan_masks(paths)
    assert read == [str(paths[2])] and again[2] != first[2] and again[:2] == first[:2]


def test_fresh_and_damaged_masks_are_never_remembered(tmp_path, monkeypatch):
    read = []
    real = masks.inspect_mask
    monkeypatch.setattr(masks, "inspect_mask", lambda path: (read.append(path), real(path))[1])
    write_mask(tmp_path / "a.png", VALUES)
    (tmp_path / "b.png").write_bytes(b"no")
    scan_masks([tmp_path / "a.png", tmp_path / "b.png"])
    monkeypatch.setattr(masks, "_SETTLED_NS", -(10**18))
    scan_masks([tmp_path / "a.png", tmp_path / "b.png"])
    scan_masks([tmp_path / "a.png", tmp_path / "b.png"])
    assert [path[-5:] for path in read] == ["a.png", "b.png", "a.png", "b.png", "b.png"]


def test_values_mean_what_the_lookup_says():
    plain = value_lookup(3)
    assert [int(plain[v]) for v in (0, 1, 2, 3, 254, 255)] == [0, 1, 2, -1, -1, 255]
    mapped = value_lookup(2, {0: 0, 128: 255, 255: 1, "7": 1})
    assert [int(mapped[v]) for v in (0, 1, 7, 128, 255)] == [0, -1, 1, 255, 1]
    values = np.array([[0, 7, 128, 255]], np.uint8)
    assert apply_lookup(values, mapped).tolist() == [[0, 1, 255, 1]]
    counts = count_values(values)
    assert unknown_values(counts, mapped) == [] and unknown_values(counts, plain) == [7, 128]
    assert class_counts(counts, mapped, 2) == (1, 2)
    assert class_counts(count_values(VALUES), plain, 3) == tuple(int((k == VALUES).sum()) for k in range(3))


@pytest.mark.parametrize(
    ("value_map", "message"),
    [
        ({256: 0}, "256 is no mask value"),
        ({"tumour": 0}, "'tumour' is no mask value"),
        ({1: 2}, "1 -> 2: give a class index of 0..1, or 255"),
        ({1: -1}, "1 -> -1"),
        ({1: 1.0}, "1 -> 1.0"),
        ({1: True}, "1 -> True"),
    ],
)
def test_a_map_that_cannot_be(value_map, message):
    with pytest.raises(ConfigError, match=message):
        value_lookup(2, value_map)


def test_an_unknown_value_is_named_with_its_place(tmp_path):
    values = VALUES.copy()
    values[11, 23:25], values[20, 5] = 7, 9
    write_mask(tmp_path / "a.png", values)
    text = unknown_value_text(inspect_mask(tmp_path / "a.png"), value_lookup(3), ("normal", "benign", "malignant"))
    assert text.startswith("value 7 at x=23, y=11 (2 pixels, and the values 9) is no class (0 normal, 1 benign, 2 mal")
    write_mask(tmp_path / "b.png", VALUES)
    assert unknown_value_text(inspect_mask(tmp_path / "b.png"), value_lookup(3), ("a", "b", "c")) is None


def test_a_mask_that_changed_is_told(tmp_path):
    write_mask(tmp_path / "a.png", VALUES)
    sha256 = inspect_mask(tmp_path / "a.png").sha256
    assert np.array_equal(read_known_mask(tmp_path / "a.png", sha256), VALUES)
    write_mask(tmp_path / "a.png", 2 - np.minimum(VALUES, 2))
    with pytest.raises(DataError, match=r"a.png: its bytes changed since the data set was loaded"):
        read_known_mask(tmp_path / "a.png", sha256)
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"a.png: no such file"):
        read_known_mask(tmp_path / "a.png", sha256)


def test_counting_in_blocks_is_counting(monkeypatch):
    monkeypatch.setattr(masks, "_BLOCK", 100)
    values = np.random.default_rng(0).integers(0, 256, (37, 41), np.uint8)
    assert count_values(values).tolist() == np.bincount(values.ravel(), minlength=256).tolist()
