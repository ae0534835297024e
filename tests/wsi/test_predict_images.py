import csv

import cv2
import numpy as np
import pytest
from PIL import Image

from pathzoo.errors import DataError, SlideError
from pathzoo.wsi.images import predict_images, write_image_predictions


def to_tile(image, mpp):
    return cv2.resize(image, (128, 128), interpolation=cv2.INTER_AREA)


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for i in range(7):
        level = 20 + 30 * i
        path = tmp_path / f"{i}.png"
        Image.fromarray(rng.integers(level - 9, level + 9, (90 + i, 100, 3)).astype(np.uint8)).save(path)
        paths.append(path)
    return paths


def test_rows_equal_one_image_at_a_time(images, darkness, tmp_path):
    predictor, seen = darkness(), []
    result = predict_images(images, predictor, to_tile, batch_size=3, progress=lambda *n: seen.append(n))
    assert predictor.sizes == [3, 3, 1] and seen == [(3, 7), (6, 7), (7, 7)]
    for path, probs in zip(images, result.probs, strict=True):
        assert probs == pytest.approx(darkness.rule(to_tile(np.asarray(Image.open(path)), None)), abs=1e-6)
    write_image_predictions(tmp_path / "p.csv", result)
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "predicted", "prob_benign", "prob_malignant"]
    assert [row["path"] for row in rows] == [path.as_posix() for path in images]
    assert all((row["predicted"] == "malignant") == (float(row["prob_malignant"]) > 0.5) for row in rows)


def test_resolution_reaches_prepare(images, darkness):
    seen = []

    def prepare(image, mpp):
        seen.append(mpp)
        return to_tile(image, mpp)

    predict_images(images, darkness(), prepare, mpp=[0.1 * i for i in range(7)], batch_size=2)
    predict_images(images[:2], darkness(), prepare, mpp=0.5)
    assert seen == [0.1 * i for i in range(7)] + [0.5, 0.5]
    with pytest.raises(ValueError, match="2 values of mpp for 7 images"):
        predict_images(images, darkness(), prepare, mpp=[1.0, 2.0])


def test_unusable_images_are_named_and_the_rest_predicted(images, darkness, tmp_path):
    (tmp_path / "3.png").write_bytes(b"no image")
    images.insert(1, tmp_path / "none.png")

    def prepare(image, mpp):
        if image.shape[0] == 95:
            raise DataError("too odd")
        return to_tile(image, mpp)

    result = predict_images(images, darkness(), prepare, batch_size=4)
    assert [path.name for path, _ in result.failed] == ["none.png", "3.png", "5.png"]
    assert [path.name for path in result.paths] == ["0.png", "1.png", "2.png", "4.png", "6.png"]
    assert len(result.probs) == 5 and all(reason for _, reason in result.failed)


def test_wrong_use_is_refused(images, darkness):
    segmenter = darkness()
    segmenter.task = "segmentation"
    with pytest.raises(SlideError, match="task is segmentation"):
        predict_images(images, segmenter, to_tile)
    with pytest.raises(SlideError, match="batch size is 0"):
        predict_images(images, darkness(), to_tile, batch_size=0)
    with pytest.raises(ValueError, match=r"prepare\(\) gave"):
        predict_images(images, darkness(), lambda image, mpp: image)
    assert predict_images([], darkness(), to_tile).rows() == []
