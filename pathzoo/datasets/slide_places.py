"""Random tiles over a slide's tissue, read from the slide itself: no tile files."""

import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pathzoo.datasets.inventory import inspect_all
from pathzoo.datasets.sampling import mix_seed
from pathzoo.errors import DataError, PathzooError, SlideError
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.tissue import tissue_mask
from pathzoo.wsi.types import RGB

#: Tissue is looked for on a thumbnail of this resolution (microns per pixel), or coarser where it would be larger.
_MASK_MPP, _MASK_SIZE = 8.0, 1024
#: Larger holes in the tissue (square microns) are glass: nothing is to be learnt there.
_LARGEST_HOLE = 64.0**2
#: Slides that a process keeps open at once.
_OPEN_SLIDES = 32
#: So much of a pixel may be lacking, since resolutions are rounded in files.
_ROUNDING = 0.01
_FINGERPRINT_BYTES = 1 << 20


class TissuePlaces:
    """Places of square tiles on one slide, even over its tissue.

    A place is the centre of a tile: a pixel of the tissue mask that `pathzoo.wsi.tissue` finds on a thumbnail, each
    equally likely, and a point within it; a tile that would leave the slide is moved inside. Which place is drawn
    depends on (seed, epoch, index) alone. Ground that cannot be decoded is no tissue. What cannot be seen from the
    thumbnail: a tile at the tissue's edge may be half glass.

    May be pickled and forked: every process opens the slide for itself, at its first reading.

    Args:
        path: the slide.
        size: side of a tile in pixels of `mpp`.
        mpp: microns per pixel of the tiles; None reads level 0 as it is.
        seed: another seed, other places.
        slide_mpp: microns per level-0 pixel; takes the place of what the file states.
        smallest: where the slide is smaller than `size`, tiles are as large as its shorter side, down to so many pixels
            of `mpp`; None for `size`, not smaller at all.

    Attributes:
        size: side of a tile in pixels of `mpp`, as it came out.
        side: side of a tile in level-0 pixels.
        mpp: microns per pixel of the tiles as they are read, None where the slide's is not known.
        tiles: how many tiles would cover the tissue, above 0: what slides are weighted by.
        mask_scale: level-0 pixels per pixel of the mask, (x, y).

    Raises:
        SlideError: the slide cannot be read (over 8 bits per channel, say), its resolution is not known, or it is too
            coarse for `mpp`.
        DataError: no tissue on it, or it is smaller than a tile.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        size: int,
        mpp: float | None,
        seed: int = 0,
        slide_mpp: float | None = None,
        smallest: int | None = None,
    ) -> None:
        self.path, self.seed, self._wanted, self._slide_mpp = Path(path), seed, mpp, slide_mpp
        with Slide(path, slide_mpp) as slide:
            self.mpp = slide.mpp if mpp is None else slide.resolve_mpp(mpp)
            scale = 1.0 if mpp is None else self.mpp / slide.mpp
            self.dimensions = slide.dimensions
            # A resolution that a file states as a fraction leaves 99.99 where 100 pixels are meant.
            largest, needed = int(min(self.dimensions) / scale + _ROUNDING), size if smallest is None else smallest
            if largest < needed:
                raise DataError(
                    f"{path}: {self.dimensions[0]} x {self.dimensions[1]} px, smaller than a tile of {needed} px "
                    f"({needed * scale:.0f} of its own): leave it out, or take smaller tiles"
                )
            self.size = min(size, largest)
            self.side = self.size * scale
            mask = self._find_tissue(slide)
        if not mask.any():
            raise DataError(f"{path}: no tissue was found on it: leave it out, or list its tiles in a CSV")
        self._columns = mask.shape[1]
        self._until = np.cumsum(mask.sum(axis=1))  # tissue pixels up to each row
        self._bits = np.packbits(mask, axis=1)  # an eighth of the memory: there may be thousands of slides
        self.tiles = max(1e-6, float(self._until[-1] * self.mask_scale[0] * self.mask_scale[1] / self.side**2))

    def place(self, epoch: int, index: int) -> tuple[int, int]:
        """The left upper corner (x, y) of a tile in level-0 pixels."""
        draws = [mix_seed(self.seed, epoch, index, number) / 2**32 for number in range(3)]
        nth = int(draws[0] * self._until[-1])
        row = int(np.searchsorted(self._until, nth, side="right"))
        before = int(self._until[row - 1]) if row else 0
        column = int(np.flatnonzero(np.unpackbits(self._bits[row], count=self._columns))[nth - before])
        place = []
        for cell, part, scale, first, length in zip(
            (column, row), draws[1:], self.mask_scale, self._origin, self.dimensions, strict=True
        ):
            corner = first + (cell + part) * scale - self.side / 2
            place.append(int(max(0.0, min(corner, length - self.side))))
        return place[0], place[1]

    def read(self, x: int, y: int) -> RGB:
        """The tile at a place: RGB uint8 (size, size, 3).

        Raises:
            SlideError: it cannot be decoded.
        """
        slide = _open_slide(os.getpid(), self.path, self._slide_mpp)
        return slide.read(x, y, self.size, self.size, mpp=self._wanted)

    def _find_tissue(self, slide: Slide) -> np.ndarray:
        x, y, width, height = slide.bounds
        longer = max(width, height)
        wanted = longer / 8 if slide.mpp is None else longer * slide.mpp / _MASK_MPP
        thumbnail, damaged = slide.survey(max(1, min(_MASK_SIZE, round(wanted))), slide.bounds)
        rows, columns = thumbnail.shape[:2]
        self._origin, self.mask_scale = (x, y), (width / columns, height / rows)
        hole = 256 if slide.mpp is None else _LARGEST_HOLE / (slide.mpp * self.mask_scale[0]) ** 2
        return tissue_mask(thumbnail, max_hole=min(256, max(1, round(hole)))) & ~damaged


@dataclass(frozen=True)
class SlideRecord:
    """One surveyed slide.

    Attributes:
        path: as it was asked for.
        sha256: see `slide_fingerprint`; None where it cannot be used.
        places: of its tiles; None where it cannot be used.
        failure: why not, an error that names the file.
    """

    path: str
    sha256: str | None
    places: TissuePlaces | None
    failure: PathzooError | None = None

    @property
    def error(self) -> str | None:
        """What is wrong with it, in a line."""
        return None if self.failure is None else str(self.failure)


def survey_slides(
    infos: Sequence[Mapping[str, Any]],
    size: int,
    mpp: float | None,
    seed: int,
    workers: int | None = None,
    smallest: int | None = None,
) -> list[SlideRecord]:
    """Looks for tissue on slides, in threads and with a bar where it takes over a second.

    Args:
        infos: img_path and mpp (None for what the file states) of each.
        size, mpp, seed, smallest: as in `TissuePlaces`.
        workers: threads; None for one per core, at most 16.

    Returns:
        A record each, in order; what is wrong with a slide stands in it.
    """
    own = {str(info["img_path"]): info["mpp"] for info in infos}

    def survey(path: str) -> SlideRecord:
        try:
            places = TissuePlaces(path, size, mpp, seed, own[path], smallest)
            return SlideRecord(path, slide_fingerprint(path), places)
        except PathzooError as error:
            return SlideRecord(path, None, None, error)

    return list(inspect_all([str(info["img_path"]) for info in infos], survey, workers, True, "looking for tissue"))


def slide_fingerprint(path: str | os.PathLike) -> str:
    """SHA-256 of a slide's size, first and last MiB, as 64 hexadecimal digits: gigabytes are not read for an identity.

    Raises:
        SlideError: the file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            length = file.seek(0, os.SEEK_END)
            file.seek(0)
            digest = hashlib.sha256(length.to_bytes(8, "little") + file.read(_FINGERPRINT_BYTES))
            file.seek(max(0, length - _FINGERPRINT_BYTES))
            digest.update(file.read(_FINGERPRINT_BYTES))
    except OSError as error:
        raise SlideError(f"{path}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()


@functools.lru_cache(maxsize=_OPEN_SLIDES)
def _open_slide(process: int, path: Path, mpp: float | None) -> Slide:
    """A slide opened by this very process: one that a fork inherited would share its file position."""
    return Slide(path, mpp)
