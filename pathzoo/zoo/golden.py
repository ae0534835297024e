"""Synthetic inputs for which a published model's outputs are kept: anyone can see that it still computes the same.

They are made by integer arithmetic from a seed, never from a patient's image.
"""

import numpy as np


def noise_tiles(seed: int, n: int, size: tuple[int, int]) -> np.ndarray:
    """Coloured noise at three scales, since noise of single pixels alone averages out inside a network.

    `RandomState` is NumPy's frozen generator (NEP 19): the same seed gives the same bytes with every version.

    Args:
        seed: Any non-negative integer below 2**32.
        n: Number of tiles.
        size: (width, height) in px.

    Returns:
        uint8 (n, H, W, 3), RGB, 0..255.
    """
    width, height = size
    random = np.random.RandomState(seed)
    total = np.zeros((n, height, width, 3), dtype=np.uint16)
    for cell, weight in ((1, 1), (8, 2), (32, 5)):
        rows, columns = -(-height // cell), -(-width // cell)
        coarse = random.randint(0, 256, size=(n, rows, columns, 3)).astype(np.uint16)
        fine = coarse.repeat(cell, axis=1).repeat(cell, axis=2)[:, :height, :width]
        total += weight * fine
    return (total // 8).astype(np.uint8)
