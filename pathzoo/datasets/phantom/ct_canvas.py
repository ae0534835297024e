"""A volume that organs are painted into: millimetres in, Hounsfield units out."""

import itertools
from collections.abc import Sequence

import numpy as np
from scipy.interpolate import BSpline
from scipy.spatial.transform import Rotation

Box = tuple[slice, slice, slice]
Point = tuple[float, float, float]

AIR = -1000.0
#: Cubic B-spline over the knots 0..4, and the standard deviation that it leaves of white noise along one axis.
_SPLINE, _SPREAD = BSpline.basis_element(np.arange(5), extrapolate=False), np.sqrt(151 / 315)
_MOST_WARP = 9.0  # mm, beyond which the bending of space is cut off


class CtCanvas:
    """Hounsfield units and labels of one drawn patient.

    Space is bent by smooth noise before anything is painted, the same for all organs, so that none is a plain
    ellipsoid and neighbours stay neighbours in each slice and from slice to slice.

    Args:
        rng: source of the draws.
        shape: slices, rows and columns (S, H, W).
        spacing: millimetres from voxel to voxel along each, (z, y, x).
        bend: standard deviation of the bending in millimetres.

    Attributes:
        hu: float32 (S, H, W), air at first.
        labels: uint8 (S, H, W), 0 at first.
        x, y, z: bent coordinates in millimetres, float32 (S, H, W): x to the patient's left, y to the back, z to the
            head; 0 in the middle of the volume.
    """

    def __init__(
        self, rng: np.random.Generator, shape: tuple[int, int, int], spacing: tuple[float, float, float], bend: float
    ):
        self.shape, self.spacing = shape, spacing
        self.axes = tuple(
            ((np.arange(n) - (n - 1) / 2) * step).astype(np.float32) for n, step in zip(shape, spacing, strict=True)
        )
        self.hu = np.full(shape, AIR, np.float32)
        self.labels = np.zeros(shape, np.uint8)
        z, y, x = np.meshgrid(*self.axes, indexing="ij", sparse=True)
        bent = []
        for axis, strength in ((z, 0.6), (y, 1.0), (x, 1.0)):
            field = self.noise(rng, 45.0) * np.float32(bend * strength)
            field += self.noise(rng, 18.0) * np.float32(0.3 * bend * strength)
            bent.append(axis + np.clip(field, -_MOST_WARP, _MOST_WARP))
        self.z, self.y, self.x = bent

    def noise(self, rng: np.random.Generator, scale: float, box: Box | None = None) -> np.ndarray:
        """Smooth Gaussian noise over all voxels or a box's, float32, blobs about `scale` mm wide, spread about 1."""
        weights = []
        for axis in self.axes if box is None else (axis[part] for axis, part in zip(self.axes, box, strict=True)):
            if not len(axis):
                return np.zeros([part.stop - part.start for part in box or ()], np.float32)
            where = (axis - axis[0]) / scale + rng.uniform()
            knots = np.arange(int(where[-1]) + 4)
            weights.append((np.nan_to_num(_SPLINE(where[:, None] - knots + 3)) / _SPREAD).astype(np.float32))
        down, back, across = weights
        grid = rng.standard_normal([each.shape[1] for each in weights], dtype=np.float32)
        return np.matmul(back, np.tensordot(down, grid @ across.T, 1))

    def box(self, centre: Point, reach: float | Sequence[float]) -> Box:
        """The voxels within `reach` mm of `centre` (x, y, z), along each axis (x, y, z) or along all alike."""
        away = np.broadcast_to(np.asarray(reach, float), 3) + _MOST_WARP + 2 * max(self.spacing[1:])
        sides = []
        for axis, middle, half in zip(self.axes, centre[::-1], away[::-1], strict=True):
            first, last = np.searchsorted(axis, [middle - half, middle + half])
            sides.append(slice(int(first), int(last)))
        return sides[0], sides[1], sides[2]

    def local(self, box: Box, centre: Point, turn: Rotation | None = None) -> np.ndarray:
        """Coordinates (3, ...) of a box's voxels from `centre`, in the axes of a body that was turned by `turn`."""
        away = np.stack([self.x[box] - centre[0], self.y[box] - centre[1], self.z[box] - centre[2]]).astype(np.float32)
        if turn is None:
            return away
        return np.tensordot(turn.inv().as_matrix().astype(np.float32), away, 1)

    def ellipsoid(self, centre: Point, radii: Point, turn: Rotation | None = None) -> tuple[Box, np.ndarray]:
        """The box around an ellipsoid and, for its voxels, how deep they lie in it in mm (negative outside)."""
        box = self.box(centre, radii if turn is None else max(radii))
        return box, depth(self.local(box, centre, turn), radii)

    def tube(self, points: Sequence[Point], radius: float) -> tuple[Box, np.ndarray]:
        """As `ellipsoid`, of a tube along the line through `points`."""
        corners = np.asarray(points, float)
        low, high = corners.min(axis=0), corners.max(axis=0)
        middle = (low + high) / 2
        box = self.box((middle[0], middle[1], middle[2]), (high - low) / 2 + radius)
        nearest = np.full(self.x[box].shape, np.inf, np.float32)
        for start, end in itertools.pairwise(corners):
            away, line = self.local(box, tuple(start)), (end - start).astype(np.float32)
            along = np.clip(np.tensordot(line, away, 1) / max(float(line @ line), 1e-6), 0, 1)
            np.minimum(nearest, np.linalg.norm(away - line[:, None, None, None] * along, axis=0), out=nearest)
        return box, radius - nearest

    def cover(self, inside: np.ndarray) -> np.ndarray:
        """Share 0..1 of a voxel that is covered, from the depth in mm: edges are as soft as a pixel is wide."""
        return np.clip(inside / np.float32(1.2 * self.spacing[2]) + np.float32(0.5), 0, 1)

    def paint(
        self,
        box: Box,
        inside: np.ndarray,
        hu: float | np.ndarray,
        label: int | None = None,
        within: np.ndarray | None = None,
    ) -> None:
        """Paints `hu` where `inside` (depth in mm, of the box's voxels) is positive, and the label where over half.

        `within` is a share 0..1 of all voxels (S, H, W) that painting is limited to.
        """
        share = self.cover(inside)
        if within is not None:
            share = share * within[box]
        self.hu[box] += share * (hu - self.hu[box])
        if label is not None:
            self.labels[box][share > 0.5] = label


def depth(away: np.ndarray, radii: Sequence[float]) -> np.ndarray:
    """Depth in mm under an ellipsoid's surface, negative outside: exact near the surface, to first order.

    Args:
        away: coordinates (n, ...) from its centre along its axes.
        radii: n of them.

    Returns:
        float32 (...).
    """
    scale = np.asarray(radii, np.float32).reshape(-1, *[1] * (away.ndim - 1))
    steep = np.linalg.norm(away / scale**2, axis=0)
    return (1 - np.sum((away / scale) ** 2, axis=0)) / np.maximum(2 * steep, 1 / min(radii))


def scanner_noise(rng: np.random.Generator, shape: tuple[int, int, int], sharpness: float) -> np.ndarray:
    """Noise as filtered back-projection leaves it, float32 (S, H, W) of spread 1, independent from slice to slice.

    Its power rises with the frequency, as the ramp filter's does, and falls again by the kernel's cut-off.

    Args:
        rng: source of the draws.
        shape: slices, rows, columns.
        sharpness: cut-off in cycles per pixel: 0.12 is a soft kernel, 0.3 a sharp one.
    """
    _, H, W = shape
    frequency = np.hypot(np.fft.fftfreq(H)[:, None], np.fft.rfftfreq(W)[None])
    response = np.sqrt(frequency) * np.exp(-((frequency / sharpness) ** 2))
    spectrum = np.fft.rfft2(rng.standard_normal(shape, dtype=np.float32)) * response
    noise = np.fft.irfft2(spectrum, s=(H, W))
    return (noise / noise.std()).astype(np.float32)
