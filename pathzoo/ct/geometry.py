"""Where the voxels of a volume lie, and how slices come to one pixel spacing and one size."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from pathzoo.ct.volume import AIR
from pathzoo.errors import ConfigError, DataError

#: Slices rise to the head, rows run to the back, columns to the patient's left: what radiologists look at.
_DISPLAY = ("S", "P", "L")
#: Two grids are one where no corner is further apart than this part of a voxel.
_SAME = 0.1
#: Oblique volumes beyond this angle, in degrees, are told of.
_TILT = 10.0


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels of a volume lie in display orientation.

    Attributes:
        shape: (S, H, W).
        affine: float (4, 4), (slice, row, column, 1) -> x to the patient's left-to-right, y to the front, z to the
            head, in mm: NIfTI's RAS+.
        steps: nibabel's orientation transform from the stored array to the display's axes.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    steps: np.ndarray

    @property
    def spacing(self) -> tuple[float, float, float]:
        """(z, y, x) in mm."""
        z, y, x = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(z), float(y), float(x)

    @property
    def positions(self) -> tuple[float, ...]:
        """Height z of each slice's centre in mm."""
        row, column = (self.shape[1] - 1) / 2, (self.shape[2] - 1) / 2
        base = self.affine[2, 1] * row + self.affine[2, 2] * column + self.affine[2, 3]
        return tuple(float(base + self.affine[2, 0] * number) for number in range(self.shape[0]))

    @property
    def tilt(self) -> float:
        """The largest angle, in degrees, between an axis of the volume and the body's axis it is taken for."""
        directions = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        along = np.abs([directions[2, 0], directions[1, 1], directions[0, 2]])
        return float(np.degrees(np.arccos(np.clip(along, 0, 1))).max())

    def arrange(self, array: np.ndarray) -> np.ndarray:
        """The stored array (three axes) in display orientation, in C order: KiTS19's files hold a slice in pieces."""
        from nibabel.orientations import apply_orientation

        return np.ascontiguousarray(apply_orientation(array, self.steps))

    def notes(self) -> tuple[str, ...]:
        """What to say of how it lies."""
        if self.tilt <= _TILT:
            return ()
        return (f"lies {self.tilt:.0f} degrees off the body's axes; its slices are taken as the nearest axial ones",)


def display_grid(shape: tuple[int, ...], affine: np.ndarray, where: str) -> Grid:
    """How an array has to be turned and flipped, and where its voxels lie then.

    Args:
        shape: of the stored array, three axes.
        affine: float (4, 4), indices of the stored array -> RAS+ mm.
        where: the file, for messages.

    Raises:
        DataError: an affine that is no invertible map.
    """
    from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

    affine = np.asarray(affine, float)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise DataError(f"{where}: its affine {affine[:3].tolist()} maps no volume: export it with a valid one")
    steps = ornt_transform(io_orientation(affine), axcodes2ornt(_DISPLAY))
    turned = affine @ inv_ornt_aff(steps, shape)
    sizes = [0, 0, 0]
    for axis, (target, _) in enumerate(steps):
        sizes[int(target)] = int(shape[axis])
    return Grid((sizes[0], sizes[1], sizes[2]), turned, steps)


def grid_difference(image: Grid, label: Grid) -> str | None:
    """In what the grids of an image and of its labels differ, None where they are one."""
    if image.shape != label.shape:
        return f"the image has {_sizes(image)} slices x rows x columns, the labels {_sizes(label)}"
    ends = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], float)
    corners = ends * [*(size - 1 for size in image.shape), 1]
    apart = np.linalg.norm((image.affine - label.affine)[:3] @ corners.T, axis=0).max()
    if apart > _SAME * min(image.spacing):
        return f"the affines of image and labels place the same voxels up to {apart:.3g} mm apart"
    return None


class Frame(NamedTuple):
    """How the slices of a store are framed.

    Attributes:
        size: (width, height) in pixels.
        pixel_spacing: mm per pixel that slices are resampled to first; None to leave them.
        resize: scale the whole field to `size`, in place of cropping or padding.
        fill: HU of what lies outside the field: air, or the lowest value that the source knows.
    """

    size: tuple[int, int]
    pixel_spacing: float | None = None
    resize: bool = False
    fill: int = AIR

    def hu(self, plane: np.ndarray, spacing: tuple[float, float] | None) -> np.ndarray:
        """HU int16 (H, W) of a slice, with (row, column) mm per pixel, framed: int16 of `size`."""
        for width, height in self._scalings(plane.shape, spacing):
            plane = resample_hu(plane, (width, height))
        return centred(plane, self.size, self.fill)

    def label(self, plane: np.ndarray, spacing: tuple[float, float] | None) -> np.ndarray:
        """Its label, uint8 (H, W), framed alike: uint8 of `size`."""
        for width, height in self._scalings(plane.shape, spacing):
            plane = cv2.resize(np.ascontiguousarray(plane), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        return centred(plane, self.size, 0)

    def stored_spacing(self, shape: tuple[int, ...], spacing: tuple[float, float] | None) -> tuple[float, float] | None:
        """(row, column) mm per stored pixel of a slice of shape (H, W); None where not known."""
        if spacing is None:
            return None
        scalings = self._scalings(shape, spacing)
        if not scalings:
            return spacing
        width, height = scalings[-1]
        return spacing[0] * shape[0] / height, spacing[1] * shape[1] / width

    def _scalings(self, shape: tuple[int, ...], spacing: tuple[float, float] | None) -> list[tuple[int, int]]:
        """The size, (width, height), that a slice is scaled to: in one step, or none."""
        target = self.size if self.resize else scaled_size(shape, spacing, self.pixel_spacing)
        return [] if target == (shape[1], shape[0]) else [target]


def scaled_size(
    shape: tuple[int, ...], spacing: tuple[float, float] | None, pixel_spacing: float | None
) -> tuple[int, int]:
    """(width, height) that a slice of shape (H, W) has at `pixel_spacing`; its own where that is None.

    Raises:
        ConfigError: its spacing is not known.
    """
    height, width = shape
    if pixel_spacing is None:
        return width, height
    if spacing is None:
        raise ConfigError("--pixel-spacing: a source states no spacing: give it by --spacing Z Y X")
    ratios = spacing[0] / pixel_spacing, spacing[1] / pixel_spacing
    return max(1, math.floor(width * ratios[1] + 0.5)), max(1, math.floor(height * ratios[0] + 0.5))


def resample_hu(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """HU int16 (H, W) scaled to `size` (width, height): the mean of an area where it shrinks, linear where it grows."""
    shrinks = size[0] <= plane.shape[1] and size[1] <= plane.shape[0]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    scaled = cv2.resize(np.ascontiguousarray(plane, np.float32), size, interpolation=how)
    return np.rint(scaled).astype(np.int16)


def centred(plane: np.ndarray, size: tuple[int, int], fill: int) -> np.ndarray:
    """A plane (H, W) cropped around its centre, or padded with `fill`, to `size` (width, height)."""
    if plane.shape == (size[1], size[0]):
        return np.ascontiguousarray(plane)
    framed = np.full((size[1], size[0]), fill, plane.dtype)
    (from_y, to_y, height), (from_x, to_x, width) = (
        (max(0, (have - want) // 2), max(0, (want - have) // 2), min(have, want))
        for have, want in zip(plane.shape, framed.shape, strict=True)
    )
    framed[to_y : to_y + height, to_x : to_x + width] = plane[from_y : from_y + height, from_x : from_x + width]
    return framed


def _sizes(grid: Grid) -> str:
    return " x ".join(map(str, grid.shape))
