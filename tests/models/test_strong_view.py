"""The strongly changed view: what it changes, by how much, and that it moves nothing."""

import torch

from pathzoo.models.segmentors import strong_view


def _pictures(n=64, size=(24, 40)):
    return torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(1))


def test_nothing_asked_changes_nothing():
    pictures = _pictures()
    changed, kept = strong_view(pictures, contrast=0, color=0, noise=0, cutout=0)
    assert torch.equal(changed, pictures)
    assert kept.all() and kept.shape == (64, 24, 40)


def test_every_picture_has_one_gain_and_every_channel_one_shift():
    """Recovered from the pixels: so each stays in its place, and differs from picture to picture within the bounds."""
    pictures = _pictures()
    changed, _ = strong_view(pictures, contrast=0.4, color=0.3, noise=0, cutout=0)
    old, new = pictures.flatten(2), changed.flatten(2)
    gain = (new[..., 1] - new[..., 0]) / (old[..., 1] - old[..., 0])  # (N, 3)
    torch.testing.assert_close(gain, gain[:, :1].expand(-1, 3), atol=1e-3, rtol=1e-3)
    shift = new[..., 0] - gain * old[..., 0]
    torch.testing.assert_close(new, gain[..., None] * old + shift[..., None], atol=1e-3, rtol=1e-3)
    for values, low, high in ((gain[:, 0], 0.6, 1.4), (shift.flatten(), -0.3, 0.3)):
        assert low - 1e-3 <= float(values.min()) < low + 0.1 * (high - low)
        assert high + 1e-3 >= float(values.max()) > high - 0.1 * (high - low)


def test_noise_is_of_the_deviation_asked_at_most():
    pictures = torch.zeros(64, 3, 32, 32)
    deviation = strong_view(pictures, contrast=0, color=0, noise=0.5, cutout=0)[0].flatten(1).std(dim=1)
    assert float(deviation.min()) < 0.1 and 0.4 < float(deviation.max()) < 0.53


def test_a_rectangle_is_erased_and_said_to_be():
    pictures = _pictures(2000, (8, 12)) + 10
    changed, kept = strong_view(pictures, contrast=0, color=0, noise=0, cutout=0.5)
    assert torch.equal((changed == 0).all(dim=1), ~kept)
    assert torch.equal(changed[kept[:, None].expand_as(changed)], pictures[kept[:, None].expand_as(changed)])
    sides, reached = [], torch.zeros(8, 12, dtype=torch.bool)
    for erased in ~kept:
        rows, columns = erased.any(dim=1), erased.any(dim=0)
        assert torch.equal(erased, rows[:, None] & columns[None, :]), "a rectangle"
        for line in (rows, columns):
            places = torch.nonzero(line)[:, 0]
            if len(places):
                assert int(places[-1] - places[0]) + 1 == len(places), "without gaps"
        sides.append((int(rows.sum()), int(columns.sum())))
        reached |= erased
    assert {height for height, _ in sides} == {*range(5)} and {width for _, width in sides} == {*range(7)}
    assert reached.all(), "any place may be erased"


def test_it_follows_torchs_seed_and_each_call_differs():
    pictures = _pictures(4)
    torch.manual_seed(3)
    one, two = strong_view(pictures)[0], strong_view(pictures)[0]
    torch.manual_seed(3)
    assert torch.equal(strong_view(pictures)[0], one)
    assert not torch.equal(one, two)
    assert strong_view(pictures[:0])[0].shape == (0, 3, 24, 40)
