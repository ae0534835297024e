"""Which pictures have a plain RGB meaning; asked by the inventory before training and by the loader. Needs no torch."""

from PIL import Image

#: What Pillow turns into RGB without a choice of ours: grey and black-and-white repeat, palettes look up.
PLAIN_MODES = ("RGB", "L", "1", "P", "YCbCr")
#: What is laid on white; palettes with a transparent colour are too.
ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa")


def mode_problem(picture: Image.Image) -> str | None:
    """Why a decoded picture cannot be used as RGB (16-bit or float grey, CMYK, Lab); None where it can."""
    if picture.mode in PLAIN_MODES or picture.mode in ALPHA_MODES:
        return None
    return f"pixels of mode {picture.mode} have no plain RGB value; save it as 8-bit RGB"
