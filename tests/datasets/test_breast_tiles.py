"""Breast tiles: the study's classes and its balanced fractions of labels."""

import pytest
from tile_tables import table, write_image

from pathzoo.datasets import BreastTiles
from pathzoo.errors import ConfigError

CLASSES = ("benign", "ADH", "DCIS")
SPLIT = {"scheme": "patient_ratio", "ratios": {"train": 0.8, "val": 0.2, "test": 0}, "seed": 0}


@pytest.fixture
def tiles(tmp_path):
    """15 patients, 5 of each class, 8 tiles each."""
    lines = []
    for number in range(120):
        write_image(tmp_path / f"{number}.png", number)
        patient = number // 8
        lines.append(f"{number}.png,{CLASSES[patient % 3]},P{patient}")
    return table(tmp_path, *lines)


@pytest.mark.parametrize(("fraction", "each"), [(0.05, 1), (0.25, 8), (0.5, 16)])
def test_fractions_are_balanced_and_the_rest_is_unlabelled(tiles, fraction, each):
    split = {**SPLIT, "label_fraction": fraction}
    train, rest, val = (BreastTiles(tiles, subset=name, split=split) for name in ("train", "unlabelled", "val"))
    assert train.metainfo["classes"] == CLASSES
    counts = {name: part["n_images"] for name, part in train.describe()["per_class"].items()}
    assert counts == dict.fromkeys(CLASSES, each)
    assert len(train) + len(rest) == 96 and len(val) == 24
    patients = [{part.get_data_info(i)["patient"] for i in range(len(part))} for part in (train, rest, val)]
    assert not patients[2] & (patients[0] | patients[1])


def test_a_class_without_tiles_is_named_with_its_fraction(tmp_path):
    for number in range(8):
        write_image(tmp_path / f"{number}.png", number)
    listed = table(tmp_path, *(f"{n}.png,{CLASSES[n % 2]},P{n}" for n in range(8)))
    with pytest.raises(ConfigError, match=r"label_fraction=0\.25: none of the \d training images shows 'DCIS'"):
        BreastTiles(listed, subset="train", split={**SPLIT, "label_fraction": 0.25})


def test_a_fraction_too_small_for_a_class(tiles):
    with pytest.raises(ConfigError, match=r"label_fraction=0\.01 of 96 training images leaves none of 'benign'"):
        BreastTiles(tiles, subset="train", split={**SPLIT, "label_fraction": 0.01})
