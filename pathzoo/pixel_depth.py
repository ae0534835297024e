"""How many bits a picture file holds per channel, of which Pillow says nothing. Needs Pillow alone."""

from PIL import Image

_TIFF_BITS_PER_SAMPLE = 258
#: A PNG begins with 8 bytes of signature, then IHDR: length, name, width, height (4 bytes each), bit depth (1).
_IHDR_NAME, _IHDR_DEPTH = slice(12, 16), 24


def channel_bits(picture: Image.Image) -> int:
    """Bits per channel of an opened picture as its file has them.

    Pillow opens 16-bit colour as "RGB" and keeps the upper byte of each value: of an instrument's 12 bits in 16 a
    nearly black picture is left. It has to be asked before `picture.load()`, after which a PNG no longer tells.

    Returns:
        What PNG (IHDR) and TIFF (BitsPerSample, the largest) state; 8 for other formats, which hold no more, or (PPM,
        JPEG 2000) state the range that Pillow scales them by.

    Raises:
        ValueError: a PNG that was loaded already.
    """
    if picture.format == "TIFF":
        stated = getattr(picture, "tag_v2", {}).get(_TIFF_BITS_PER_SAMPLE, 1)
        values = stated if isinstance(stated, tuple) else (stated,)
        return max((int(value) for value in values if isinstance(value, int)), default=1)
    if picture.format != "PNG":
        return 8
    file = getattr(picture, "fp", None)
    if file is None:
        raise ValueError("the bits of a PNG have to be asked for before it is loaded")
    place = file.tell()
    file.seek(0)
    head = file.read(_IHDR_DEPTH + 1)
    file.seek(place)
    return int(head[_IHDR_DEPTH]) if head[_IHDR_NAME] == b"IHDR" else 8


def depth_problem(mode: str, bits: int) -> str | None:
    """Why pixels of so many bits cannot be used as 8-bit RGB, and what to do; None up to 8 bits.

    Args:
        mode: Pillow's, for the message.
        bits: of `channel_bits`.
    """
    if bits <= 8:
        return None
    return (
        f"pixels of mode {mode} have no plain RGB value ({bits} bits per channel); save it as 8-bit RGB, scaled by the "
        "instrument's range (full 16 bits: divided by 257)"
    )
