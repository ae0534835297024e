"""Resolutions that a pipeline cannot take are refused before training, naming the image and the remedy."""

import pytest
from mmcv.transforms import RandomApply
from tile_tables import KFOLD, table

from pathzoo.datasets import TileClassification
from pathzoo.datasets.transforms import LoadTile, ResizeShortSide, ResizeToMpp
from pathzoo.errors import DataError

RESIZE = {"type": "pathzoo.ResizeToMpp", "mpp": 0.5}


@pytest.mark.parametrize("resize", [RESIZE, {**RESIZE, "type": ResizeToMpp}, ResizeToMpp(0.5)])
def test_tiles_without_a_resolution_are_refused_before_training_where_it_is_needed(lab, resize):
    lines = ["tiles/00.png,a,P0,0.5", "tiles/01.png,b,P1,", "tiles/02.png,b,P2,"]
    path = table(lab, *lines, header="path,label,patient,mpp")
    assert len(TileClassification(path, pipeline=[LoadTile()])) == 3
    with pytest.raises(DataError) as error:
        TileClassification(path, pipeline=[LoadTile(), resize])
    text = str(error.value)
    assert "own.csv: tiles/01.png and 2 of 3 images in all have no microns per pixel" in text
    assert "fill the column mpp, or give the dataset mpp=..." in text and "\n" not in text
    data = TileClassification(path, pipeline=[LoadTile(), resize], mpp=0.25)
    assert [data[n]["img"].shape[:2] for n in range(3)] == [(12, 16), (6, 8), (6, 8)]


def test_tiles_too_coarse_to_be_enlarged_are_refused_before_training(lab):
    path = table(lab, "tiles/00.png,a,P0,0.55", "tiles/01.png,b,P1,0.56", header="path,label,patient,mpp")
    with pytest.raises(DataError, match=r"1 of 2 images are too coarse, first tiles/01.png: 0.56 um/px .* the 0.5 um"):
        TileClassification(path, pipeline=[LoadTile(), RESIZE])
    data = TileClassification(path, pipeline=[LoadTile(), {**RESIZE, "max_upsample": 1.2}])
    assert data[0]["img"].shape == (13, 18, 3) and data[1]["img"].shape == (13, 18, 3)
    lazy = TileClassification(path, pipeline=[LoadTile(), RESIZE], lazy_init=True)
    with pytest.raises(DataError, match="too coarse"):
        len(lazy)


def test_only_the_images_of_the_subset_need_a_resolution_and_a_resize_before_it_is_not_second_guessed(lab):
    text = (lab / "tiles.csv").read_text().replace("P0,S0,0.5", "P0,S0,")
    (lab / "tiles.csv").write_text(text)
    refused = []
    for subset in ("train", "val", "test"):
        arguments = {"subset": subset, "split": KFOLD, "pipeline": [LoadTile(), RESIZE]}
        try:
            TileClassification(str(lab / "tiles.csv"), **arguments)
        except DataError:
            refused.append(subset)
    assert len(refused) == 1, "patient P0 stands in one subset"
    path = table(lab, "tiles/00.png,a,P0,1.0", "tiles/01.png,b,P1,1.0", header="path,label,patient,mpp")
    data = TileClassification(path, pipeline=[LoadTile(), ResizeShortSide(24), RESIZE])  # 1.0 becomes 0.5 um/px
    assert data[0]["img"].shape == (24, 32, 3)


def test_a_resize_inside_another_transform_is_found_too(lab):
    path = table(lab, "tiles/00.png,a,P0,", "tiles/01.png,b,P1,0.5", header="path,label,patient,mpp")
    with pytest.raises(DataError, match=r"1 of 2 images in all have no microns|and 1 of 2 images"):
        TileClassification(path, pipeline=[LoadTile(), RandomApply([RandomApply([ResizeToMpp(0.5)])])])
