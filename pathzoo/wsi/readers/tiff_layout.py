"""Where a tiled TIFF keeps its tiles: every directory read once, checked against the file, nothing decoded."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from pathzoo.errors import SlideError
from pathzoo.wsi.readers.base import DeclinedError, NativeGrid
from pathzoo.wsi.types import Int64

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
#: TIFF's Compression -> how we call it. 33003 and 33005 are Aperio's JPEG 2000, of YCbCr and of RGB.
_CODECS = {1: "none", 5: "lzw", 7: "jpeg", 8: "deflate", 32946: "deflate", 33003: "jpeg2k", 33005: "jpeg2k"}
_GREY, _RGB, _YCBCR = 1, 2, 6
_PHOTOMETRICS = {_GREY: "grey", _RGB: "rgb", _YCBCR: "ycbcr"}
_APERIO_YCBCR = 33003
#: Larger tiles are refused: no scanner writes them, and a decoder would ask for gigabytes.
_LARGEST_TILE = 1 << 28
#: Larger tiles are left to OpenSlide.
_LARGEST_NATIVE_TILE = 1 << 26


@dataclass(frozen=True, eq=False)
class TiledPage:
    """One tiled directory of a TIFF: where it can be read here, 8-bit pixels, interleaved."""

    #: Position in the file's chain of directories.
    number: int
    width: int
    height: int
    grid: NativeGrid
    #: (tiles,) int64, row by row: where each tile starts in the file, and its bytes.
    offsets: Int64
    counts: Int64
    #: "jpeg", "jpeg2k", "lzw", "deflate" or "none".
    codec: str
    #: What the samples are before conversion: "rgb", "ycbcr" or "grey".
    color: str
    #: Whether rows are stored as differences between neighbours (TIFF's predictor 2).
    differences: bool
    #: Quantisation and Huffman tables that the JPEG tiles share, or None.
    tables: bytes | None
    #: Whether it calls itself a smaller version of another one (NewSubfileType).
    reduced: bool
    #: Bits per sample, the most of any.
    bits: int
    #: Why the tiles cannot be read here; None where they can.
    unsupported: str | None

    def lies_outside(self, size: int) -> bool:
        """Whether tiles end after the last of `size` bytes."""
        return bool((self.offsets + self.counts > size).any())


@dataclass(frozen=True)
class TiffLayout:
    """The tiled directories of a file, and what is wrong with the others."""

    pages: tuple[TiledPage, ...]
    #: Bytes in the file.
    size: int
    #: ImageDescription of the first directory, and its resolution as `mpp_from_tiff` takes it.
    description: str
    resolution: tuple[float, float, str]
    #: One line per directory that cannot be read.
    notes: tuple[str, ...] = ()


def read_layout(path: Path) -> TiffLayout:
    """Reads the directories of a TIFF or BigTIFF.

    Raises:
        DeclinedError: No TIFF, no tiles in its first directory, or directories that are cut off or damaged.
        SlideError: They claim more pixels than the file has tiles for: no reader should be tried.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4) not in _MAGIC:
            raise DeclinedError("not a TIFF")
    with _complaints() as complaints:
        try:
            with tifffile.TiffFile(path) as tiff:
                found = [_page(path, size, number, page) for number, page in enumerate(tiff.pages)]
                about = _about(tiff.pages[0]) if found else ("", (0.0, 0.0, ""))
        except SlideError:
            raise
        except Exception as error:  # struct.error, IndexError, TiffFileError, ...: whatever bytes are there
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DeclinedError(f"its TIFF directories are damaged or cut off ({reason})", damaged=True) from error
    if not found:
        raise DeclinedError("its TIFF directories are damaged or cut off (none can be read)", damaged=True)
    if found[0] is None:
        raise DeclinedError("a TIFF whose first image is not tiled")
    notes = [f"a TIFF directory after the first {len(found)} is damaged: levels in it are missing"][: len(complaints)]
    return TiffLayout(tuple(page for page in found if page is not None), size, *about, tuple(notes))


def _about(page: Any) -> tuple[str, tuple[float, float, str]]:
    values = []
    for name in ("XResolution", "YResolution"):
        tag = page.tags.get(name)
        top, bottom = tag.value if tag is not None else (0, 1)
        values.append(top / bottom if bottom else 0.0)
    unit = {2: "inch", 3: "centimeter"}.get(int(getattr(page.tags.get("ResolutionUnit"), "value", 2)), "")
    return str(page.description), (values[0], values[1], unit)


def _page(path: Path, size: int, number: int, page: Any) -> TiledPage | None:
    """The page as tiles; None where it is not tiled (thumbnail, label, macro image)."""
    if not page.is_tiled:
        return None
    width, height, tile_width, tile_height = (
        int(value) for value in (page.imagewidth, page.imagelength, page.tilewidth, page.tilelength)
    )
    if min(width, height, tile_width, tile_height) <= 0:
        raise SlideError(
            f"{path}: TIFF directory {number} claims {width} x {height} pixels in tiles of {tile_width} x "
            f"{tile_height}; damaged: copy it again"
        )
    columns, rows = -(-width // tile_width), -(-height // tile_height)
    planes = int(page.samplesperpixel) if int(page.planarconfig) == 2 else 1
    listed = min(len(page.dataoffsets), len(page.databytecounts))
    if listed < columns * rows * planes or tile_width * tile_height > _LARGEST_TILE:
        raise SlideError(
            f"{path}: TIFF directory {number} claims {width} x {height} pixels in tiles of {tile_width} x "
            f"{tile_height}, but the file of {size} bytes lists {listed} tiles; damaged: copy it again"
        )
    tables = page.jpegtables
    return TiledPage(
        number=number,
        width=width,
        height=height,
        grid=NativeGrid(tile_width, tile_height, columns, rows),
        offsets=_int64(page.dataoffsets[: columns * rows * planes]),  # a damaged file may list more of one of them
        counts=_int64(page.databytecounts[: columns * rows * planes]),
        codec=_CODECS.get(int(page.compression), ""),
        color="ycbcr" if int(page.compression) == _APERIO_YCBCR else _PHOTOMETRICS.get(int(page.photometric), ""),
        differences=int(page.predictor) == 2,
        tables=None if tables is None else bytes(tables),
        reduced=bool(int(page.subfiletype) & 1),
        bits=int(np.max(page.bitspersample)),
        unsupported=_unsupported(page, tile_width * tile_height),
    )


def _int64(values: Any) -> Int64:
    """As an array; what does not fit into 63 bits lies beyond the end of any file."""
    return np.minimum(np.asarray(values, np.uint64), np.uint64(2**62)).astype(np.int64)


def _unsupported(page: Any, tile_pixels: int) -> str | None:
    compression, photometric, samples = int(page.compression), int(page.photometric), int(page.samplesperpixel)
    orientation = page.tags.get("Orientation")
    if compression not in _CODECS:
        return f"compression {compression} is not one of {', '.join(str(code) for code in _CODECS)}"
    if page.bitspersample != 8 or int(page.sampleformat) != 1:
        return f"{page.bitspersample} bits a sample; only unsigned 8 are read"
    if int(page.planarconfig) != 1 and samples > 1:
        return "colour planes are stored apart"
    if samples != (1 if photometric == _GREY else 3) or photometric not in _PHOTOMETRICS:
        return f"{samples} samples of photometric interpretation {photometric}; only RGB, YCbCr and grey are read"
    codec = _CODECS[compression]
    if photometric == _YCBCR and codec not in ("jpeg", "jpeg2k"):
        return f"YCbCr in compression {compression}"
    if photometric == _GREY and codec == "jpeg2k":
        return "grey JPEG 2000"
    if int(page.predictor) not in (1, 2) or (int(page.predictor) == 2 and codec not in ("lzw", "deflate")):
        return f"predictor {int(page.predictor)} with compression {compression}"
    if int(page.fillorder) != 1 or int(page.imagedepth) != 1:
        return "bits in reverse order, or a volume"
    if orientation is not None and int(orientation.value) != 1:
        return f"orientation {orientation.value}: turned or mirrored"
    if tile_pixels > _LARGEST_NATIVE_TILE:
        return f"tiles of {tile_pixels} pixels"
    return None


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """What tifffile would log of damaged directories meanwhile, gathered instead of printed; of this thread alone."""
    found: list[str] = []
    mine = threading.get_ident()

    def keep(record: logging.LogRecord) -> bool:
        if record.thread != mine:  # about another file
            return True
        if record.levelno >= logging.ERROR:
            found.append(record.getMessage())
        return False

    logger = logging.getLogger("tifffile")
    logger.addFilter(keep)
    try:
        yield found
    finally:
        logger.removeFilter(keep)
