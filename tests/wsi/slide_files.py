"""Slide files for tests: in each storage that the native reader takes, and damaged ones, made by editing bytes.

    write_slide     a tiled TIFF or Aperio-like SVS of given pixels
    break_*, claim_* and the like    change one thing in a copy, and return its path

Import as `from wsi.slide_files import write_slide` (tests/ is on the path).
"""

import io
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import tifffile

#: name -> settings of tifffile, and what encodes the tiles where tifffile cannot.
STORAGES: dict[str, dict] = {
    "jpeg-rgb": {"compression": "jpeg", "photometric": "rgb", "subsampling": (1, 1)},
    "jpeg-rgb-420": {"compression": "jpeg", "photometric": "rgb", "subsampling": (2, 2)},
    "jpeg-ycbcr-444": {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (1, 1)},
    "jpeg-ycbcr-422": {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (2, 1)},
    "jpeg-ycbcr-420": {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (2, 2)},
    "jpeg-rgb-shared-tables": {"compression": "jpeg", "photometric": "rgb", "encode": "tables"},
    "jpeg-ycbcr-restarts": {"compression": "jpeg", "photometric": "ycbcr", "encode": "restarts"},
    "jpeg-grey": {"compression": "jpeg", "photometric": "minisblack"},
    "lzw": {"compression": "lzw", "photometric": "rgb"},
    "lzw-differences": {"compression": "lzw", "predictor": 2, "photometric": "rgb"},
    "deflate": {"compression": "deflate", "photometric": "rgb"},
    "deflate-differences": {"compression": "deflate", "predictor": 2, "photometric": "rgb"},
    "deflate-grey": {"compression": "deflate", "photometric": "minisblack"},
    "none": {"compression": None, "photometric": "rgb"},
    "jpeg2k-rgb": {"compression": "jpeg2000", "photometric": "rgb"},
    "jpeg2k-rgb-lossy": {
        "compression": "jpeg2000",
        "photometric": "rgb",
        "compressionargs": {"level": 32, "reversible": False},
    },
    "jpeg2k-ycbcr": {"compression": "jpeg2000", "photometric": "rgb"},
    "jpeg2k-ycbcr-422": {"compression": "jpeg2000", "photometric": "rgb", "encode": "422"},
}
#: TIFF's Compression of Aperio's JPEG 2000; tifffile writes 34712.
_APERIO = {"jpeg2k-rgb": 33005, "jpeg2k-rgb-lossy": 33005, "jpeg2k-ycbcr": 33003, "jpeg2k-ycbcr-422": 33003}
_COMPRESSION, _WIDTH, _HEIGHT, _OFFSETS, _COUNTS = 259, 256, 257, 324, 325
_APERIO_TEXT = "Aperio Image Library v11.2.1\n{w}x{h} [0,0 {w}x{h}] ({t}x{t}) |AppMag = 20|MPP = {mpp}"


def write_slide(
    path: Path,
    image: np.ndarray,
    storage: str = "jpeg-rgb",
    *,
    tile: int = 128,
    levels: int = 1,
    mpp: float = 0.5,
    quality: int = 90,
    aperio: bool = False,
    bigtiff: bool = False,
) -> Path:
    """Writes (H, W, 3) or grey (H, W) pixels; level k is every 2**k-th pixel.

    JPEG 2000 slides are Aperio's always; where they are of YCbCr, the channels of `image` are taken for Y, Cb and Cr.
    """
    aperio = aperio or storage in _APERIO
    settings = dict(STORAGES[storage])
    encode, tables = _ENCODERS.get(settings.pop("encode", "")), b""
    if settings["compression"] == "jpeg" and encode is None:
        settings["compressionargs"] = {"level": quality}
    resolution = {} if aperio else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as writer:
        for level in range(levels):
            pixels = np.ascontiguousarray(image[:: 2**level, :: 2**level])
            height, width = pixels.shape[:2]
            data: object = pixels
            if encode is not None:
                encoded = [encode(part) for part in _tiles(pixels, tile)]
                data, tables = iter([one[0] for one in encoded]), encoded[0][1]
            writer.write(
                data,
                shape=pixels.shape,
                dtype=pixels.dtype,
                tile=(tile, tile),
                subfiletype=int(level > 0 and not aperio),
                description=_APERIO_TEXT.format(w=width, h=height, t=tile, mpp=mpp) if aperio else None,
                metadata=None,
                software=False,
                jpegtables=tables or None,
                **settings,
                **resolution,
            )
    if storage in _APERIO:
        for level in range(levels):
            set_tag(path, level, _COMPRESSION, _APERIO[storage])
    return path


def _tiles(pixels: np.ndarray, tile: int) -> Iterator[np.ndarray]:
    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((0, -height % tile), (0, -width % tile), (0, 0)), mode="edge")
    for y in range(0, height, tile):
        for x in range(0, width, tile):
            yield np.ascontiguousarray(padded[y : y + tile, x : x + tile])


def _with_shared_tables(tile: np.ndarray) -> tuple[bytes, bytes]:
    """A JPEG without its tables, and the tables as a JPEG without a picture; samples are RGB."""
    data = imagecodecs.jpeg8_encode(tile, level=90, colorspace="RGB", outcolorspace="RGB")
    position, rest, tables = 2, b"\xff\xd8", b"\xff\xd8"
    while data[position + 1] != 0xDA:
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if data[position + 1] in (0xDB, 0xC4):
            tables += data[position:end]
        else:
            rest += data[position:end]
        position = end
    return rest + data[position:], tables + b"\xff\xd9"


def _with_restarts(tile: np.ndarray) -> tuple[bytes, bytes]:
    """A JPEG (YCbCr, 4:2:0) with a restart mark after every row of blocks."""
    options = [int(cv2.IMWRITE_JPEG_RST_INTERVAL), tile.shape[1] // 16, int(cv2.IMWRITE_JPEG_QUALITY), 90]
    return cv2.imencode(".jpg", tile[..., ::-1], options)[1].tobytes(), b""


def _jpeg2k_422(tile: np.ndarray) -> tuple[bytes, bytes]:
    """JPEG 2000 with chroma at half the width, as Aperio's 33003 is; the channels of `tile` are Y, Cb and Cr.

    Three pictures of one channel and one resolution are one packet each, which a codestream of three channels holds one
    after another (ITU-T T.800, annex B.12).
    """
    planes = [tile[..., 0], tile[:, ::2, 1], tile[:, ::2, 2]]
    streams = [
        imagecodecs.jpeg2k_encode(np.ascontiguousarray(p), level=0, codecformat="j2k", resolutions=1, mct=False)
        for p in planes
    ]
    first = streams[0]
    start, data = first.index(b"\xff\x90"), b"".join(s[s.index(b"\xff\x93") + 2 : -2] for s in streams)
    size = b"\xff\x51" + struct.pack(">H", 47) + first[6:40] + struct.pack(">H", 3)
    size += bytes([7, 1, 1, 7, 2, 1, 7, 2, 1])
    settings = first[45:start]  # after SIZ of one channel: COD, QCD, comment
    part = struct.pack(">HHHIBB", 0xFF90, 10, 0, 14 + len(data), 0, 1) + b"\xff\x93" + data
    return first[:2] + size + settings + part + b"\xff\xd9", b""


_ENCODERS = {"tables": _with_shared_tables, "restarts": _with_restarts, "422": _jpeg2k_422}


def set_tag(path: Path, directory: int, tag: int, value: int) -> None:
    """Overwrites the value of a tag of one directory, in place; of a fraction, the numerator."""
    with tifffile.TiffFile(path) as tiff:
        entry, order = tiff.pages[directory].tags[tag], tiff.byteorder
    with path.open("r+b") as file:
        file.seek(entry.valueoffset)
        file.write(struct.pack(order + {3: "H", 4: "I", 5: "I", 16: "Q"}[int(entry.dtype)], value))


def tile_place(path: Path, index: int, directory: int = 0) -> tuple[int, int]:
    """Where a tile's bytes start in the file, and how many there are."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[directory]
        return int(page.dataoffsets[index]), int(page.databytecounts[index])


def edit_tile(path: Path, index: int, change: Callable[[bytearray], bytes], directory: int = 0) -> Path:
    """Rewrites a tile's bytes; those that `change` returns go to the end of the file where they are more."""
    offset, count = tile_place(path, index, directory)
    with path.open("r+b") as file:
        file.seek(offset)
        new = bytes(change(bytearray(file.read(count))))
        if len(new) <= count:
            file.seek(offset)
        else:
            offset = file.seek(0, io.SEEK_END)
        file.write(new)
    _set_place(path, index, offset, len(new), directory)
    return path


def break_jpeg_data(path: Path, index: int, directory: int = 0) -> Path:
    """Zeroes from the middle of a JPEG tile to its end: decoders, OpenSlide's too, go on and show garbage."""
    return edit_tile(path, index, lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2), directory)


def lose_part_of_tile(path: Path, index: int, directory: int = 0) -> Path:
    """Zeroes a third in the middle of a tile, as a lost block of a disk does; its end stays."""

    def change(data: bytearray) -> bytes:
        third = len(data) // 3
        return bytes(data[:third] + bytes(third) + data[2 * third :])

    return edit_tile(path, index, change, directory)


def break_tile(path: Path, index: int, directory: int = 0) -> Path:
    """Zeroes all of a tile: its codec does not recognise it."""
    return edit_tile(path, index, lambda data: bytes(len(data)), directory)


def cut_tile(path: Path, index: int, directory: int = 0) -> Path:
    """Leaves the first half of a tile's bytes."""
    return edit_tile(path, index, lambda data: data[: len(data) // 2], directory)


def drop_jpeg_bytes(path: Path, index: int, directory: int = 0) -> Path:
    """Takes the second third out of a JPEG tile, the marker at its end stays: its data end early."""
    return edit_tile(path, index, lambda data: data[: len(data) // 3] + data[2 * len(data) // 3 :], directory)


def add_jpeg_bytes(path: Path, index: int, directory: int = 0) -> Path:
    """Puts a third of a JPEG tile a second time into its middle: data are left over at its end."""

    def change(data: bytearray) -> bytes:
        third = len(data) // 3
        return bytes(data[: 2 * third] + data[third:])

    return edit_tile(path, index, change, directory)


def empty_tile(path: Path, index: int, directory: int = 0) -> Path:
    """A tile of no length at its old place."""
    offset, _ = tile_place(path, index, directory)
    _set_place(path, index, offset, 0, directory)
    return path


def never_written_tile(path: Path, index: int, directory: int = 0) -> Path:
    """A tile with offset and length 0: how sparse TIFFs leave out what is blank."""
    _set_place(path, index, 0, 0, directory)
    return path


def move_tile_beyond_end(path: Path, index: int, directory: int = 0) -> Path:
    """A tile that starts after the end of the file."""
    _, count = tile_place(path, index, directory)
    _set_place(path, index, path.stat().st_size + 1000, count, directory)
    return path


def claim_tile_bytes(path: Path, index: int, count: int = 2**31, directory: int = 0) -> Path:
    """A tile said to have absurdly many bytes."""
    offset, _ = tile_place(path, index, directory)
    _set_place(path, index, offset, count, directory)
    return path


def claim_jpeg_size(path: Path, index: int, width: int, height: int, directory: int = 0) -> Path:
    """Another size in the JPEG header of a tile."""

    def change(data: bytearray) -> bytes:
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", height, width)
        return bytes(data)

    return edit_tile(path, index, change, directory)


def claim_level_size(path: Path, width: int, height: int, directory: int = 0) -> Path:
    """Another size of a level in its directory; the tiles stay as they are."""
    set_tag(path, directory, _WIDTH, width)
    set_tag(path, directory, _HEIGHT, height)
    return path


def cut_file(path: Path, size: int) -> Path:
    """Leaves the first `size` bytes."""
    with path.open("r+b") as file:
        file.truncate(size)
    return path


def lose_directory(path: Path, directory: int) -> Path:
    """Makes the directory before point outside of the file: this level and those after it are lost."""
    with tifffile.TiffFile(path) as tiff:
        before, format_ = tiff.pages[directory - 1], tiff.tiff
        count = len(before.tags)
        at = before.offset + format_.tagnosize + count * format_.tagsize
        code = tiff.byteorder + ("Q" if format_.offsetsize == 8 else "I")
        beyond = tiff.filehandle.size + 10000
    with path.open("r+b") as file:
        file.seek(at)
        file.write(struct.pack(code, beyond))
    return path


def _set_place(path: Path, index: int, offset: int, count: int, directory: int) -> None:
    for tag, value in ((_OFFSETS, offset), (_COUNTS, count)):
        with tifffile.TiffFile(path) as tiff:
            entry, order = tiff.pages[directory].tags[tag], tiff.byteorder
        code = {3: "H", 4: "I", 16: "Q"}[int(entry.dtype)]
        size = struct.calcsize(code)
        with path.open("r+b") as file:
            file.seek(entry.valueoffset + index * size)
            file.write(struct.pack(order + code, min(value, 2 ** (8 * size) - 1)))
