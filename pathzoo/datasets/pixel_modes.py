"""Which pictures have a plain RGB meaning; asked by the inventory before training and by the loader. Needs no torch."""

from PIL import Image

from pathzoo.pixel_depth import depth_problem

#: What Pillow turns into RGB without a choice of ours: grey and black-and-white repeat, palettes look up.
PLAIN_MODES = ("RGB", "L", "1", "P", "YCbCr")
#: What is laid on white; palettes with a transparent colour are too.
ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa")


def mode_problem(picture: Image.Image, bits: int) -> str | None:
    """Why a decoded picture cannot be used as RGB (over 8 bits or float, CMYK, Lab), and what to do; None where it can.

    Args:
        picture: decoded.
        bits: per channel, as `pathzoo.pixel_depth.channel_bits` found them before it was decoded.
    """
    deep = depth_problem(picture.mode, bits)
    if deep or picture.mode in PLAIN_MODES or picture.mode in ALPHA_MODES:
        return deep
    return f"pixels of mode {picture.mode} have no plain RGB value; save it as 8-bit RGB"
