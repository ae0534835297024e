"""The configs whose views are made of whole batches: the same views, task and schedule as those that they stand for."""

import copy

import pytest
import torch
from mmengine.dataset import default_collate
from mmengine.optim import OptimWrapper

from pathzoo.apis.config import load_config
from pathzoo.apis.setup import setup
from pathzoo.datasets.phantom import write_tiles
from pathzoo.datasets.sampling import SampleIndex
from pathzoo.models import BatchedViews
from pathzoo.registry import DATASETS, MODELS

_PAIRS = {
    "simclr/simclr_resnet10t_1xb64_60e_unlabelled-batchedviews_small.py": 64,
    "simclr/simclr_resnet50_1xb64_100e_unlabelled-batchedviews_224.py": 224,
}
_SMALL = next(iter(_PAIRS))


@pytest.fixture(scope="module", autouse=True)
def _set_up():
    setup()


@pytest.fixture(scope="module")
def kidney(tmp_path_factory):
    """Twelve tiles of 64 px."""
    root = tmp_path_factory.mktemp("kidney")
    write_tiles(root, tissue="kidney", patients=6, tiles_per_patient=2)
    return root


def _samples(name, kidney, indices):
    config = load_config(name, {"source": str(kidney)})
    data = DATASETS.build(copy.deepcopy(config.train_dataloader.dataset))
    return default_collate([data[index] for index in indices]), config.model


def test_views_are_the_preprocessors_and_the_same_as_those_of_the_processors(kidney):
    """In any epoch: the draws hang on the sample's seed alone."""
    indices = [SampleIndex(number, epoch) for number, epoch in ((0, 0), (3, 0), (3, 7), (5, 2))]
    whole, model = _samples(_SMALL, kidney, indices)
    assert whole["inputs"].shape == (4, 3, 64, 64) and whole["inputs"].dtype == torch.uint8
    ready, plain = _samples(_SMALL.replace("-batchedviews", ""), kidney, indices)
    assert [view.shape for view in ready["inputs"]] == [(4, 3, 48, 48)] * 2
    made, given = (MODELS.build(part.data_preprocessor) for part in (model, plain))
    assert isinstance(made, BatchedViews)
    ours = torch.stack(made(whole, training=True)["inputs"])
    theirs = torch.stack(given(ready, training=True)["inputs"])
    difference = (ours - theirs).abs() * given.std  # grey levels
    assert difference.max() < 4 and difference.mean() < 0.6
    assert (ours[:, 1] - ours[:, 2]).abs().mean() > 0.1, "one tile in two epochs"


@pytest.mark.parametrize(("name", "window"), _PAIRS.items())
def test_all_else_is_the_same(name, window):
    both = (load_config(n).to_dict() for n in (name, name.replace("-batchedviews", "")))
    ours, theirs = ({key: value for key, value in config.items() if key[0] != "_"} for config in both)
    views = theirs["train_dataloader"]["dataset"]["pipeline"][0]
    made = ours["model"].pop("data_preprocessor")
    given = theirs["model"].pop("data_preprocessor")
    assert {key: made[key] for key in ("size", "n_views", "zoom")} == {k: views[k] for k in ("size", "n_views", "zoom")}
    assert (made["mean"], made["std"]) == (given["mean"], given["std"])
    for part in ("train_dataloader", "val_dataloader"):
        own, other = ours[part]["dataset"], theirs[part]["dataset"]
        assert (own.pop("size"), own.pop("window")) == (window, window)
        assert other.pop("size") <= window, "the longest crop fits"
        del own["pipeline"], other["pipeline"]
    assert ours["parameters"].pop("window")
    assert ours == theirs


def test_a_step_on_the_processor(kidney):
    batch, model = _samples(_SMALL, kidney, [SampleIndex(number, 0) for number in range(4)])
    model = MODELS.build(model)
    before = model.backbone.timm_model.conv1[0].weight.detach().clone()
    losses = model.train_step(batch, OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1)))
    assert 0 < losses["loss"] < 10
    assert not torch.equal(before, model.backbone.timm_model.conv1[0].weight)
    assert model.val_step(batch)[0].pretext_loss.isfinite()


def test_pictures_larger_than_a_window_make_one_batch(tmp_path):
    """Of 90 px and of 64, as slides and packed stores may mix them."""
    for name, size in (("large", 90), ("small", 64)):
        write_tiles(tmp_path / name, tissue="kidney", patients=3, tiles_per_patient=2, size=size)
    config = load_config(_SMALL, {"source": [str(tmp_path / "large"), str(tmp_path / "small")]})
    data = DATASETS.build(copy.deepcopy(config.train_dataloader.dataset))
    batch = default_collate([data[SampleIndex(number, 1)] for number in range(len(data))])
    assert len(batch["inputs"]) > 6 and batch["inputs"].shape[2:] == (64, 64)
