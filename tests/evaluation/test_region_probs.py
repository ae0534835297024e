"""Probabilities of regions on disk: what was written is read, whatever is damaged is named and never believed."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pathzoo.errors import DataError
from pathzoo.evaluation.region_probs import missing_probs, read_region_probs, write_region_probs, written_by

CLASSES = ("normal", "benign", "malignant")


def region(item="images/a.png", **more):
    values = {"item": item, "image": Path("somewhere") / item, "sha256": "1" * 64, "width": 30, "height": 20}
    return SimpleNamespace(**(values | more))


def levels(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (3, 20, 30)).astype(np.uint8)


def written(folder, one=None, classes=CLASSES):
    one = one or region()
    write_region_probs(folder, one, levels(), classes, "model 1", 4)
    (path,) = folder.glob("*.npz")
    return path


def test_what_was_written_is_read_and_known(tmp_path):
    written(tmp_path)
    probs, fold = read_region_probs(tmp_path, region(), CLASSES)
    np.testing.assert_array_equal(probs, levels())
    assert probs.dtype == np.uint8 and fold == 4
    assert written_by(tmp_path, region(), CLASSES) == "model 1"
    assert written_by(tmp_path, region(sha256="2" * 64), CLASSES) is None
    assert written_by(tmp_path, region(), CLASSES[::-1]) is None
    assert written_by(tmp_path, region("images/b.png"), CLASSES) is None
    # Another folder's region of the same name has another file.
    assert missing_probs(tmp_path, [region(), region("other/a.png"), region("images/b.png")]) == [
        "other/a.png",
        "images/b.png",
    ]


@pytest.mark.parametrize("name", ["a", "a-50edaf76"])
def test_files_of_other_programs_by_either_name(tmp_path, name):
    probs = np.random.default_rng(0).dirichlet(np.ones(3), (20, 30)).transpose(2, 0, 1)
    np.savez(tmp_path / f"{name}.npz", probs=probs)
    found, fold = read_region_probs(tmp_path, region(), CLASSES)
    assert found.dtype == np.float32 and fold is None
    np.testing.assert_allclose(found, probs, atol=1e-6)
    (tmp_path / f"{name}.npz").unlink()
    for part in ("classes", "confidence"):
        (tmp_path / part).mkdir()
    best, sure = probs.argmax(axis=0).astype(np.uint8), np.rint(probs.max(axis=0) * 255).astype(np.uint8)
    Image.fromarray(best).save(tmp_path / "classes" / f"{name}.png")
    Image.fromarray(sure).save(tmp_path / "confidence" / f"{name}.png")
    assert missing_probs(tmp_path, [region()]) == []
    found, _ = read_region_probs(tmp_path, region(), CLASSES)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)
    np.testing.assert_allclose(found.max(axis=0), sure / 255, atol=1e-6)
    rest = np.sort(found, axis=0)[:2]
    np.testing.assert_allclose(rest[0], rest[1], atol=1e-6)
    np.testing.assert_array_equal(found.argmax(axis=0), best)


def test_a_damaged_file_is_named_and_made_again(tmp_path):
    path = written(tmp_path)
    whole = path.read_bytes()
    wrong = 0
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            probs, _ = read_region_probs(tmp_path, region(), CLASSES)
            np.testing.assert_array_equal(probs, levels())  # bytes that nothing hangs on
        except DataError as error:
            wrong += 1
            assert str(path) in str(error) and "\n" not in str(error)
        assert written_by(tmp_path, region(), CLASSES) in (None, "model 1")
    assert wrong > 0.3 * len(whole) / 7
    for length in (0, 10, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:length])
        assert written_by(tmp_path, region(), CLASSES) is None
        with pytest.raises(DataError, match=r"cannot be read .*remove it and predict that region again"):
            read_region_probs(tmp_path, region(), CLASSES)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"other": np.zeros(3)}, "has no array 'probs', but other"),
        ({"probs": np.zeros((3, 20, 31), np.float32)}, r"shape \(3, 20, 31\), but images/a.png needs \(3, 20, 30\)"),
        ({"probs": np.zeros((2, 20, 30), np.float32)}, r"shape \(2, 20, 30\)"),
        ({"probs": np.full((3, 20, 30), 7.5)}, r"values in 7.5..7.5 are no probabilities; store the softmax"),
        ({"probs": np.full((3, 20, 30), np.nan)}, "values in nan..nan are no probabilities"),
        ({"probs": np.zeros((3, 20, 30), np.int64)}, "probs are of type int64; store uint8 in 0..255, or float"),
        ({"probs": np.array([{}], object)}, "cannot be read"),
        ({"probs": levels(), "classes": np.array(CLASSES[::-1])}, "is of the classes malignant, benign, normal, not"),
        ({"probs": levels(), "image_sha256": np.array("2" * 64)}, "was predicted from another picture than"),
    ],
)
def test_what_does_not_fit(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read_region_probs(tmp_path, region(), CLASSES)


def test_no_file_and_an_array_in_its_place(tmp_path):
    with pytest.raises(DataError, match=r"holds no probabilities of images/a.png; expected a.npz"):
        read_region_probs(tmp_path, region(), CLASSES)
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, levels())
    with pytest.raises(DataError, match=r"a.npz: cannot be read \(File is not a zip file\)"):
        read_region_probs(tmp_path, region(), CLASSES)


def test_pictures_that_do_not_fit(tmp_path):
    for part in ("classes", "confidence"):
        (tmp_path / part).mkdir()
        Image.fromarray(np.full((20, 30), 2, np.uint8)).save(tmp_path / part / "a.png")
    whole = (tmp_path / "confidence" / "a.png").read_bytes()
    for content, message in (
        (whole[:-20], "confidence/a.png: truncated or damaged"),
        (b"", "confidence/a.png: empty file"),
    ):
        (tmp_path / "confidence" / "a.png").write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_region_probs(tmp_path, region(), CLASSES)
    (tmp_path / "confidence" / "a.png").unlink()
    with pytest.raises(DataError, match=r"confidence/a.png: no such file"):
        read_region_probs(tmp_path, region(), CLASSES)
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "confidence" / "a.png")
    with pytest.raises(DataError, match="pixels of mode RGB; expected one channel"):
        read_region_probs(tmp_path, region(), CLASSES)
    Image.fromarray(np.zeros((20, 31), np.uint8)).save(tmp_path / "confidence" / "a.png")
    with pytest.raises(DataError, match=r"\(20, 31\) px \(H, W\), the region is \(20, 30\)"):
        read_region_probs(tmp_path, region(), CLASSES)
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "confidence" / "a.png")
    Image.fromarray(np.full((20, 30), 3, np.uint8)).save(tmp_path / "classes" / "a.png")
    with pytest.raises(DataError, match="holds the value 3; there are 3 classes"):
        read_region_probs(tmp_path, region(), CLASSES)
