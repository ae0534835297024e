"""What the tests of the runner share."""

from pathlib import Path

import pytest
from tiny_run import draw_cohort


@pytest.fixture(scope="session")
def cohort(tmp_path_factory) -> Path:
    """Ten phantom patients with two images each. Read only."""
    return draw_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(autouse=True)
def _one_thread():
    """A network this small is slower with two, many times so where other processes want the cores too."""
    import torch

    torch.set_num_threads(1)
