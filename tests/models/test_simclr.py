"""SimCLR: what its loss is of, what a prediction is, and what it refuses."""

import logging

import pytest
import torch
from mmengine.logging import MMLogger
from pretext_models import TinyBackbone, neck, pixels, samples, simclr

from pathzoo.errors import ConfigError
from pathzoo.models import NTXentHead
from pathzoo.models.selfsup import nt_xent, nt_xent_of_pairs


def data(n=6, size=16):
    return {"inputs": [pixels(n, 3, size, size, seed=seed) for seed in (0, 1)], "data_samples": samples(n)}


def test_loss_is_nt_xent_of_both_views_projected_in_one_pass():
    model = simclr().train()
    batch = model.data_preprocessor(data(), training=True)
    loss = model(**batch, mode="loss")["loss"]
    twin = simclr().train()  # the same weights; its statistics are untouched
    both = twin.neck(twin.backbone(torch.cat(batch["inputs"])))[0]
    torch.testing.assert_close(loss, nt_xent(both[:6], both[6:], temperature=0.2))
    apart = [twin.neck(twin.backbone(view))[0] for view in batch["inputs"]]
    assert abs(float((loss - nt_xent(*apart, temperature=0.2)).detach())) > 1e-4, "normalised over both views"
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_a_prediction_is_each_samples_share_of_the_loss():
    model = simclr().eval()
    found = model.val_step(data())
    with torch.no_grad():
        batch = model.data_preprocessor(data())
        projections = [model.neck(model.backbone(view))[0] for view in batch["inputs"]]
    values = torch.stack([sample.pretext_loss for sample in found])
    torch.testing.assert_close(values, nt_xent_of_pairs(*projections, temperature=0.2))
    torch.testing.assert_close(values.mean(), model(**batch, mode="loss")["loss"].detach())
    assert [sample.sample_idx for sample in found] == list(range(6))
    torch.testing.assert_close(torch.stack([s.pretext_loss for s in model.val_step(data())]), values, rtol=0, atol=0)


def test_tensor_mode_gives_the_backbones_maps():
    model, image = simclr().eval(), torch.randn(2, 3, 16, 16)
    (map_,) = model(image)
    assert map_.shape == (2, 12, 4, 4)
    torch.testing.assert_close(map_, model.backbone(image)[0])


def test_it_learns_which_views_belong_together():
    """Views differ in brightness alone: an untrained network mixes pictures up, a trained one does not."""
    model = simclr(backbone=TinyBackbone(), neck=neck(with_last_bn=False)).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randn(16, 3, 1, 1, generator=generator) + 0.3 * torch.randn(16, 3, 16, 16, generator=generator)
    losses = []
    for _ in range(40):
        views = [patterns + torch.randn(16, 1, 1, 1, generator=generator) for _ in range(2)]
        loss = model(views, samples(16), mode="loss")["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize(
    "inputs",
    [
        torch.zeros(2, 3, 16, 16),
        [torch.zeros(2, 3, 16, 16)],
        [torch.zeros(2, 3, 16, 16)] * 3,
        [torch.zeros(2, 3, 16, 16), torch.zeros(2, 3, 8, 8)],
    ],
)
@pytest.mark.parametrize("mode", ["loss", "predict"])
def test_what_is_not_two_views_is_refused(inputs, mode):
    with pytest.raises(ConfigError, match=r"SimCLR: a batch of shape .*two views of the same shape.*HistologyViews"):
        simclr()(inputs, samples(2), mode=mode)


@pytest.mark.parametrize("arguments", [{"temperature": 0}, {"temperature": -0.1}, {"temperature": "low"}, {"chunk": 0}])
def test_numbers_out_of_range_are_refused(arguments):
    with pytest.raises(ConfigError, match="NTXentHead: "):
        NTXentHead(**arguments)


def test_a_single_picture_is_warned_of_once():
    head, seen = NTXentHead(), []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    try:
        for n in (2, 1, 1):
            head.loss(torch.ones(n, 4), torch.ones(n, 4))
    finally:
        logger.removeHandler(handler)
    assert len(seen) == 1 and "one picture has no negatives" in seen[0]
