"""Every model that stands in checkpoints/ is what was published."""

import pytest

from pathzoo.paths import packaged_zoo
from pathzoo.zoo.find import folders_of
from pathzoo.zoo.verify import verify_model


@pytest.mark.parametrize("folder", folders_of(packaged_zoo()), ids=lambda folder: folder.parent.name)
def test_packaged_model_is_verified_and_gives_its_golden_outputs(folder):
    report = verify_model(folder, golden=True)
    assert not report.problems
    assert report.golden_checked


def test_packaged_zoo_keeps_its_size():
    """All of checkpoints/ under 24 MiB, one model under 8 MiB: clones and the wheel stay small."""
    sizes = [sum(f.stat().st_size for f in folder.iterdir()) for folder in folders_of(packaged_zoo())]
    assert all(size < 8 * 2**20 for size in sizes)
    assert sum(sizes) < 24 * 2**20
