"""Random numbers for transforms where no sample seed says what is drawn."""

import os
from collections.abc import Sequence

import numpy as np
from torch.utils.data import get_worker_info


class ProcessDraws:
    """A generator for each process, made when first asked for.

    A loader's worker is seeded from the loader's seed of the epoch, the process in which this was built from numpy's
    global generator, any other fork from the operating system: no two processes draw the same.

    Args:
        salt: whole numbers from 0 on that set this stream apart from others with the same seed.
    """

    def __init__(self, salt: Sequence[int]) -> None:
        self._salt = list(salt)
        self._own: np.random.Generator | None = None
        self._process = self._built_in = os.getpid()

    def generator(self) -> np.random.Generator:
        """This process's own."""
        if self._own is None or self._process != os.getpid():
            self._process = os.getpid()
            worker = get_worker_info()
            if worker is not None:
                seed = [worker.seed % 2**64, *self._salt]
            elif self._process == self._built_in:
                seed = [int(np.random.randint(2**31)), *self._salt]
            else:
                seed = None
            self._own = np.random.default_rng(seed)
        return self._own
