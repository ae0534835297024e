"""Augmentation is drawn by the epoch: what training does with samplers and wrappers that do not tell it."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.dataset import ClassBalancedDataset, DefaultSampler, InfiniteSampler, RepeatDataset
from mmengine.logging import MMLogger
from tiny_run import CONFIG, draw_cohort, tiny_options
from torch.utils.data import BatchSampler, DataLoader, Subset

from pathzoo.apis.config import load_config
from pathzoo.apis.train import train
from pathzoo.datasets.sampling import SeededSampler, check_sampler
from pathzoo.errors import ConfigError
from pathzoo.registry import DATASETS


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Ten phantom patients. Read only."""
    return draw_cohort(tmp_path_factory.mktemp("cohort"), images_per_patient=1)


@pytest.fixture(scope="module")
def dataset(cohort):
    """The training part, augmented."""
    config = load_config(CONFIG, tiny_options(cohort))
    return DATASETS.build(copy.deepcopy(config.train_dataloader.dataset))


def _pictures(data, sampler_type, epoch):
    sampler = sampler_type(data, shuffle=False)
    sampler.set_epoch(epoch)
    return np.stack([data[index]["inputs"].numpy() for index in sampler])


def test_what_the_refusal_is_for(dataset):
    """With plain indices every epoch shows the network the same pictures; with ours none is shown twice."""
    plain, ours = ([_pictures(dataset, kind, epoch) for epoch in (0, 1)] for kind in (DefaultSampler, SeededSampler))
    assert np.array_equal(*plain)
    assert all(not np.array_equal(one, other) for one, other in zip(*ours, strict=True))


def test_training_refuses_a_plain_sampler_and_leaves_nothing(cohort, tmp_path):
    options = tiny_options(cohort) | {"train_dataloader.sampler": {"type": DefaultSampler, "shuffle": True}}
    with pytest.raises(ConfigError, match=r"phantom40x_small\.py: .*DefaultSampler .* BreakHis .*SeededSampler"):
        train(CONFIG, tmp_path / "run", options=options)
    assert not (tmp_path / "run").exists()


def test_evaluation_takes_any(cohort):
    config = load_config(CONFIG, tiny_options(cohort))
    assert config.val_dataloader.sampler.type is DefaultSampler
    assert config.test_dataloader.sampler.type is DefaultSampler


@pytest.mark.parametrize("kind", [DefaultSampler, InfiniteSampler])
def test_plain_samplers_are_named(dataset, kind):
    with pytest.raises(ConfigError, match=rf"^here: train_dataloader\.sampler: {kind.__name__} "):
        check_sampler(DataLoader(dataset, 2, sampler=kind(dataset)), "here")


def test_a_sampler_within_a_batch_sampler_is_looked_at(dataset):
    batches = (BatchSampler(kind(dataset), 2, False) for kind in (SeededSampler, DefaultSampler))
    check_sampler(DataLoader(dataset, batch_sampler=next(batches)), "here")
    with pytest.raises(ConfigError, match="DefaultSampler"):
        check_sampler(DataLoader(dataset, batch_sampler=next(batches)), "here")


def test_data_sets_that_draw_nothing_by_the_epoch_take_any_sampler():
    numbers = list(range(6))
    check_sampler(DataLoader(numbers, 2, sampler=DefaultSampler(numbers)), "here")


def test_our_own_data_sets_are_all_known():
    """Also those that a plug-in might derive, and the one that is no SplitDataset."""
    from pathzoo.datasets.pseudo_labelled import PseudoLabelled
    from pathzoo.datasets.regions import RegionSegmentation
    from pathzoo.datasets.tiles import TileClassification
    from pathzoo.datasets.unlabelled import UnlabelledTiles

    assert all(
        kind.draws_by_epoch for kind in (PseudoLabelled, RegionSegmentation, TileClassification, UnlabelledTiles)
    )


@pytest.mark.parametrize(
    "wrap",
    [
        lambda data: RepeatDataset(data, times=2),
        lambda data: ClassBalancedDataset(data, oversample_thr=0.5),
        lambda data: Subset(Subset(data, [0, 1]), [0]),
    ],
)
def test_a_wrapper_that_loses_the_epoch_is_told_in_the_log(dataset, wrap, caplog):
    """No sampler helps there, so that nothing is refused; mmengine's wrappers are of use all the same."""
    wrapped = wrap(dataset)
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        check_sampler(SimpleNamespace(dataset=wrapped, sampler=SeededSampler(wrapped), batch_sampler=None), "here")
    finally:
        logger.removeHandler(caplog.handler)
    assert f"{type(wrapped).__name__} hands on plain indices" in caplog.text
