import numpy as np
import pytest

from pathzoo.datasets.phantom import draw_tissue


@pytest.fixture(scope="session")
def tissue() -> np.ndarray:
    """A phantom of 256 x 192 pixels; tests must not write into it."""
    picture = draw_tissue(3, "malignant", (256, 192), 0.5)
    picture.flags.writeable = False
    return picture
