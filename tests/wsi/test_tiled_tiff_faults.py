"""Damaged slides: one clear line, no wrong pixels, and whatever is sound stays readable."""

import logging
import os
import resource
import struct
import threading

import cv2
import numpy as np
import pytest
import tifffile
from wsi.slide_files import (
    add_jpeg_bytes,
    break_jpeg_data,
    break_tile,
    claim_jpeg_size,
    claim_level_size,
    claim_tile_bytes,
    cut_file,
    cut_tile,
    drop_jpeg_bytes,
    edit_tile,
    empty_tile,
    lose_directory,
    lose_part_of_tile,
    move_tile_beyond_end,
    set_tag,
    tile_place,
    write_slide,
)

from pathzoo.errors import SlideError
from pathzoo.wsi.readers import tiff_layout
from pathzoo.wsi.slide import Slide

_TILE, _BAD = 128, 4  # of 3 x 3 tiles the middle one


def texture(size: int = 384) -> np.ndarray:
    noise = np.random.default_rng(3).integers(0, 256, (size, size, 3)).astype(np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2).astype(int)
    return np.clip((smooth - 128) * 4 + 160, 0, 255).astype(np.uint8)


def check_one_bad_tile(path, sound: np.ndarray, reason: str) -> None:
    """The middle tile is an error that names it and the reason; all around it is as it was, also afterwards."""
    with Slide(path, reader="tiled-tiff") as slide:
        for _ in range(2):
            with pytest.raises(SlideError, match=rf"cannot decode tile 1, 1 of level 0: {reason}") as caught:
                slide.native.decode_tile(0, 1, 1)
            assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
            with pytest.raises(SlideError, match="tile 1, 1"):
                slide.read(100, 100, 50, 50)
            assert np.array_equal(slide.read(0, 0, 384, _TILE), sound[:_TILE])
            assert np.array_equal(slide.read(0, 2 * _TILE, 384, _TILE), sound[2 * _TILE :])
        thumbnail, damaged = slide.survey(384)
        bad = np.zeros((384, 384), bool)
        bad[_TILE : 2 * _TILE, _TILE : 2 * _TILE] = True
        assert damaged[bad].all() and damaged.sum() < 4 * _TILE * _TILE
        assert (thumbnail[damaged] == 255).all() and np.array_equal(thumbnail[~damaged], sound[~damaged])


_FAULTS = {
    "zeroes from the middle on": (break_jpeg_data, "its data"),
    "zeroes in the middle": (lose_part_of_tile, "its data"),
    "cut off": (cut_tile, "its data lack the mark of their end"),
    "bytes missing in the middle": (drop_jpeg_bytes, "its data end before the picture does"),
    "all zeroes": (break_tile, "it does not start as a JPEG"),
    "no length": (empty_tile, "it has no length"),
    "beyond the end": (move_tile_beyond_end, "its [0-9]+ bytes at [0-9]+ lie outside of the file"),
    "2**31 bytes": (claim_tile_bytes, "its [0-9]+ bytes at [0-9]+ lie outside of the file"),
    "another size": (
        lambda path, index: claim_jpeg_size(path, index, 64, 64),
        "it holds 64 x 64 pixels of [13] channels",
    ),
    "a giant": (lambda path, index: claim_jpeg_size(path, index, 65500, 65500), "it holds 65500 x 65500 pixels"),
    "header cut off": (lambda path, index: edit_tile(path, index, lambda data: data[:30]), "its JPEG header"),
}


@pytest.mark.parametrize(
    "storage", ["jpeg-rgb", "jpeg-rgb-shared-tables", "jpeg-rgb-420", "jpeg-ycbcr-420", "jpeg-grey"]
)
@pytest.mark.parametrize("fault", _FAULTS)
def test_a_damaged_jpeg_tile_is_an_error_and_the_rest_intact(tmp_path, storage, fault):
    image = texture()[..., 0] if storage == "jpeg-grey" else texture()
    path = write_slide(tmp_path / "slide.tif", image, storage)
    with Slide(path) as slide:
        sound = slide.read(0, 0, 384, 384)
    change, reason = _FAULTS[fault]
    change(path, _BAD)
    check_one_bad_tile(path, sound, reason)


@pytest.mark.parametrize("storage", ["jpeg-rgb", "jpeg-ycbcr-444", "jpeg-ycbcr-422", "jpeg-grey"])
def test_jpeg_data_after_the_picture_are_noticed(tmp_path, storage):
    """OpenSlide passes over such tiles: what it shows after the wrong place is shifted."""
    image = texture()[..., 0] if storage == "jpeg-grey" else texture()
    path = write_slide(tmp_path / "slide.tif", image, storage)
    with Slide(path) as slide:
        sound = slide.read(0, 0, 384, 384)
    check_one_bad_tile(add_jpeg_bytes(path, _BAD), sound, "its data go on after the picture")


def test_flipped_bits_in_jpeg_data_are_noticed_at_times_and_shift_the_picture_seldom_unnoticed(tmp_path):
    """One byte of the data turned over: a quarter of them at least are noticed, and of those that shift the picture
    most."""
    path = write_slide(tmp_path / "slide.tif", texture(), "jpeg-rgb", tile=128)
    with Slide(path) as slide:
        sound = slide.native.decode_tile(0, 1, 1)
    offset, count = tile_place(path, _BAD)
    data, rng = path.read_bytes(), np.random.default_rng(0)
    noticed, shifted = 0, 0
    for place in rng.integers(700, count - 50, 40):
        at = offset + int(place)
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        with Slide(path) as slide:
            try:
                found = slide.native.decode_tile(0, 1, 1)
                shifted += (np.abs(found.astype(int) - sound) > 32).mean() > 0.1
            except SlideError:
                noticed += 1
    assert noticed >= 10 and shifted <= noticed // 2


def test_restart_marks_do_not_hide_lost_data(tmp_path):
    path = write_slide(tmp_path / "slide.tif", texture(), "jpeg-ycbcr-restarts")
    with Slide(path) as slide:
        sound = slide.read(0, 0, 384, 384)

    def lose(data: bytearray) -> bytes:
        first, second = data.index(b"\xff\xd1"), data.index(b"\xff\xd2")
        return bytes(data[: first + 2] + data[(first + second) // 2 :])

    check_one_bad_tile(edit_tile(path, _BAD, lose), sound, "its data")


@pytest.mark.parametrize("storage", ["lzw", "deflate", "deflate-differences", "none"])
@pytest.mark.parametrize("change", [cut_tile, break_tile, empty_tile])
def test_a_damaged_lossless_tile_is_an_error(tmp_path, storage, change):
    path = write_slide(tmp_path / "slide.tif", texture(), storage)
    change(path, _BAD)
    if storage == "none" and change is break_tile:
        return  # zeroes are black pixels
    check_one_bad_tile(path, texture(), "")


@pytest.mark.parametrize("storage", ["jpeg2k-rgb", "jpeg2k-ycbcr", "jpeg2k-ycbcr-422"])
@pytest.mark.parametrize("change", [cut_tile, break_tile, empty_tile])
def test_a_damaged_jpeg_2000_tile_is_an_error(tmp_path, storage, change):
    path = write_slide(tmp_path / "slide.svs", texture(), storage)
    with Slide(path) as slide:
        sound = slide.read(0, 0, 384, 384)
    change(path, _BAD)
    check_one_bad_tile(path, sound, "")


def test_a_tile_made_from_an_empty_one_is_not_trusted(tmp_path):
    path = empty_tile(write_slide(tmp_path / "a.svs", texture(), "jpeg-rgb", levels=2, aperio=True), 8)
    with Slide(path) as slide:
        assert slide.native.decode_tile(1, 0, 1).shape == (128, 128, 3)
        with pytest.raises(SlideError, match="made from a tile of no length"):
            slide.native.decode_tile(1, 1, 1)


@pytest.mark.parametrize("storage", ["jpeg-rgb", "lzw"])
def test_a_file_without_its_end(tmp_path, storage):
    """tifffile writes the directory first: the tiles after the cut are lost, those before are read."""
    path = write_slide(tmp_path / "slide.tif", texture(), storage)
    with Slide(path) as slide:
        sound = slide.read(0, 0, 384, 384)
    cut_file(path, tile_place(path, 7)[0] + 10)
    with Slide(path) as slide:
        assert np.array_equal(slide.read(0, 0, 384, 256), sound[:256])
        with pytest.raises(SlideError, match=r"slide\.tif: cannot decode tile 1, 2 of level 0: .* outside of the file"):
            slide.read(128, 256, 128, 128)


def test_a_file_without_its_directory(tmp_path):
    path = cut_file(write_slide(tmp_path / "slide.svs", texture(), "jpeg-rgb"), 100)
    with pytest.raises(SlideError, match=r"slide\.svs: .*damaged or cut off") as caught:
        Slide(path)
    assert "\n" not in str(caught.value)


def test_a_lost_level(tmp_path):
    """OpenSlide does not know such a file any more: it is refused, and not taken for a plain image."""
    path = lose_directory(write_slide(tmp_path / "slide.tif", texture(), "deflate", levels=3), 1)
    with pytest.raises(SlideError, match=r"slide\.tif: a TIFF directory after the first 1 is damaged.*; copy it again"):
        Slide(path)


def test_what_is_said_of_one_file_is_not_taken_for_another(tmp_path):
    """tifffile tells of a lost directory by its log, which all threads share."""
    sound = write_slide(tmp_path / "sound.tif", texture(), "deflate")

    def read_and_complain() -> None:
        logging.getLogger("tifffile").error("of another file")

    with tiff_layout._complaints() as found:
        thread = threading.Thread(target=read_and_complain)
        thread.start()
        thread.join()
        assert tiff_layout.read_layout(sound).notes == () and found == []
        logging.getLogger("tifffile").error("of this one")
        assert found == ["of this one"]


def test_a_level_whose_tiles_are_cut_off(tmp_path):
    """The others stay, with their resolution; the loss is told."""
    path = write_slide(tmp_path / "slide.svs", texture(), "jpeg-rgb", levels=2, aperio=True, mpp=0.25)
    with Slide(path) as slide:
        sound, levels = slide.read(0, 0, 384, 384), slide.levels
    for index in range(4):
        move_tile_beyond_end(path, index, directory=1)
    with Slide(path) as slide:
        assert slide.mpp == 0.25 and slide.levels == levels and "OpenSlide cannot open it" in slide.notes[0]
        assert np.array_equal(slide.read(0, 0, 384, 384), sound)
        with pytest.raises(SlideError, match=r"tile 0, 0 of level 1: .* outside of the file"):
            slide.read(0, 0, 50, 50, mpp=0.5)
        assert slide.survey(192)[1].all()


@pytest.mark.parametrize("directory", [0, 1])
@pytest.mark.parametrize("size", [(2**31, 2**31), (2**31, 1), (65536, 32768)])
@pytest.mark.parametrize("reader", [None, "openslide", "tiled-tiff"])
def test_a_size_that_the_file_has_no_tiles_for_is_refused_at_open(tmp_path, directory, size, reader):
    path = claim_level_size(
        write_slide(tmp_path / "slide.tif", texture(), "jpeg-rgb", levels=2), *size, directory=directory
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    expected = rf"slide\.tif: TIFF directory {directory} claims {size[0]} x {size[1]} pixels .* bytes lists . tiles"
    with pytest.raises(SlideError, match=expected):
        Slide(path, reader=reader)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB


@pytest.mark.parametrize("tag", [324, 325])
@pytest.mark.parametrize("count", [3, 260])
def test_lists_of_places_and_lengths_that_do_not_match(tmp_path, tag, count):
    path = write_slide(tmp_path / "slide.svs", texture(), "jpeg-rgb", aperio=True)
    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages[0].tags[tag].offset + 4
    with path.open("r+b") as file:
        file.seek(at)
        file.write(struct.pack("<I", count))
    with pytest.raises(SlideError, match=r"slide\.svs: ") as caught:
        Slide(path)
    assert "\n" not in str(caught.value)


def test_tiles_larger_than_memory_are_refused_at_open(tmp_path):
    path = write_slide(tmp_path / "slide.tif", texture(128), "jpeg-rgb")
    for tag in (256, 257, 322, 323):
        set_tag(path, 0, tag, 48000)
    with pytest.raises(SlideError, match="claims 48000 x 48000 pixels in tiles of 48000 x 48000"):
        Slide(path)


def test_no_slide_at_all(tmp_path):
    (tmp_path / "empty.svs").touch()
    (tmp_path / "folder.svs").mkdir()
    for name, reason in [("empty.svs", "empty file"), ("folder.svs", "a folder"), ("none.svs", "no such file")]:
        with pytest.raises(SlideError, match=rf"{name}: {reason}") as caught:
            Slide(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = write_slide(tmp_path / "slide.tif", texture(128), "jpeg-rgb")
    path.chmod(0)
    with pytest.raises(SlideError, match=r"slide\.tif: no permission"):
        Slide(path)
