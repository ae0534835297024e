"""One JPEG tile of a TIFF, decoded, with the damage found that decoders pass over.

libjpeg only warns where data end early (the rest becomes grey) or where some are left over, and imagecodecs keeps such
warnings to itself. Both are found here by decoding one line more than the tile has, of one more row of blocks: of sound
data nothing is left for it, so that its first block takes the padding bits of the last byte and all others stay at 128,
libjpeg's value for "no data". A first block of 128 means that the data ended before; others than 128 mean that data
were left over. The additional line costs 1 to 2 % of the time.

It would change the tile's last row of pixels where chroma is interpolated from row to row (4:2:0), and means nothing
where data restart at marks or come in several scans. There the last block of the tile, and that before each mark, is
looked at: 128 in all channels says that the data may have ended before. Data left over are looked for only where a run
of zeroes says that part of the file may be lost; otherwise they are not noticed, as libjpeg and OpenSlide never do.

Source: ITU-T T.81 for the segments; what a decoder does with missing data was found by trying (libjpeg-turbo 3.1).
"""

import io
import struct
from dataclasses import dataclass
from functools import lru_cache

import imagecodecs
import numpy as np
from PIL import Image

from pathzoo.wsi.types import RGB, Int64

_SOI, _EOI, _SOS, _DRI = 0xD8, 0xD9, 0xDA, 0xDD
_BASELINE, _EXTENDED = 0xC0, 0xC1
#: Start of a frame: C0 to CF but for the tables DHT, JPG and DAC.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_NO_DATA = 128
_LARGEST_COMMON_HEADER = 2048
#: A run that hardly any picture has in its codes, but lost parts of a file do.
_ZEROES = bytes(16)


class DamagedTileError(ValueError):
    """The tile's data are no sound picture of its size."""


class DataEndEarlyError(DamagedTileError):
    """Data may end before the picture does: certain enough to ask another decoder.

    Args:
        reason: What is wrong.
        pixels: What they hold if they are sound after all, or None.
    """

    def __init__(self, reason: str, pixels: RGB | None = None) -> None:
        super().__init__(reason)
        self.pixels = pixels


class DataLeftOverError(DamagedTileError):
    """The picture is full before its data end."""


@dataclass(frozen=True)
class JpegHeader:
    """What stands before the first scan."""

    width: int
    height: int
    components: int
    #: Pixels of a block of all components (MCU).
    block_width: int
    block_height: int
    #: One scan of Huffman codes with all components in it, 8 bits.
    sequential: bool
    #: Blocks between two restart marks; 0 without.
    restart: int
    #: Where the picture's height stands in the data.
    height_at: int


def decode_jpeg(data: bytearray, tables: bytes | None, color: str, width: int, height: int, strict: bool = True) -> RGB:
    """Decodes one tile.

    Args:
        data: Its bytes in the file; the height in it is changed meanwhile.
        tables: JPEGTables of the TIFF directory.
        color: What the file's samples are: "rgb", "ycbcr" or "grey", whatever the JPEG says of itself.
        width: Columns that the tile must have.
        height: Rows that it must have.
        strict: Whether data after the picture are an error.

    Returns:
        (height, width, 3) uint8, or (height, width) of grey ones.

    Raises:
        DamagedTileError: Not a JPEG, of another size, or its data do not fill the picture or overfill it.
    """
    header = _header(data)
    components = 1 if color == "grey" else 3
    if (header.width, header.height, header.components) != (width, height, components):
        raise DamagedTileError(
            f"it holds {header.width} x {header.height} pixels of {header.components} channels, "
            f"not {width} x {height} of {components}"
        )
    if strict and data.rfind(b"\xff\xd9") < 0:
        raise DataLeftOverError("its data lack the mark of their end")
    # Chroma is interpolated between rows where a block holds two rows of luma for one.
    spare = 1 if strict and header.sequential and not header.restart and header.block_height == 8 else 0
    shape = (height + spare, width) if components == 1 else (height + spare, width, 3)
    out = np.empty(shape, np.uint8)
    if spare:
        struct.pack_into(">H", data, header.height_at, height + spare)
    source = {"rgb": "RGB", "ycbcr": "YCBCR", "grey": "GRAYSCALE"}[color]
    target = "GRAYSCALE" if components == 1 else "RGB"
    try:
        imagecodecs.jpeg8_decode(data, tables=tables, colorspace=source, outcolorspace=target, out=out)
    except (imagecodecs.Jpeg8Error, ValueError) as error:
        raise DamagedTileError(str(error).strip() or "not a JPEG") from error
    if spare:
        early, out = _spare_row_is_grey(out[height:], header.block_width), out[:height]
        early = early and (components == 3 or _ends_grey(out, header))  # of grey tiles nobody can be asked: be sure
    else:
        early = _ends_grey(out, header)
        if strict and not early and _ZEROES in data and _is_overfull(data, tables, header):
            raise DataLeftOverError("its data go on after the picture")
    if early:
        raise DataEndEarlyError("its data end before the picture does", out)
    return out


def _spare_row_is_grey(spare: RGB, block: int) -> bool:
    """Whether the data ended before the additional row of blocks; raises where some were left over for it."""
    # As bytes: that is quicker than numpy. Two pixels more, since chroma is interpolated sideways over one (4:2:2).
    channels = spare.shape[2] if spare.ndim == 3 else 1
    first, second = (block + 2) * channels, block * channels
    line = spare.tobytes()
    if line.count(_NO_DATA, first) != len(line) - first:
        raise DataLeftOverError("its data go on after the picture")
    return line.count(_NO_DATA, 0, second) == second


def _is_overfull(data: bytearray, tables: bytes | None, header: JpegHeader) -> bool:
    """Whether data are left over, by a second decoding with an additional row, of an eighth of the size: half the work
    of the first."""
    more = bytearray(data)
    struct.pack_into(">H", more, header.height_at, header.height + header.block_height)
    whole = more if tables is None else tables[:-2] + more[2:]
    with Image.open(io.BytesIO(whole)) as picture:
        picture.draft("L", (1, 1))
        try:
            spare = np.asarray(picture)[-header.block_height // 8 :, header.block_width // 8 + 1 :]
        except OSError:
            return False
    return bool((spare != _NO_DATA).any())


def _ends_grey(picture: RGB, header: JpegHeader) -> bool:
    """Whether a last block is 128 in all channels: of the picture, or of what comes before a restart mark.

    The middle of a block is looked at, which chroma of its neighbours does not reach.
    """
    if not header.restart:
        line = picture[-header.block_height // 2, -header.block_width // 2].tobytes()
        return line.count(_NO_DATA) == len(line)
    across, down = -(-header.width // header.block_width), -(-header.height // header.block_height)
    last = np.append(np.arange(header.restart - 1, across * down, header.restart, dtype=np.int64), across * down - 1)
    rows: Int64 = last // across * header.block_height + header.block_height // 2
    columns: Int64 = last % across * header.block_width + header.block_width // 2
    pixels = picture[np.minimum(rows, header.height - 1), np.minimum(columns, header.width - 1)]
    return bool((pixels.reshape(len(last), -1) == _NO_DATA).all(axis=1).any())


def _header(data: bytearray) -> JpegHeader:
    """The header; read once where tiles have the same, as those of one level do."""
    end = data.find(b"\xff\xda") + 16  # more than the length and count of SOS
    if 16 <= end <= _LARGEST_COMMON_HEADER:
        try:
            return _common_header(bytes(data[:end]))
        except DamagedTileError:
            pass  # what was found may lie inside a segment
    return _read_header(data)


@lru_cache(64)
def _common_header(data: bytes) -> JpegHeader:
    return _read_header(data)


def _read_header(data: bytes | bytearray) -> JpegHeader:
    """Walks over the segments up to the first scan."""
    if data[:2] != b"\xff\xd8":
        raise DamagedTileError("it does not start as a JPEG")
    position, restart = 2, 0
    frame: tuple[int, int, int, int, int, int] | None = None
    try:
        while True:
            if data[position] != 0xFF:
                raise DamagedTileError("its JPEG header is damaged")
            kind = data[position + 1]
            if kind == 0xFF:  # a fill byte
                position += 1
                continue
            (length,) = struct.unpack_from(">H", data, position + 2)
            if kind in _FRAMES:
                frame = (kind, position, *_frame(data, position))
            elif kind == _DRI:
                (restart,) = struct.unpack_from(">H", data, position + 4)
            elif kind == _SOS:
                scanned = data[position + 4]
                break
            elif kind in (_SOI, _EOI) or length < 2:
                raise DamagedTileError("its JPEG header is damaged")
            position += 2 + length
    except (IndexError, struct.error):
        raise DamagedTileError("its JPEG header is cut off") from None
    if frame is None:
        raise DamagedTileError("its JPEG header lacks the picture's size")
    kind, at, height, width, block_height, block_width = frame
    components = data[at + 9]
    sequential = kind in (_BASELINE, _EXTENDED) and scanned == components and data[at + 4] == 8
    return JpegHeader(width, height, components, block_width, block_height, sequential, restart, at + 5)


def _frame(data: bytes | bytearray, position: int) -> tuple[int, int, int, int]:
    """Height, width, and the height and width of a block, of a frame header."""
    height, width = struct.unpack_from(">HH", data, position + 5)
    components = data[position + 9]
    if components == 1:
        return height, width, 8, 8
    factors = [data[position + 11 + 3 * n] for n in range(components)]
    across = max((f >> 4 for f in factors), default=1)
    down = max((f & 15 for f in factors), default=1)
    return height, width, 8 * max(down, 1), 8 * max(across, 1)
