"""Stain normalisation with one fit per slide: that of Macenko et al. 2009 and that of Reinhard et al. 2001.

A fit takes some 10 ms and is made once; `StainTransform` then maps tiles by a look-up table, 3x3 matrices and an
exponential. Nothing is fitted per tile: tiles of one slide keep their differences, and a tile without stain is safe.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
UInt8 = npt.NDArray[np.uint8]

#: Macenko et al. 2009: pixels below the first (length of the optical density, log10) are glass; the extremes of angle
#: are the first and last percentile, the largest amount of a stain is the 99th.
_GLASS_DENSITY, _PERCENTILE = 0.15, 1.0
#: Fewer tissue pixels describe no stain; of a picture, more than these change nothing.
_FEWEST, _FIT_PIXELS = 100, 200_000
#: Two stains whose vectors enclose less (radians, about 3 degrees) are one, in two amounts.
_LEAST_ANGLE = 0.05
#: RGB to the cones' responses, and their logarithms to l, alpha, beta: Reinhard et al. 2001, equations 4 and 6.
_CONES = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
_OPPONENTS = np.diag([3**-0.5, 6**-0.5, 2**-0.5]) @ np.array([[1.0, 1, 1], [1, 1, -2], [1, -1, 0]])
#: Parameters of each method, with their shapes.
_SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "macenko": {"stains": (2, 3), "maxima": (2,)},
    "reinhard": {"mean": (3,), "std": (3,)},
}
METHODS: tuple[str, ...] = tuple(_SHAPES)

#: Grey value 0 counts as 1: its logarithm is finite, and the round trip stays within one grey level.
_VALUES = np.maximum(np.arange(256), 1).astype(np.float32)
_DENSITY = -np.log(_VALUES / np.float32(255))
#: Glass is at least as bright as the first, tissue at most as bright as the second; how much tissue each grey value is.
_GLASS_GREY, _TISSUE_GREY = 240, 220
_TISSUE = np.clip((_GLASS_GREY - np.arange(256)) / (_GLASS_GREY - _TISSUE_GREY), 0, 1).astype(np.float32)
_GLASS = 1 - _TISSUE
_CONES32, _FROM_CONES32 = _CONES.astype(np.float32), np.linalg.inv(_CONES).astype(np.float32)
#: Pixels worked on at once: what lies between the steps then stays in the processor's cache.
_STRIP = 1 << 15


@dataclass(frozen=True)
class StainFit:
    """How a slide, or the images of a training, are stained; `to_block` gives the form that model.json holds.

    Args:
        method: One of `METHODS`.
        parameters: macenko: `stains` (2, 3), rows haematoxylin-like and eosin-like, absorption over (R, G, B) of
            length 1; `maxima` (2,), the 99th percentile of each stain's amount in optical density (log10). reinhard:
            `mean` and `std` (3,) of l, alpha, beta (log10 of cone responses to 0..255).
        reason: Why nothing could be fitted; `parameters` are empty then, and transforms from or to it do nothing.

    Raises:
        ValueError: Unknown method, or parameters that are missing, too many, of another shape or out of range.
    """

    method: str
    parameters: Mapping[str, Any]
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.method not in _SHAPES:
            raise ValueError(f"stain method {self.method!r} is not one of {', '.join(METHODS)}")
        shapes = {} if self.reason else _SHAPES[self.method]
        if set(self.parameters) != set(shapes):
            raise ValueError(f"a {self.method} fit holds {', '.join(shapes)}, not {', '.join(self.parameters) or '-'}")
        arrays = {name: np.asarray(self.parameters[name], np.float64) for name in shapes}
        for name, array in arrays.items():
            if array.shape != shapes[name] or not np.isfinite(array).all():
                raise ValueError(f"{self.method}: {name} must be {shapes[name]} finite numbers")
        for name in {"maxima", "std"} & set(arrays):
            if not (arrays[name] > 0).all():
                raise ValueError(f"{self.method}: {name} must be above 0")
        if "stains" in arrays and _angle(arrays["stains"]) < _LEAST_ANGLE / 2:
            raise ValueError(f"{self.method}: the two stains are one")
        # Tuples, whatever was given: equal fits compare equal, and JSON takes them.
        object.__setattr__(self, "parameters", {name: _tuples(array) for name, array in arrays.items()})

    def to_block(self) -> dict[str, Any]:
        """{"method", "parameters"} as in model.json; `StainFit(**block)` is the way back.

        Raises:
            ValueError: Nothing was fitted.
        """
        if self.reason:
            raise ValueError(f"no {self.method} fit to keep: {self.reason}")
        return {"method": self.method, "parameters": dict(self.parameters)}


def fit_macenko(pixels: UInt8) -> StainFit:
    """The two stains and how strong they are, by the method of Macenko et al. 2009.

    The optical densities' two main directions span a plane through the origin; the stains are its extreme directions.
    White is taken as 255. A pixel is glass where the length of its optical density is below 0.15.

    Args:
        pixels: (n, 3) RGB uint8, of tissue; glass among them is left out.

    Returns:
        A fit; one with a `reason` where fewer than 100 pixels are stained, or all by one stain.

    Source: M. Macenko et al., "A method for normalizing histology slides for quantitative analysis", ISBI 2009.
    """
    pixels = np.asarray(pixels, np.uint8).reshape(-1, 3)
    density = _DENSITY[pixels[is_stained(pixels)]].astype(np.float64) / math.log(10)
    if len(density) < _FEWEST:
        return void_fit("macenko", f"only {len(density)} stained pixels")
    plane = np.linalg.eigh(density.T @ density)[1][:, [2, 1]]  # (3, 2): the first two right singular vectors
    plane *= np.where(plane.sum(axis=0) < 0, -1, 1)  # the first points to where the densities are, so no angle wraps
    angles = np.arctan2(density @ plane[:, 1], density @ plane[:, 0])
    extremes = np.percentile(angles, [_PERCENTILE, 100 - _PERCENTILE])
    stains = np.stack([np.cos(extremes), np.sin(extremes)], axis=1) @ plane.T  # (2, 3)
    if _angle(stains) < _LEAST_ANGLE:
        return void_fit("macenko", "all pixels hold one stain, in different amounts")
    stains = stains[np.argsort(-stains[:, 0])]  # haematoxylin absorbs more red than eosin, DAB or PAS's magenta
    amounts = density @ np.linalg.pinv(stains)
    maxima = np.percentile(amounts, 100 - _PERCENTILE, axis=0)
    if not (maxima > 0).all():
        return void_fit("macenko", "one of the two stains is nowhere")
    return StainFit("macenko", {"stains": stains, "maxima": maxima})


def fit_reinhard(pixels: UInt8) -> StainFit:
    """Mean and standard deviation of l, alpha, beta over the stained pixels, by the method of Reinhard et al. 2001.

    Args:
        pixels: (n, 3) RGB uint8, of tissue; glass (as in `fit_macenko`) is left out.

    Returns:
        A fit; one with a `reason` where fewer than 100 pixels are stained, or all have one colour.

    Source: E. Reinhard et al., "Color transfer between images", IEEE Computer Graphics and Applications 21(5), 2001.
    """
    pixels = np.asarray(pixels, np.uint8).reshape(-1, 3)
    stained = pixels[is_stained(pixels)]
    if len(stained) < _FEWEST:
        return void_fit("reinhard", f"only {len(stained)} stained pixels")
    lab = np.log10(_VALUES[stained].astype(np.float64) @ _CONES.T) @ _OPPONENTS.T
    std = lab.std(axis=0)
    if not (std > 1e-4).all():
        return void_fit("reinhard", "all pixels have one colour")
    return StainFit("reinhard", {"mean": lab.mean(axis=0), "std": std})


FITS = {"macenko": fit_macenko, "reinhard": fit_reinhard}


class StainTransform:
    """Turns pictures stained as `source` into such stained as `target`, without any further fitting.

    Macenko: amounts of the two stains are scaled by the ratio of their maxima and laid on the target's vectors; what
    the two do not explain (the part across their plane: ink, pigment) is kept, so that a transform to itself changes
    nothing. All that is linear in optical density: a look-up table, one 3x3 matrix, an exponential.

    Reinhard: mean and standard deviation of l, alpha, beta become the target's. Their logarithm is of cone responses,
    not of red, green and blue, so it takes more: matrix, logarithm, matrix and shift, exponential, matrix.

    Either fades out between the grey values 220 and 240, so that glass stays exactly as it is: a strong gain, or
    Reinhard's shift, would tint it.

    Args:
        source: Fit of the pictures.
        target: Fit of the same method.

    Attributes:
        reason: Why nothing is done (a fit that says so itself), or None.

    Raises:
        ValueError: Two methods.
    """

    def __init__(self, source: StainFit, target: StainFit) -> None:
        if source.method != target.method:
            raise ValueError(f"a {source.method} fit is not turned into a {target.method} fit")
        self.source, self.target = source, target
        self.reason = source.reason or target.reason
        if self.reason:
            return
        if source.method == "macenko":
            # exp takes the negative density.
            self._matrix = -_macenko_matrix(source.parameters, target.parameters).astype(np.float32)
        else:
            matrix, shift = _reinhard_matrix(source.parameters, target.parameters)
            self._matrix = np.column_stack([matrix, shift]).astype(np.float32)

    def apply(self, rgb: UInt8) -> UInt8:
        """A transformed copy of RGB uint8 pictures (..., 3)."""
        rgb = np.ascontiguousarray(rgb)
        if rgb.dtype != np.uint8 or rgb.shape[-1:] != (3,):
            raise ValueError(f"takes RGB uint8 (..., 3), not {rgb.dtype} {rgb.shape}")
        if self.reason or not rgb.size:
            return rgb.copy()
        out = np.empty_like(rgb)
        change = self._in_density if self.source.method == "macenko" else self._in_opponents
        pixels, results = rgb.reshape(1, -1, 3), out.reshape(1, -1, 3)
        for start in range(0, pixels.shape[1], _STRIP):
            strip = pixels[:, start : start + _STRIP]
            grey = cv2.cvtColor(strip, cv2.COLOR_RGB2GRAY)
            changed: Any = strip if grey.min() >= _GLASS_GREY else change(strip)
            if grey.max() > _TISSUE_GREY:
                changed = cv2.blendLinear(changed, strip, cv2.LUT(grey, _TISSUE), cv2.LUT(grey, _GLASS))
            results[:, start : start + _STRIP] = changed
        return out

    def _in_density(self, rgb: UInt8) -> UInt8:
        density = cv2.transform(cv2.LUT(rgb, _DENSITY), self._matrix)
        light = cv2.exp(density, dst=density)
        return np.asarray(cv2.convertScaleAbs(light, alpha=255.0), np.uint8)

    def _in_opponents(self, rgb: UInt8) -> UInt8:
        cones = cv2.transform(cv2.LUT(rgb, _VALUES), _CONES32)
        logs = cv2.transform(cv2.log(cones, dst=cones), self._matrix)
        light = cv2.transform(cv2.exp(logs, dst=logs), _FROM_CONES32)
        # convertScaleAbs would turn a negative value positive
        return np.asarray(cv2.convertScaleAbs(np.maximum(light, 0, out=light)), np.uint8)


def normalize_picture(rgb: UInt8, target: StainFit) -> tuple[UInt8, str | None]:
    """A picture that stands for itself (a micrograph, no tile of a slide), stained as `target` by a fit of its own.

    Args:
        rgb: (H, W, 3) uint8.
        target: The stain that it is to have.

    Returns:
        The picture, and why it was left as it is, or None. The fit uses at most 200,000 pixels, evenly spaced.
    """
    pixels = rgb.reshape(-1, 3)
    transform = StainTransform(FITS[target.method](pixels[:: -(-len(pixels) // _FIT_PIXELS) or 1]), target)
    return transform.apply(rgb), transform.reason


def _macenko_matrix(source: Mapping[str, Any], target: Mapping[str, Any]) -> Float64:
    """(3, 3): the target's optical density from the source's, as columns."""
    from_stains, to_stains = (_with_normal(np.asarray(fit["stains"])) for fit in (source, target))
    gains = np.append(np.asarray(target["maxima"]) / np.asarray(source["maxima"]), 1.0)
    return np.asarray(to_stains.T @ np.diag(gains) @ np.linalg.inv(from_stains.T))


def _with_normal(stains: Float64) -> Float64:
    """(3, 3): the two stains and the direction across both."""
    normal = np.cross(stains[0], stains[1])
    return np.vstack([stains, normal / np.linalg.norm(normal)])


def _reinhard_matrix(source: Mapping[str, Any], target: Mapping[str, Any]) -> tuple[Float64, Float64]:
    """Matrix (3, 3) and shift (3,) between natural logarithms of cone responses."""
    ratio = np.diag(np.asarray(target["std"]) / np.asarray(source["std"]))
    back = np.linalg.inv(_OPPONENTS)
    shift = np.asarray(target["mean"]) - ratio @ np.asarray(source["mean"])
    return back @ ratio @ _OPPONENTS, back @ shift * math.log(10)


def is_stained(pixels: UInt8) -> npt.NDArray[np.bool_]:
    """(n,) True where one of the (n, 3) pixels is not glass."""
    density = np.linalg.norm(_DENSITY[pixels].astype(np.float64), axis=-1)
    return np.asarray(density >= _GLASS_DENSITY * math.log(10))


def _angle(stains: Float64) -> float:
    """Between the two stains, in radians; 0 where one has no length."""
    lengths = np.linalg.norm(stains, axis=1)
    if not lengths.all():
        return 0.0
    cosine = float(stains[0] @ stains[1] / lengths.prod())
    return math.acos(min(1.0, max(-1.0, cosine)))


def _tuples(array: Float64) -> tuple[Any, ...]:
    return tuple(_tuples(row) for row in array) if array.ndim > 1 else tuple(float(value) for value in array)


def void_fit(method: str, reason: str) -> StainFit:
    """A fit that says why there is none."""
    return StainFit(method, {}, reason)
