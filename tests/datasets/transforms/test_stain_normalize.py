import json

import numpy as np
import pytest

from pathzoo.datasets.transforms.stain_normalize import NormalizeStain
from pathzoo.errors import ConfigError, DataError
from pathzoo.registry import TRANSFORMS
from pathzoo.wsi.stain import FITS, METHODS, StainTransform, fit_macenko


@pytest.fixture(scope="module")
def other():
    """A phantom of another stain than `tissue`."""
    from pathzoo.datasets.phantom import draw_tissue

    return draw_tissue(8, "benign", (256, 192), 0.5)


@pytest.mark.parametrize("method", METHODS)
def test_each_picture_by_itself(tissue, other, method):
    target = FITS[method](other.reshape(-1, 3))
    transform = TRANSFORMS.build({"type": NormalizeStain, "target": target.to_block()})
    results = transform({"img": tissue.copy(), "gt_label": 1})
    expected = StainTransform(FITS[method](tissue.reshape(-1, 3)), target).apply(tissue)
    np.testing.assert_array_equal(results["img"], expected)
    assert results["gt_label"] == 1
    again = FITS[method](results["img"].reshape(-1, 3)).parameters
    before = FITS[method](tissue.reshape(-1, 3)).parameters
    key = {"macenko": "maxima", "reinhard": "mean"}[method]
    wanted = np.array(target.parameters[key])
    assert np.abs(again[key] - wanted).sum() < 0.3 * np.abs(before[key] - wanted).sum()
    white = np.full((32, 32, 3), 255, np.uint8)
    np.testing.assert_array_equal(transform({"img": white})["img"], white)
    assert method in repr(transform)


def test_tiles_take_the_fit_of_their_slide(tissue, other, tmp_path):
    source, target = fit_macenko(tissue.reshape(-1, 3)), fit_macenko(other.reshape(-1, 3))
    fits = {"a": source.to_block(), "blank": None}
    path = tmp_path / "fits.json"
    path.write_text(json.dumps(fits))
    tile = tissue[:64, :64]
    for given in (fits, path, str(path)):
        transform = NormalizeStain(target.to_block(), given)
        got = transform({"img": tile.copy(), "slide": "a", "img_path": "t.png"})["img"]
        np.testing.assert_array_equal(got, StainTransform(source, target).apply(tile))
        np.testing.assert_array_equal(transform({"img": tile, "slide": "blank"})["img"], tile)
        with pytest.raises(DataError, match=r"t\.png: its slide 'b' has no entry"):
            transform({"img": tile, "slide": "b", "img_path": "t.png"})
    assert "fits of 2 slides" in repr(transform)


@pytest.mark.parametrize(
    ("target", "fits", "match"),
    [
        ({"method": "vahadane", "parameters": {}}, None, "target: stain method 'vahadane'"),
        ({"method": "macenko"}, None, "target: lacks 'parameters'"),
        ("macenko", None, "target: "),
        (None, {"a": {"method": "reinhard", "parameters": {"mean": [1, 2, 3], "std": [1, 1, 1]}}}, "slide 'a': a rein"),
        (None, {"a": {"method": "macenko", "parameters": {}}}, "slide 'a': a macenko fit holds"),
        (None, "/no/such/file.json", "cannot be read as JSON"),
    ],
)
def test_what_is_no_fit(other, target, fits, match):
    with pytest.raises(ConfigError, match=match):
        NormalizeStain(target or fit_macenko(other.reshape(-1, 3)).to_block(), fits)


def test_a_file_of_another_form(other, tmp_path):
    path = tmp_path / "fits.json"
    path.write_text("[]")
    with pytest.raises(ConfigError, match="holds a list"):
        NormalizeStain(fit_macenko(other.reshape(-1, 3)).to_block(), path)
