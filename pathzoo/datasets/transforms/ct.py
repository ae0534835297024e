"""CT slices: from Hounsfield units to the grey values of a window."""

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from pathzoo.ct.window import window, window_range, within
from pathzoo.errors import ConfigError, DataError
from pathzoo.registry import TRANSFORMS


@TRANSFORMS.register_module()
class HUWindow(BaseTransform):
    """Turns Hounsfield units into what a window shows of them: float32 (H, W, 1), 0 at its lower end, 255 at its upper.

    Values are not rounded, and what lies outside is cut off, as on a radiologist's screen (DICOM PS3.3 C.11.2.1.2 names
    the same two numbers). Sets `hu_window` in the results to (low, high) = (centre - width / 2, centre + width / 2).

    Reads `img`, int16 (H, W) in HU, and `hu_known_range`: (low, high) outside which its source was clipped, None or
    absent where HU are whole. A window beyond that range is refused: it would show cut-off values as if they had
    been measured.

    Args:
        centre: in HU.
        width: in HU, above 0.

    Attributes:
        bounds: (low, high) in HU.

    Raises:
        ConfigError: centre or width is no window.
    """

    def __init__(self, centre: float = 0.0, width: float = 400.0):
        self.bounds = window_range(centre, width)
        self.centre, self.width = float(centre), float(width)

    def fits(self, known_range: tuple[float, float] | None) -> bool:
        """Whether HU are known within the whole window."""
        return within(self.bounds, known_range)

    def refuse_beyond(self, known_range: tuple[float, float] | None, where: str) -> None:
        """Raises ConfigError where the window reaches beyond `known_range`.

        Args:
            known_range: (low, high) in HU, None where HU are whole.
            where: the store or slice, for the message.
        """
        if known_range is None or self.fits(known_range):
            return
        (low, high), (bottom, top) = self.bounds, known_range
        raise ConfigError(
            f"{where}: its HU are known from {bottom:g} to {top:g} alone, and the window of centre {self.centre:g} and "
            f"width {self.width:g} shows {low:g} to {high:g}; the widest that fits has centre {(bottom + top) / 2:g} "
            f"and width {top - bottom:g} (window_centre=, window_width=)"
        )

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Raises ConfigError for a window beyond `hu_known_range`, DataError for what are no HU (H, W)."""
        name = results.get("item") or results.get("img_path", "item")
        image = results["img"]
        if image.ndim != 2 or not np.issubdtype(image.dtype, np.signedinteger):
            raise DataError(
                f"{name}: HUWindow takes signed whole HU (H, W), not {image.dtype} {image.shape}; it stands first in a "
                "pipeline, and once"
            )
        self.refuse_beyond(results.get("hu_known_range"), name)
        results["img"] = window(image, self.centre, self.width)[..., None]
        results["img_shape"] = image.shape
        results["hu_window"] = self.bounds
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(centre={self.centre:g}, width={self.width:g})"
