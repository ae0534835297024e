"""Which item is drawn when, and with which random numbers, whatever the number of ranks and workers."""

import hashlib
from collections.abc import Iterator

from mmengine.dataset import DefaultSampler

from pathzoo.registry import DATA_SAMPLERS


class SampleIndex(int):
    """An index into a dataset that knows the epoch it was drawn in.

    It travels to the workers in place of a plain int, so that augmentation can be seeded by (seed, epoch, index) even
    where workers persist across epochs.
    """

    epoch: int

    def __new__(cls, value: int, epoch: int) -> "SampleIndex":
        """Makes an int that carries its epoch."""
        index = super().__new__(cls, value)
        index.epoch = epoch
        return index

    def __reduce__(self) -> tuple:
        return SampleIndex, (int(self), self.epoch)


def mix_seed(*parts: int) -> int:
    """A uint32 that depends on every part and on their order (BLAKE2b); neighbouring parts give unrelated seeds."""
    text = ",".join(str(int(part)) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")


@DATA_SAMPLERS.register_module()
class SeededSampler(DefaultSampler):
    """mmengine's DefaultSampler whose indices are `SampleIndex`.

    Rank r of R takes every R-th item from the r-th on of one permutation, so that R ranks with batches of b see, step
    by step, the same global batch as one rank with batches of R * b.

    Args:
        dataset: Any sized dataset.
        shuffle: Permute anew in each epoch.
        seed: Of the permutations; None takes one that mmengine shares among ranks, and `--seed` sets it.
        round_up: Pad the last round so that every rank has equally many (mmengine drops the copies when evaluating).
    """

    def __iter__(self) -> Iterator[int]:
        return (SampleIndex(value, self.epoch) for value in super().__iter__())
