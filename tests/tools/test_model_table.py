"""The README's table says of each packaged model what its manifest says."""

from analysis_tools.model_table import model_table

from pathzoo.paths import packaged_zoo
from pathzoo.zoo.find import folders_of
from pathzoo.zoo.manifest_file import read_manifest


def test_every_model_that_was_measured_shows_a_figure_and_phantoms_are_called_so():
    lines = model_table().splitlines()[2:]
    manifests = [read_manifest(folder) for folder in folders_of(packaged_zoo())]
    assert len(lines) == len(manifests)
    for line, manifest in zip(lines, manifests, strict=True):
        assert manifest.name in line
        assert ("not measured" in line) == (not manifest.metrics)
        counts = manifest.training.counts if manifest.training else {}
        if counts:
            assert ("phantoms" in line) == manifest.training.synthetic


def test_a_segmenter_is_told_by_miou_over_pixels_with_its_regions_as_n():
    folder = next(f for f in folders_of(packaged_zoo()) if f.parent.name == "phantom-lesions-resnest14d-unet")
    evaluation = read_manifest(folder).metrics[0]
    value = next(row.value for row in evaluation.rows if (row.metric, row.level) == ("miou", "pixel"))
    n = next(row.n for row in evaluation.rows if (row.metric, row.level) == ("miou", "region"))
    line = next(line for line in model_table().splitlines() if folder.parent.name in line)
    assert f"mIoU {value:.2f} [" in line and f"n = {n} regions" in line
