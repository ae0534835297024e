"""SeededSampler: mmengine's order, whatever the length of an epoch."""

from collections import Counter

import pytest
from mmengine.dataset import DefaultSampler

from pathzoo.datasets.sampling import SeededSampler
from pathzoo.errors import ConfigError


def drawn(sampler, epoch):
    sampler.set_epoch(epoch)
    return [(int(index), index.epoch) for index in sampler]


def as_rank(sampler, rank, ranks):
    """The sampler as rank `rank` of `ranks` would have built it."""
    sampler.rank, sampler.world_size = rank, ranks
    sampler.num_samples = -(-sampler.samples_per_epoch // ranks)
    return sampler


@pytest.mark.parametrize("samples_per_epoch", [None, 11])
def test_epochs_of_as_many_items_as_there_are_follow_mmengine(samples_per_epoch):
    ours = SeededSampler(range(11), seed=3, samples_per_epoch=samples_per_epoch)
    theirs = DefaultSampler(range(11), seed=3)
    for epoch in (0, 1, 5):
        theirs.set_epoch(epoch)
        assert drawn(ours, epoch) == [(value, epoch) for value in theirs]


@pytest.mark.parametrize(("items", "samples_per_epoch"), [(5, 12), (12, 5), (7, 7), (1, 4)])
def test_epochs_follow_one_another_through_whole_passes(items, samples_per_epoch):
    sampler = SeededSampler(range(items), seed=0, samples_per_epoch=samples_per_epoch)
    row = [pair for epoch in range(items) for pair in drawn(sampler, epoch)]
    assert len(sampler) == samples_per_epoch
    assert len(row) == items * samples_per_epoch
    assert len(set(row)) == len(row), "an item that is drawn twice has to be augmented differently"
    assert set(Counter(index for index, _ in row).values()) == {samples_per_epoch}
    for number in range(samples_per_epoch):
        part = row[number * items : (number + 1) * items]
        assert sorted(index for index, _ in part) == list(range(items))
        assert {passed for _, passed in part} == {number}


def test_ranks_share_each_step_of_one_rank():
    alone = drawn(SeededSampler(range(10), seed=1, samples_per_epoch=24), 2)
    ranks = [drawn(as_rank(SeededSampler(range(10), seed=1, samples_per_epoch=24), r, 3), 2) for r in range(3)]
    assert [pair for step in zip(*ranks, strict=True) for pair in step] == alone


def test_every_rank_has_equally_many_where_an_epoch_does_not_divide():
    ranks = [drawn(as_rank(SeededSampler(range(10), seed=1, samples_per_epoch=7), r, 2), 0) for r in range(2)]
    assert [len(part) for part in ranks] == [4, 4]


def test_bad_lengths_are_refused():
    with pytest.raises(ConfigError, match="samples_per_epoch=0"):
        SeededSampler(range(3), samples_per_epoch=0)
    with pytest.raises(ConfigError, match="without any item"):
        SeededSampler([], samples_per_epoch=4)
