"""Plain images (PNG, JPEG, untiled TIFF) as slides of one level, held in memory."""

import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pathzoo.errors import SlideError
from pathzoo.pixel_depth import channel_bits, depth_problem
from pathzoo.wsi.readers.base import DeclinedError, Level, mpp_from_tiff
from pathzoo.wsi.types import RGB, Region

#: What is taken for an image by its name; content decides whether it is one.
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
#: What Pillow turns into RGB without a choice of ours; 16-bit, float and CMYK pixels have no plain RGB value.
_PLAIN_MODES = ("RGB", "L", "1", "P", "YCbCr")
_ALPHA_MODES = ("RGBA", "LA", "PA", "La", "RGBa")
_TIFF_X_RESOLUTION, _TIFF_Y_RESOLUTION, _TIFF_UNIT = 282, 283, 296
_TIFF_UNITS = {2: "inch", 3: "centimeter"}


class ImageReader:
    """A plain image through Pillow, decoded at the first read; see `Reader` for the contract."""

    name = "image"

    def __init__(self, path: Path) -> None:
        if not _is_image(path):
            raise DeclinedError(f"no image by its name ({', '.join(sorted(IMAGE_SUFFIXES))}) and content")
        self.path = path
        self._lock = threading.Lock()
        self._pixels: RGB | None = None
        #: Why it cannot be decoded: said again at once, where a survey asks for a thousand parts of it.
        self._damage = ""
        with _opened(path) as image:
            width, height = image.size
            self.properties: Mapping[str, str] = {"format": str(image.format), "mode": image.mode}
            self.mpp = _mpp(image)
        self.levels: tuple[Level, ...] = (Level(width, height, 1.0),)
        self.bounds: Region = (0, 0, width, height)

    def read_region(self, level: int, x: int, y: int, width: int, height: int) -> RGB:
        """Pixels of the image, (height, width, 3), white outside of it; see `Reader.read_region`."""
        with self._lock:
            if self._damage:
                raise SlideError(self._damage)
            if self._pixels is None:
                try:
                    self._pixels = read_image(self.path)
                except SlideError as error:
                    self._damage = str(error)
                    raise
            pixels = self._pixels
        out = np.full((height, width, 3), 255, np.uint8)
        rows, columns = pixels.shape[:2]
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + width, columns), min(y + height, rows)
        if x0 < x1 and y0 < y1:
            out[y0 - y : y1 - y, x0 - x : x1 - x] = pixels[y0:y1, x0:x1]
        return out

    def close(self) -> None:
        """Frees the pixels."""
        self._pixels = None


def read_image(path: str | Path) -> RGB:
    """A whole image file as RGB uint8 (H, W, 3): grey and palette images widened, transparent pixels white.

    The same pixels as those that training sees (`pathzoo.datasets.transforms`), here without a host package: Pillow
    decodes, and an EXIF orientation is ignored.

    Raises:
        SlideError: Missing, damaged, truncated or empty file; over 8 bits per channel, float or CMYK pixels; over 178
            million pixels.
    """
    path = Path(path)
    with _opened(path) as image:
        layered = image.mode in _ALPHA_MODES or (image.mode == "P" and "transparency" in image.info)
        deep = depth_problem(image.mode, channel_bits(image))
        if deep:
            raise SlideError(f"{path}: {deep}")
        if not layered and image.mode not in _PLAIN_MODES:
            raise SlideError(f"{path}: pixels of mode {image.mode} have no plain RGB value; save it as 8-bit RGB")
        try:
            if layered:
                rgba = image.convert("RGBA")
                return np.array(Image.alpha_composite(Image.new("RGBA", image.size, "white"), rgba).convert("RGB"))
            return np.array(image.convert("RGB"))
        except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, ValueError, zlib.error, ...
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise SlideError(f"{path}: damaged image: {reason}") from error


def _is_image(path: Path) -> bool:
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return False
    try:
        with _by_pillow(path):
            return True
    except Image.DecompressionBombError:
        return True  # an image indeed: opening it says why it is refused
    except Exception:  # OSError, SyntaxError, ValueError, ...: each plug-in of Pillow has its own
        return False


def _by_pillow(path: Path) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)  # of damaged tags
        return Image.open(path)


def _opened(path: Path) -> Image.Image:
    try:
        return _by_pillow(path)
    except FileNotFoundError:
        raise SlideError(f"{path}: no such file") from None
    except Image.DecompressionBombError as error:
        raise SlideError(f"{path}: too large for a plain image; convert it to a tiled pyramidal TIFF") from error
    except Exception as error:
        reason = "empty file" if path.is_file() and not path.stat().st_size else "damaged, or not an image"
        raise SlideError(f"{path}: {reason}") from error


def _mpp(image: Image.Image) -> tuple[float, float] | None:
    # Only TIFF's tags: the dpi of PNG and JPEG files speaks of printing.
    tags: Any = getattr(image, "tag_v2", {})
    if _TIFF_X_RESOLUTION not in tags or _TIFF_Y_RESOLUTION not in tags:
        return None
    try:
        unit = _TIFF_UNITS.get(tags.get(_TIFF_UNIT, 2), "")
        return mpp_from_tiff(float(tags[_TIFF_X_RESOLUTION]), float(tags[_TIFF_Y_RESOLUTION]), unit)
    except (TypeError, ValueError):  # damaged: text, or several values
        return None
