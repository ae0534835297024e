"""Which item is drawn when, and with which random numbers, whatever the number of ranks and workers."""

import hashlib
import logging
import math
from collections.abc import Iterator, Sized
from typing import Any

import torch
from mmengine.dataset import DefaultSampler
from mmengine.logging import print_log

from pathzoo.errors import ConfigError
from pathzoo.registry import DATA_SAMPLERS


class SampleIndex(int):
    """An index into a dataset that knows the epoch it was drawn in, or the pass over the data, where these differ.

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
    """mmengine's DefaultSampler whose indices are `SampleIndex`, with epochs of any length.

    Rank r of R takes every R-th item from the r-th on of one permutation, so that R ranks with batches of b see, step
    by step, the same global batch as one rank with batches of R * b.

    With `samples_per_epoch` an epoch is that many items of an endless row of permutations, and goes on where the last
    one ended: trainings on 5 % and on all of the data then take equally many steps, and every item is drawn equally
    often. An item that one epoch draws twice is augmented differently each time. Where the processes do not divide an
    epoch, what pads its last round is drawn again at the start of the next.

    Args:
        dataset: Any sized dataset.
        shuffle: Permute anew in each pass over the data.
        seed: Of the permutations; None takes one that mmengine shares among ranks, and `--seed` sets it.
        round_up: Pad the last round so that every rank has equally many (mmengine drops the copies when evaluating).
        samples_per_epoch: Items of an epoch, of all ranks; None for each item once.

    Raises:
        ConfigError: `samples_per_epoch` below 1, or of an empty data set.
    """

    def __init__(
        self,
        dataset: Sized,
        shuffle: bool = True,
        seed: int | None = None,
        round_up: bool = True,
        samples_per_epoch: int | None = None,
    ) -> None:
        super().__init__(dataset, shuffle, seed, round_up)
        self.samples_per_epoch = samples_per_epoch
        if samples_per_epoch is not None:
            if samples_per_epoch < 1:
                raise ConfigError(f"samples_per_epoch={samples_per_epoch}: give 1 or more, or None for each item once")
            if not len(dataset):
                raise ConfigError(f"samples_per_epoch={samples_per_epoch} of a data set without any item")
            mine = samples_per_epoch if round_up else samples_per_epoch - self.rank
            self.num_samples = math.ceil(mine / self.world_size)

    def __iter__(self) -> Iterator[int]:
        if self.samples_per_epoch is None:
            yield from (SampleIndex(value, self.epoch) for value in super().__iter__())
            return
        count, current, order = len(self.dataset), -1, []
        begin = self.epoch * self.samples_per_epoch + self.rank
        for place in range(begin, begin + self.num_samples * self.world_size, self.world_size):
            number, position = divmod(place, count)
            if number != current:
                current, order = number, self._permutation(number)
            yield SampleIndex(order[position], number)

    def _permutation(self, number: int) -> list[int]:
        """The order of pass `number`: as mmengine's sampler has it in the epoch of that number."""
        if not self.shuffle:
            return list(range(len(self.dataset)))
        generator = torch.Generator()
        generator.manual_seed(self.seed + number)
        order: list[int] = torch.randperm(len(self.dataset), generator=generator).tolist()
        return order


def check_sampler(loader: Any, source: str) -> None:
    """What draws by the epoch is told the epoch, or every epoch of a training would be augmented alike.

    Data sets say by `draws_by_epoch = True` that they take their random numbers from the epoch of a `SampleIndex`.
    Wrappers such as mmengine's RepeatDataset hand on plain indices whatever the sampler: that is told in the log.

    Args:
        loader: A training loader with dataset, sampler and batch_sampler, as torch's DataLoader.
        source: The config's name, for the message.

    Raises:
        ConfigError: A sampler that is no `SeededSampler` before such a data set.
    """
    dataset = loader.dataset
    if not getattr(dataset, "draws_by_epoch", False):
        if any(getattr(inner, "draws_by_epoch", False) for inner in _wrapped(dataset)):
            text = (
                f"{type(dataset).__name__} hands on plain indices: every epoch augments a picture in the same way. "
                "samples_per_epoch=N of SeededSampler lengthens an epoch without a wrapper"
            )
            print_log(text, logger="current", level=logging.WARNING)
        return
    sampler = getattr(loader.batch_sampler, "sampler", loader.sampler)  # of a batch sampler torch keeps no other
    if not isinstance(sampler, SeededSampler):
        raise ConfigError(
            f"{source}: train_dataloader.sampler: {type(sampler).__name__} hands out plain indices, upon which "
            f"{type(dataset).__name__} would augment and cut a picture in the same way in every epoch; name "
            "pathzoo.datasets.sampling.SeededSampler, or a class derived from it"
        )


def _wrapped(dataset: Any) -> Iterator[Any]:
    """The data sets beneath a wrapper, at any depth."""
    for inner in (getattr(dataset, "dataset", None), *(getattr(dataset, "datasets", None) or ())):
        if inner is not None:
            yield inner
            yield from _wrapped(inner)
