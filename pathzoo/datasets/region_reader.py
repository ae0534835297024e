"""Reads whole regions: pictures and labels, decoded once and kept."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from pathzoo.datasets.label_noise import RegionNoise, corrupt
from pathzoo.datasets.masks import apply_lookup, read_known_mask
from pathzoo.datasets.region_files import Region, decode_region
from pathzoo.datasets.region_store import make_store
from pathzoo.datasets.region_table import IGNORE
from pathzoo.fileio import canonical_json, sha256_bytes

#: Raised whenever decoding gives other pixels than before: files of an older format are not read again.
_FORMAT = 1
_AS_IT_IS = np.arange(256, dtype=np.int16)


class RegionReader:
    """The pictures and labels of some regions.

    Args:
        regions: whose.
        lookup: of `value_lookup`, what mask values mean.
        noise: item -> what is made wrong in its labels; regions without an entry keep theirs.
        hidden: no labels are handed out.
        cache: "memory" or "memmap"; see `pathzoo.datasets.region_store`.
    """

    def __init__(
        self,
        regions: Sequence[Region],
        lookup: np.ndarray,
        noise: Mapping[str, RegionNoise],
        hidden: bool,
        cache: str,
    ) -> None:
        self.regions, self._lookup, self._noise, self._hidden = tuple(regions), lookup, dict(noise), hidden
        shapes = [(region.height, region.width) for region in regions]
        keys = [f"{region.sha256}-rgb{_FORMAT}" for region in regions]
        self._images = make_store(cache, [(*shape, 3) for shape in shapes], keys)
        self._labels = make_store(cache, shapes, [self._label_key(region) for region in regions])

    def image(self, index: int) -> np.ndarray:
        """RGB uint8 (H, W, 3), read-only.

        Raises:
            DataError: the file is gone, or changed since the data set was loaded.
        """
        return self._images.get(index, lambda: decode_region(self.regions[index]))

    def labels(self, index: int) -> np.ndarray:
        """What training sees: uint8 (H, W), read-only; all 255 where there is no mask or labels are hidden."""
        region = self.regions[index]
        if self._hidden or region.mask is None:
            return np.broadcast_to(np.uint8(IGNORE), (region.height, region.width))
        return self._labels.get(index, lambda: self._noisy(index))

    def truth(self, index: int) -> np.ndarray | None:
        """What the mask says, hidden or not, before any noise: uint8 (H, W); None without a mask. Decoded each time."""
        region = self.regions[index]
        if region.mask is None or region.mask_sha256 is None:
            return None
        return apply_lookup(read_known_mask(region.mask, region.mask_sha256), self._lookup_of(region))

    def _noisy(self, index: int) -> np.ndarray:
        labels = self.truth(index)
        assert labels is not None
        noise = self._noise.get(self.regions[index].item)
        return labels if noise is None else corrupt(labels, noise)

    def _label_key(self, region: Region) -> str:
        noise = self._noise.get(region.item)
        parts = [_FORMAT, region.mask_sha256, self._lookup_of(region).tolist(), noise and asdict(noise)]
        return f"{sha256_bytes(canonical_json(parts))}-labels"

    def _lookup_of(self, region: Region) -> np.ndarray:
        """Masks of drawn regions hold class indices, whatever a `value_map` makes of the real ones."""
        return self._lookup if region.source is None else _AS_IT_IS
