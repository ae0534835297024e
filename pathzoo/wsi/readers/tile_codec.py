"""The bytes of one tile of a TIFF -> its pixels. How near they are to OpenSlide's says `TiledTiffReader`."""

import struct

import cv2
import imagecodecs
import numpy as np

from pathzoo.wsi.readers.jpeg_tile import DamagedTileError, DataEndEarlyError, DataLeftOverError, decode_jpeg
from pathzoo.wsi.readers.tiff_layout import TiledPage
from pathzoo.wsi.types import RGB

__all__ = ["DamagedTileError", "DataEndEarlyError", "DataLeftOverError", "decode"]

#: Start of a JPEG 2000 codestream, then its SIZ segment (ITU-T T.800, A.5.1).
_J2K_START = b"\xff\x4f\xff\x51"


def decode(page: TiledPage, data: bytearray, strict: bool = True) -> RGB:
    """Pixels of one tile, (tile_height, tile_width, 3) uint8, the part beyond the level's edge included.

    Without `strict`, data after the picture are passed over. `data` may be changed.

    Raises:
        DamagedTileError: `data` are no sound tile; see `decode_jpeg`. In lossless compressions: another length than the
            tile has; in JPEG 2000: another size, or what OpenJPEG refuses.
    """
    width, height = page.grid.tile_width, page.grid.tile_height
    if page.codec == "jpeg":
        pixels = decode_jpeg(data, page.tables, page.color, width, height, strict)
    elif page.codec == "jpeg2k":
        pixels = _decode_jpeg2k(data, page.color, width, height)
    else:
        pixels = _decode_lossless(page, data)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB), np.uint8) if pixels.ndim == 2 else pixels


def _decode_lossless(page: TiledPage, data: bytearray) -> RGB:
    width, height = page.grid.tile_width, page.grid.tile_height
    shape = (height, width) if page.color == "grey" else (height, width, 3)
    size = int(np.prod(shape))
    try:
        if page.codec == "none":
            flat: bytes | bytearray = data
        elif page.codec == "lzw":
            flat = imagecodecs.lzw_decode(data, out=size)
        else:
            flat = imagecodecs.deflate_decode(data, out=size)
    except Exception as error:  # LzwError, DeflateError, ValueError, ...: each codec has its own
        raise DamagedTileError(str(error).strip() or f"not {page.codec}") from error
    if len(flat) < size or (page.codec != "none" and len(flat) != size):
        raise DamagedTileError(f"it holds {len(flat)} bytes of pixels, not {size}")
    pixels = np.frombuffer(flat, np.uint8, size).reshape(shape)
    if page.differences:
        return np.asarray(imagecodecs.delta_decode(pixels, axis=1), np.uint8)
    return pixels if pixels.flags.writeable else pixels.copy()


def _decode_jpeg2k(data: bytearray, color: str, width: int, height: int) -> RGB:
    if data[:4] != _J2K_START or len(data) < 51:
        raise DamagedTileError("it does not start as a JPEG 2000")
    sides = struct.unpack_from(">2I", data, 8)
    (components,) = struct.unpack_from(">H", data, 40)
    if (*sides, components) != (width, height, 3):
        raise DamagedTileError(
            f"it holds {sides[0]} x {sides[1]} pixels of {components} channels, not {width} x {height} of 3"
        )
    try:
        pixels = imagecodecs.jpeg2k_decode(data, numthreads=1)
    except Exception as error:  # Jpeg2kError, NotImplementedError, ValueError
        raise DataEndEarlyError(str(error).strip() or "OpenJPEG cannot decode it") from error
    if pixels.shape != (height, width, 3) or pixels.dtype != np.uint8:
        raise DataEndEarlyError(f"it decodes to {pixels.dtype} of shape {pixels.shape}")
    if color == "ycbcr" and data[46] == 1:  # XRsiz of the second component: subsampled ones come converted
        return np.asarray(cv2.cvtColor(pixels[..., (0, 2, 1)], cv2.COLOR_YCrCb2RGB), np.uint8)
    return np.asarray(pixels, np.uint8)
