"""Fixtures of the tests of CT."""

import pytest
from ct_files import volume, write_case

PATIENTS = 10


@pytest.fixture
def kits(tmp_path):
    """Ten cases, every other one with a tumour; returns the folder and {case: (hu, labels)}."""
    root, made = tmp_path / "kits", {}
    for number in range(PATIENTS):
        hu, labels = volume(number, tumour=number % 2 == 0)
        made[f"case_{number:05d}"] = write_case(root, f"case_{number:05d}", hu=hu, labels=labels)
    return root, made
