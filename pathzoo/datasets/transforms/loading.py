"""From a file to RGB uint8."""

import io
import os
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from PIL import Image

from pathzoo.datasets.pixel_modes import ALPHA_MODES, mode_problem
from pathzoo.errors import DataError
from pathzoo.pixel_depth import channel_bits
from pathzoo.registry import TRANSFORMS


def read_rgb(path: str | os.PathLike) -> np.ndarray:
    """Reads a picture as RGB.

    Pillow decodes, since OpenCV returns truncated files as half-grey pictures without an error. Grey pictures become
    three equal channels, transparent ones are laid on white (glass). An EXIF orientation is ignored: masks,
    boxes and coordinates refer to the pixels as stored. Of a file with several pages the first is read.

    Args:
        path: the file.

    Returns:
        RGB uint8 (H, W, 3), contiguous.

    Raises:
        DataError: the file is missing, empty, damaged, no picture, over 178 million pixels, or of a kind that has no
            plain RGB meaning (16 bits per channel, float grey, CMYK, Lab). The message names the file.
    """
    return _decode(path, path)


def decode_rgb(data: bytes, path: str | os.PathLike) -> np.ndarray:
    """As `read_rgb`, of a file's bytes that are at hand; `path` is for messages."""
    return _decode(io.BytesIO(data), path)


def _decode(source: str | os.PathLike | io.BytesIO, path: str | os.PathLike) -> np.ndarray:
    try:
        with Image.open(source) as picture:
            bits = channel_bits(picture)
            picture.load()
            return _to_rgb(picture, bits, path)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check img_path and the dataset's data_root") from None
    except Image.DecompressionBombError:
        raise DataError(f"{path}: too large to be read as one picture; cut it into tiles first") from None
    except Exception as error:  # the decoders raise OSError, SyntaxError, struct.error, ValueError, zlib.error, ...
        if os.path.isfile(path) and os.path.getsize(path) == 0:  # noqa: PTH113, PTH202
            raise DataError(f"{path}: empty file (0 bytes); copy it again or take it off the list") from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        reason = "not a picture in a known format" if isinstance(error, Image.UnidentifiedImageError) else reason
        raise DataError(f"{path}: cannot be decoded ({reason}); copy it again or take it off the list") from None


def _to_rgb(picture: Image.Image, bits: int, path: str | os.PathLike) -> np.ndarray:
    problem = mode_problem(picture, bits)
    if problem:
        raise DataError(f"{path}: {problem}")
    if picture.mode in ALPHA_MODES or (picture.mode == "P" and "transparency" in picture.info):
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, (255, 255, 255, 255)), picture)
    if picture.mode != "RGB":
        picture = picture.convert("RGB")
    return np.array(picture)


@TRANSFORMS.register_module()
class LoadTile(BaseTransform):
    """Loads the picture at `img_path` as RGB by `read_rgb`.

    Sets `img` (RGB uint8 (H, W, 3)), `img_shape` and `ori_shape` (both (height, width)).
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Raises DataError for a file that cannot be used."""
        image = read_rgb(results["img_path"])
        results["img"] = image
        results["img_shape"] = results["ori_shape"] = image.shape[:2]
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
