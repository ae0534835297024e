"""Fixtures that several folders of tests share."""

import os
from pathlib import Path

import pytest

from pathzoo import compat

# Set before any test imports albumentations: otherwise it asks a registry for updates.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# Threads that wait asleep: two trainings at once on two cores would slow each other down many times.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:  # several processes test at once: one thread each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Before any test imports mmpretrain or mmdet: they keep what they find of mmcv's ops at their first import.
compat.install()

_CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images for development; the test is skipped where there is none."""
    folder = Path(os.environ.get("PATHZOO_REAL_DATA", _CHECKOUT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no real data here (PATHZOO_REAL_DATA, or ../shared/data beside the checkout)")
    return folder
