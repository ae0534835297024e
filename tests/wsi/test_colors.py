"""Colours of classes: findings have the same ones in masks, in pictures and in QuPath, whatever the background."""

from pathzoo.datasets.breast_lesions import CLASSES, PALETTE
from pathzoo.datasets.region_table import default_palette
from pathzoo.wsi.colors import BACKGROUND_COLOR, class_colors, is_background, segment_colors


def test_the_background_takes_no_colour_from_the_findings():
    findings = class_colors(["benign", "malignant"])
    for name in ("normal", "Background", "rest"):
        assert is_background(name)
        assert segment_colors([name, "benign", "malignant"]) == {name: BACKGROUND_COLOR, **findings}
    assert segment_colors(["benign", "malignant"]) == findings


def test_masks_of_the_data_have_the_colours_of_predictions():
    assert dict(zip(CLASSES, PALETTE, strict=True)) == segment_colors(CLASSES)


def test_many_classes_have_colours_of_their_own():
    palette = default_palette(40)
    assert len(palette) == 40 == len(set(palette))
