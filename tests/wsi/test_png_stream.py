"""Pictures written in bands, read back by Pillow."""

import numpy as np
import pytest
from PIL import Image

from pathzoo.wsi.png_stream import write_png


@pytest.mark.parametrize("cuts", [(), (1, 2, 3), (0, 17, 17, 30)])
def test_colour_pictures_come_back(tmp_path, cuts):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (37, 53, 3)).astype(np.uint8)
    write_png(tmp_path / "a.png", np.split(image, cuts), (53, 37))
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(picture), image)


def test_indices_stay_and_have_colours(tmp_path):
    mask = np.random.default_rng(0).integers(0, 3, (20, 31)).astype(np.uint8)
    mask[5] = 255
    palette = [(1, 2, 3), (40, 50, 60), (7, 8, 9), *[(255, 255, 255)] * 253]
    write_png(tmp_path / "a.png", np.split(mask, [4, 9]), (31, 20), palette)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), mask)
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), np.array(palette, np.uint8)[mask])


def test_bands_of_another_size_are_refused(tmp_path):
    with pytest.raises(ValueError, match="3 rows came for a picture 4 px high"):
        write_png(tmp_path / "a.png", [np.zeros((3, 5, 3), np.uint8)], (5, 4))
    with pytest.raises(ValueError, match="5 px wide"):
        write_png(tmp_path / "a.png", [np.zeros((3, 4, 3), np.uint8)], (5, 3))
    with pytest.raises(ValueError, match="index 2 for a palette of 2"):
        write_png(tmp_path / "a.png", [np.full((3, 5), 2, np.uint8)], (5, 3), [(0, 0, 0)] * 2)
