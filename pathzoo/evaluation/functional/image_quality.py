"""How good drawn pictures are: likeness to a real one, likeness as a whole, and whether they are copies.

The last two work on features (N, D) of any network; where there is none, `shrink` gives features at hand.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pathzoo.errors import DataError
from pathzoo.evaluation.functional.classification import FloatArray, IntArray

#: Wang et al. (2004), section III-C: a Gaussian window of this many pixels, and its standard deviation.
_WINDOW, _SIGMA = 11, 1.5
#: Share of real pictures that lie nearer to another patient's than a threshold for copies.
_QUANTILE = 0.01
#: Numbers of a block of pictures, and distances of a block of pairs, that are held at once; 64-bit.
_BLOCK = 2_000_000


def ssim(a: ArrayLike, b: ArrayLike, data_range: float) -> float:
    """Structural similarity of two pictures (Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 13(4), 2004), mean over pixels.

    As published: Gaussian window of 11 pixels with a standard deviation of 1.5, K1 0.01, K2 0.03, variances divided by
    n; computed by scikit-image. The 5 pixels along the border are left out. Of several channels, the mean.

    Args:
        a, b: (H, W) or (H, W, K), sides of 11 pixels at least.
        data_range: Highest less lowest value that a pixel can have (255), not that these have.

    Returns:
        -1..1; 1 for equal pictures.

    Raises:
        ImportError: scikit-image is not installed.
        DataError: Shapes that differ or are too small, values that are no numbers, a range that is not above 0.
    """
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise ImportError("SSIM needs scikit-image: pip install pathzoo[translation]", name="skimage") from error

    one, other = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if one.shape != other.shape or one.ndim not in (2, 3) or min(one.shape[:2]) < _WINDOW:
        raise DataError(
            f"SSIM of {one.shape} and {other.shape}: give two pictures (H, W) or (H, W, K) of one size, {_WINDOW} "
            "pixels or more"
        )
    if not data_range > 0:
        raise DataError(f"SSIM with data_range {data_range}: give the range that pixels can have, above 0")
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise DataError("SSIM: a picture holds NaN or infinity")
    value = structural_similarity(
        one,
        other,
        data_range=data_range,
        gaussian_weights=True,
        sigma=_SIGMA,
        use_sample_covariance=False,
        channel_axis=None if one.ndim == 2 else -1,
    )
    return float(value)


def kid(
    real: ArrayLike, drawn: ArrayLike, subsets: int = 100, subset_size: int | None = None, seed: int = 0
) -> tuple[float, float]:
    """Kernel Inception Distance (Binkowski, Sutherland, Arbel, Gretton, ICLR 2018), of whatever features are given.

    The unbiased estimate of the squared maximum mean discrepancy with the kernel (x.y / D + 1)^3, over subsets drawn
    without replacement. About 0, and as often below, for two samples of one distribution. Values compare between equal
    features alone: with features other than Inception's they are no published KID.

    Args:
        real: Features (N, D), N >= 2.
        drawn: Features (M, D), M >= 2.
        subsets: Above 0.
        subset_size: Of each of both, 2..min(N, M); by default min(1000, N, M). Where that is N and M, every subset is
            the whole, and the deviation 0.
        seed: Of the subsets.

    Returns:
        Mean and standard deviation over the subsets; the deviation is that between subsets, not the doubt of the mean.

    Raises:
        DataError: Features that do not fit, are too few or no numbers, subsets out of range.
    """
    one, other = _features("real", real), _features("drawn", drawn)
    most = min(len(one), len(other))
    size = min(1000, most) if subset_size is None else subset_size
    if one.shape[1] != other.shape[1]:
        raise DataError(f"KID of features {one.shape} and {other.shape}: give as many to each picture")
    if not 2 <= size <= most or subsets < 1:
        raise DataError(
            f"KID over {subsets} subsets of {size} of {len(one)} and {len(other)} pictures: give a subset 2 or more, "
            "and not more than there are pictures"
        )
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(subsets):
        rows, columns = (rng.choice(len(part), size, replace=False) for part in (one, other))
        values.append(_mmd(one[rows], other[columns]))
    return float(np.mean(values)), float(np.std(values))


def nearest(drawn: ArrayLike, real: ArrayLike) -> tuple[IntArray, FloatArray]:
    """The most similar real picture of each drawn one, by the root of the mean squared difference.

    Args:
        drawn: (M, D); D numbers of each, pixels or features. Nothing is copied as a whole: memory-mapped arrays may be
            larger than memory.
        real: (N, D), N >= 1.

    Returns:
        Index into `real` (M,), and distance (M,) in units of the numbers; 0 for a copy.

    Raises:
        DataError: Shapes that do not fit, values that are no numbers.
    """
    return _nearest(np.asarray(drawn), np.asarray(real), None, None)


class Memorised(NamedTuple):
    """What `memorised` finds of M drawn pictures."""

    #: Nearest real picture (M,), and its distance (M,).
    neighbour: IntArray
    distance: FloatArray
    #: Distance by the baseline's median (M,): 1 for a picture as new as a new patient's, 0 for a copy.
    ratio: FloatArray
    #: At `threshold` or below (M,).
    flagged: NDArray[np.bool_]
    #: Of each real picture (N,), the distance to the nearest one of another patient.
    baseline: FloatArray
    #: The distance up to which a drawn picture counts as a copy.
    threshold: float


def memorised(
    drawn: ArrayLike, real: ArrayLike, groups_real: Sequence[str | None], quantile: float = _QUANTILE
) -> Memorised:
    """Whether drawn pictures are copies: nearer to a real one than real pictures of different patients to each other.

    The baseline is the distance of each real picture to its nearest of another patient. The threshold is its k-th
    smallest value, k = max(1, floor(quantile * N)): never below the smallest, so that copies are found with few
    pictures too. The price is bounded: pictures of new patients, of the same kind as the real ones, are flagged at a
    rate of about (k + 1) / (P + 1), with P patients and k = max(1, floor(quantile * P)): 1.1 % of them with 1000
    patients, 2 % with 100, 7 % with 27. A picture without a flag may still show a patient's shapes, in what the
    features do not see.

    A picture that was drawn for a real label map shares its shapes, and may lie nearer to the real picture of that map
    than a new patient's would: look at what is flagged, beside its neighbour.

    Args:
        drawn: Features or pixels (M, D).
        real: Those of the pictures that were trained on (N, D).
        groups_real: Patient of each of them; those of unknown patient (None) count as of one.
        quantile: In 0..1.

    Raises:
        DataError: Shapes that do not fit, all real pictures of one patient, a quantile out of range.
    """
    new, known = np.asarray(drawn), np.asarray(real)
    if len(groups_real) != len(known):
        raise DataError(f"{len(groups_real)} patients for {len(known)} real pictures: give one for each")
    if not 0 <= quantile <= 1:
        raise DataError(f"copies below the quantile {quantile} of the baseline: give 0..1")
    number = {name: index for index, name in enumerate(dict.fromkeys(groups_real))}
    if len(number) < 2:
        raise DataError(
            "the real pictures are of one patient, or of unknown patients: how near those of different patients lie "
            "to each other is not known, and without it no copy can be told; give two patients or more"
        )
    groups = np.array([number[name] for name in groups_real], np.int64)
    _, baseline = _nearest(known, known, groups, groups)
    neighbour, distance = _nearest(new, known, None, None)
    threshold = float(np.sort(baseline)[max(1, int(quantile * len(known))) - 1])
    middle = float(np.median(baseline))
    ratio = np.divide(distance, middle, out=np.full_like(distance, np.nan), where=middle > 0)
    return Memorised(neighbour, distance, ratio, distance <= threshold, baseline, threshold)


def shrink(pictures: ArrayLike, side: int) -> NDArray[np.float32]:
    """Features where no network is at hand: pictures made small, each number the mean over its share of the area.

    Args:
        pictures: (N, H, W) or (N, H, W, K), of any type of number.
        side: Pixels of the small picture, in both directions; H and W need not be its multiples.

    Returns:
        float32 (N, side * side * K), in the pictures' units.

    Raises:
        DataError: Another shape, or pictures smaller than `side`.
    """
    whole = np.asarray(pictures)
    if whole.ndim not in (3, 4) or not 1 <= side <= min(whole.shape[1:3]):
        raise DataError(f"pictures {whole.shape} to {side} pixels: give (N, H, W) or (N, H, W, K), not below that size")
    rows, columns = (_area_weights(length, side) for length in whole.shape[1:3])
    small = np.empty((len(whole), side * side * (whole.shape[3] if whole.ndim == 4 else 1)), np.float32)
    for index, picture in enumerate(whole):  # one at a time: memory holds the small ones alone
        small[index] = np.einsum("ih,hw...,jw->ij...", rows, picture, columns, optimize=True).reshape(-1)
    return small


def _area_weights(length: int, side: int) -> FloatArray:
    """(side, length): share of each pixel in each of `side` equal parts of a line; rows sum to 1."""
    edges = np.linspace(0, length, side + 1)
    pixels = np.arange(length)
    share = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return share.clip(0) * side / length


def _features(name: str, values: ArrayLike) -> FloatArray:
    found = np.asarray(values, np.float64)
    if found.ndim != 2 or len(found) < 2:
        raise DataError(f"KID: {name} features {found.shape}; give (N, D) of two pictures or more")
    if not np.isfinite(found).all():
        raise DataError(f"KID: {name} features hold NaN or infinity")
    return found


def _mmd(one: FloatArray, other: FloatArray) -> float:
    """Unbiased squared maximum mean discrepancy of (n, D) and (n, D); equation 4 of the paper."""
    n, dimension = one.shape

    def kernel(x: FloatArray, y: FloatArray) -> FloatArray:
        return np.asarray((x @ y.T / dimension + 1) ** 3)  # (n, n)

    within = sum(float(k.sum() - np.trace(k)) for k in (kernel(one, one), kernel(other, other)))
    return within / (n * (n - 1)) - 2 * float(kernel(one, other).mean())


def _nearest(
    drawn: np.ndarray, real: np.ndarray, groups_drawn: IntArray | None, groups_real: IntArray | None
) -> tuple[IntArray, FloatArray]:
    """As `nearest`; with groups, among the real pictures of another group."""
    if drawn.ndim != 2 or real.ndim != 2 or drawn.shape[1] != real.shape[1] or not real.size:
        raise DataError(f"nearest of {real.shape} to each of {drawn.shape}: give (N, D) and (M, D)")
    step = max(1, min(2000, _BLOCK // real.shape[1]))
    # About the middle of the real ones squares are small, and their difference exact enough to choose by.
    middle = np.zeros(real.shape[1])
    for first in range(0, len(real), step):
        middle += real[first : first + step].sum(axis=0, dtype=np.float64) / len(real)
    if not np.isfinite(middle).all():
        raise DataError("nearest: real pictures hold NaN or infinity")
    index, square = np.zeros(len(drawn), np.int64), np.full(len(drawn), np.inf)
    for first in range(0, len(drawn), step):
        own = slice(first, first + step)
        ours = drawn[own] - middle  # float64
        for start in range(0, len(real), step):
            theirs = real[start : start + step] - middle
            squares = (theirs**2).sum(axis=1) - 2 * ours @ theirs.T  # less the square of ours, alike for all
            if groups_drawn is not None and groups_real is not None:
                squares[groups_drawn[own, None] == groups_real[None, start : start + step]] = np.inf
            best = squares.argmin(axis=1)
            values = squares[np.arange(len(ours)), best]
            nearer = values < square[own]
            index[own] = np.where(nearer, start + best, index[own])
            square[own] = np.where(nearer, values, square[own])
    # Of the chosen pair the difference itself: 0 for a copy.
    distance = np.empty(len(drawn))
    for first in range(0, len(drawn), step):
        own = slice(first, first + step)
        distance[own] = np.sqrt(((drawn[own].astype(np.float64) - real[index[own]]) ** 2).mean(axis=1))
    if not np.isfinite(distance).all():
        raise DataError("nearest: drawn pictures hold NaN or infinity")
    return index, distance
