"""Case folders of NIfTI volumes, as KiTS19 has them: imaging.nii.gz and segmentation.nii.gz. Takes nibabel."""

import gzip
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from pathzoo.ct.geometry import Grid, display_grid, grid_difference
from pathzoo.ct.volume import AIR, ReadOptions, Volume, refuse_unlike_ct, to_hu
from pathzoo.errors import ConfigError, DataError

#: Units of a head (NIFTI_UNITS_METER, NIFTI_UNITS_MICRON) -> mm; unknown ones are mm, as everywhere.
_TO_MM = {1: 1e3, 3: 1e-3}
#: What reading a damaged file raises, in its parts.
_DAMAGE = (OSError, EOFError, ValueError, zlib.error, OverflowError)


@dataclass(frozen=True)
class NiftiCase:
    """A CT volume and its labels in two NIfTI files; see `pathzoo.ct.volume.Case`.

    Args:
        name: of the case.
        patient: None where not known.
        image_path, label_path: the files.
        options: how they are read.

    Raises:
        ConfigError: nibabel is not installed.
        DataError: not NIfTI, spacing or orientation not stated, grids of image and labels that differ.
    """

    name: str
    patient: str | None
    image_path: Path
    label_path: Path
    options: ReadOptions

    def __post_init__(self) -> None:
        _ = self.grid

    @cached_property
    def grid(self) -> Grid:
        """Where its voxels lie."""
        image, label = (nifti_grid(path, self.options) for path in (self.image_path, self.label_path))
        refuse_other_grid(image, label, self.name, self.image_path, self.label_path)
        return image

    @property
    def shape(self) -> tuple[int, int, int]:
        """(S, H, W) in display orientation."""
        return self.grid.shape

    @property
    def spacing(self) -> tuple[float, float, float]:
        """(z, y, x) in mm."""
        return self.grid.spacing

    @property
    def where(self) -> str:
        """The image's file."""
        return str(self.image_path)

    def read(self, with_hu: bool) -> Volume:
        """Reads the labels, and the HU where asked for.

        Raises:
            DataError: truncated or damaged; values that are no HU or look windowed; a label value without a meaning.
        """
        labels = read_labels(self.label_path, self.grid_of_labels(), self.options, self.name)
        hu, notes = None, self.grid.notes()
        if with_hu:
            hu, more = self._read_hu()
            notes += more
        return Volume(labels, hu, tuple(range(self.shape[0])), self.spacing, self.grid.positions, notes)

    def grid_of_labels(self) -> Grid:
        """The labels' own grid: the same places, its array may be stored in another order of axes."""
        return nifti_grid(self.label_path, self.options)

    def _read_hu(self) -> tuple[np.ndarray, tuple[str, ...]]:
        values = self.grid.arrange(read_array(self.image_path))
        if min(plane.min() for plane in values) >= 0 and max(plane.max() for plane in values) <= 255:
            raise DataError(
                f"{self.image_path}: all its values lie in 0..255, so it looks windowed: give the volume in HU, or "
                "its slices as --pictures with --known-range"
            )
        hu, clipped = to_hu(values, str(self.image_path))
        refuse_unlike_ct(hu, str(self.image_path))
        return hu, clipped_note(clipped)


def clipped_note(clipped: int) -> tuple[str, ...]:
    """What to say of values below air; nothing where there were none."""
    return (f"{clipped} voxels below {AIR} HU (padding) were set to {AIR}",) if clipped else ()


def nifti_grid(path: Path, options: ReadOptions) -> Grid:
    """The grid of a NIfTI file, from its head alone.

    Raises:
        ConfigError: nibabel is not installed.
        DataError: not NIfTI, not three axes, spacing or orientation neither stated nor given.
    """
    image, raw = _open_head(path)
    shape = tuple(int(size) for size in image.shape)
    if len(shape) < 3 or any(size != 1 for size in shape[3:]) or 0 in shape:
        raise DataError(f"{path}: has the shape {shape}: a volume has three axes; take one volume out of it")
    sizes = [float(size) for size in raw["pixdim"][1:4]]
    unstated = [axis + 1 for axis, size in enumerate(sizes) if not 0 < abs(size) < float("inf")]
    # NIfTI-1, method 1: without an affine pixdim is the spacing all the same, and the axes alone are not stated.
    no_affine = int(raw["sform_code"]) == 0 and int(raw["qform_code"]) == 0
    problem = f"pixdim[{unstated[0]}] is {sizes[unstated[0] - 1]:g}" if unstated else ""
    if no_affine and not problem and set(map(abs, sizes)) == {1.0}:
        problem = "it has no affine and its pixdim is 1 x 1 x 1, as writers leave it that do not know it"
    if problem and options.spacing is None:
        raise DataError(
            f"{path}: {problem}, so its spacing is not stated: give it by --spacing Z Y X (mm)"
            + (" with --axes, or export the volume with its affine" if no_affine else "")
        )
    if no_affine and options.axes is None:
        raise DataError(
            f"{path}: its qform and sform codes are both 0, so it does not say which way its axes point: give --axes, "
            "such as LPS, or export the volume with its affine"
        )
    to_mm = _TO_MM.get(int(raw["xyzt_units"]) & 7, 1.0)  # the three lowest bits are those of space
    stated = image.affine
    if no_affine:
        stated = _stated_axes(str(options.axes)) @ np.diag([*(1.0 if problem else abs(size) for size in sizes), 1.0])
    affine = np.diag([to_mm, to_mm, to_mm, 1.0]) @ stated
    if problem and options.spacing is not None:
        affine = _with_spacing(shape, affine, options.spacing, path)
    return display_grid(shape[:3], affine, str(path))


def read_array(path: Path) -> np.ndarray:
    """The values of a NIfTI file in its own order of axes, slope and intercept applied.

    The whole file is read, so that a damaged end or a wrong checksum of the compression is found.

    Raises:
        DataError: truncated or damaged, or not real numbers.
    """
    nib = _nibabel()
    try:
        kind = type(nib.load(path))
        with _opened(path) as file:
            proxy = kind.from_stream(file).dataobj
            _refuse_other_numbers(proxy.dtype, path)
            plain = proxy.slope == 1 and proxy.inter == 0 and proxy.dtype.kind != "f"
            with np.errstate(over="ignore"):  # an absurd float64 becomes infinite, and is refused as such
                values = np.asanyarray(proxy) if plain else np.asarray(proxy, np.float32)
            while file.read(1 << 20):
                pass
    except (*_DAMAGE, nib.filebasedimages.ImageFileError) as error:
        raise _damaged(path, error) from None
    return values.reshape(values.shape[:3])


def read_labels(path: Path, grid: Grid, options: ReadOptions, case: str) -> np.ndarray:
    """Labels uint8 (S, H, W) of a NIfTI file in display orientation; see `LabelMap.apply`."""
    return options.label_map.apply(grid.arrange(read_array(path)), str(path), case)


def refuse_other_grid(image: Grid, label: Grid, case: str, image_path: Path, label_path: Path) -> None:
    """Raises DataError where image and labels do not share a grid; names both files and the difference."""
    difference = grid_difference(image, label)
    if difference:
        raise DataError(
            f"{label_path}: does not fit {image_path} of {case}: {difference}; resample the labels to the image's "
            "grid, or correct the head that is wrong"
        )


def _nibabel() -> ModuleType:
    try:
        import nibabel
    except ImportError:
        raise ConfigError("nibabel is not installed; it reads NIfTI: pip install pathzoo[ct]") from None
    return nibabel


def _open_head(path: Path) -> tuple[Any, Any]:
    """nibabel's image, and the head as it stands in the file: nibabel itself replaces a pixdim of 0 by 1."""
    nib = _nibabel()
    import logging

    logger = logging.getLogger("nibabel.global")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # it would print what is said here with a remedy
    try:
        image = nib.load(path)
        with _opened(path) as file:
            raw = type(image).header_class.from_fileobj(file, check=False)
    except (*_DAMAGE, nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError) as error:
        raise _damaged(path, error) from None
    finally:
        logger.setLevel(level)
    if not isinstance(image, nib.Nifti1Pair):
        raise DataError(f"{path}: is {type(image).__name__}, not NIfTI: convert it to .nii.gz")
    return image, raw


def _opened(path: Path) -> Any:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _damaged(path: Path, error: BaseException) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path}: no such file: restore it, or take the case out")
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DataError(f"{path}: truncated or damaged NIfTI ({text}): copy or download it again")


def _refuse_other_numbers(kind: np.dtype, path: Path) -> None:
    if kind.kind not in "iuf":
        raise DataError(f"{path}: holds {kind} values: a volume has one real number per voxel")


def _stated_axes(axes: str) -> np.ndarray:
    """The affine, of 1 mm spacing, of an array whose axes point as three letters say."""
    from nibabel.orientations import axcodes2ornt

    affine = np.zeros((4, 4))
    for axis, (world, sign) in enumerate(axcodes2ornt(tuple(axes.upper()))):
        affine[int(world), axis] = sign
    affine[3, 3] = 1
    return affine


def _with_spacing(
    shape: tuple[int, ...], affine: np.ndarray, spacing: tuple[float, float, float], path: Path
) -> np.ndarray:
    """`affine` with its columns as long as `spacing`, (z, y, x) in display orientation, says."""
    steps = display_grid(shape[:3], affine, str(path)).steps
    changed = affine.copy()
    for axis, (target, _) in enumerate(steps):
        changed[:3, axis] *= spacing[int(target)] / np.linalg.norm(affine[:3, axis])
    return changed
