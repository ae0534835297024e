"""Colours of classes, the same in QuPath and in pictures."""

import zlib
from collections.abc import Sequence

#: M. Okabe and K. Ito's palette (2002), which the colour-blind can tell apart, ordered for two-class tasks.
_PALETTE = (
    (0, 158, 115),
    (213, 94, 0),
    (0, 114, 178),
    (230, 159, 0),
    (204, 121, 167),
    (86, 180, 233),
    (240, 228, 66),
    (90, 90, 90),
)


def class_colors(classes: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """RGB 0..255 by class name: the palette in order, then colours that follow from the name."""
    return {name: _PALETTE[i] if i < len(_PALETTE) else _from_name(name) for i, name in enumerate(classes)}


def _from_name(name: str) -> tuple[int, int, int]:
    code = zlib.crc32(name.encode())
    return 40 + code % 176, 40 + (code >> 8) % 176, 40 + (code >> 16) % 176
