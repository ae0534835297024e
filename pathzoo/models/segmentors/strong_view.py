"""A strongly changed view of normalised pictures whose geometry stays as it is. Whole batches, on their own device."""

import torch


def strong_view(
    pictures: torch.Tensor, contrast: float = 0.4, color: float = 0.4, noise: float = 0.2, cutout: float = 0.5
) -> tuple[torch.Tensor, torch.Tensor]:
    """Changes contrast and colour, adds noise and erases a rectangle; each picture by numbers of its own.

    x' = x * g + s + n: g, one number a picture, in 1 +- `contrast`; s, one number a channel, in +- `color`; n normal,
    of a standard deviation drawn in 0..`noise`. Then a rectangle is set to 0, the data's mean, whose sides are drawn in
    0..`cutout` of the picture's and whose place is drawn among all where it fits.

    Source: the kinds of change are those of FixMatch (Sohn et al., 2020); for segmentation, where neighbouring pixels
    tell nearly the same, French et al. (BMVC 2020) find that erasing is what makes consistency work.

    Args:
        pictures: (N, C, H, W), normalised: mean about 0, deviation about 1.
        contrast: 0..1.
        color: 0 or more.
        noise: 0 or more.
        cutout: 0..1.

    Returns:
        The changed pictures, and (N, H, W) bool: True where nothing was erased.

    Raises:
        ValueError: A number out of its range.
    """
    if not (0 <= contrast <= 1 and 0 <= cutout <= 1 and color >= 0 and noise >= 0):
        raise ValueError("contrast and cutout lie in 0..1, color and noise are 0 or more")
    n, channels, height, width = pictures.shape

    def drawn(*shape: int) -> torch.Tensor:
        return torch.rand(shape, device=pictures.device, dtype=pictures.dtype)

    gain = 1 + contrast * (2 * drawn(n, 1, 1, 1) - 1)
    shift = color * (2 * drawn(n, channels, 1, 1) - 1)
    spread = noise * drawn(n, 1, 1, 1)
    changed = pictures * gain + shift + spread * torch.randn_like(pictures)
    rows = _inside(height, cutout * drawn(n), drawn(n))
    columns = _inside(width, cutout * drawn(n), drawn(n))
    kept = ~(rows[:, :, None] & columns[:, None, :])
    return changed * kept[:, None], kept


def _inside(length: int, share: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """(N, length) bool: True on a stretch of `share` of the length whose beginning lies at `place` of the room left."""
    size = (share * length).round()
    begin = (place * (length - size + 1)).floor().clamp_max(length - 1)
    pixel = torch.arange(length, device=share.device)
    return (pixel >= begin[:, None]) & (pixel < (begin + size)[:, None])
