"""Names for the arrays that wsi/ passes around, so that a signature says which one is meant."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

#: (H, W, 3) uint8, red first.
RGB: TypeAlias = npt.NDArray[np.uint8]
#: (N, H, W, 3) uint8, red first.
RGBBatch: TypeAlias = npt.NDArray[np.uint8]
#: (H, W) bool.
Mask: TypeAlias = npt.NDArray[np.bool_]
#: Any shape, float32.
Float32: TypeAlias = npt.NDArray[np.float32]
#: Any shape, int64.
Int64: TypeAlias = npt.NDArray[np.int64]

#: x, y, width, height in level-0 pixels.
Region: TypeAlias = tuple[int, int, int, int]
