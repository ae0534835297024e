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

BACKGROUND_COLOR = (228, 228, 228)
_BACKGROUNDS = frozenset(("background", "normal", "rest"))


def class_colors(classes: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """RGB 0..255 by class name: the palette in order, then colours that follow from the name."""
    return {name: _PALETTE[i] if i < len(_PALETTE) else _from_name(name) for i, name in enumerate(classes)}


def is_background(name: str) -> bool:
    """Whether a class of a segmenter is what lies between findings: it is no area to outline, and drawn pale."""
    return name.lower() in _BACKGROUNDS


def segment_colors(classes: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """RGB 0..255 of a segmenter's classes: `class_colors` of its findings, a light grey for the background."""
    findings = class_colors([name for name in classes if not is_background(name)])
    return {name: findings.get(name, BACKGROUND_COLOR) for name in classes}


def _from_name(name: str) -> tuple[int, int, int]:
    code = zlib.crc32(name.encode())
    return 40 + code % 176, 40 + (code >> 8) % 176, 40 + (code >> 16) % 176
