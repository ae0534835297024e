"""What is kept of the patches of a set: sums for each region, however many patches there are."""

from typing import NamedTuple

import numpy as np

from pathzoo.evaluation.functional.classification import FloatArray, IntArray
from pathzoo.evaluation.functional.segmentation import MEANS, unit_values


class PatchSums(NamedTuple):
    """Sums over the patches of each of N regions; K as in `unit_names`."""

    #: Sums of the patches' values, where they are defined (N, K).
    totals: FloatArray
    #: Patches whose value is defined (N, K).
    defined: IntArray
    #: All patches (N,), those without a labelled pixel too.
    patches: IntArray


class RegionTally:
    """Counts of pixels, and sums of the patches' own values, for each region of a set.

    All of it is one table of float64, a row for each region, and the tallies of several processes add up to that of
    the whole set: their tables, cut to one size by `padded`, are summed. Counts are exact up to 2^53 pixels.

    Args:
        n_classes: C.
        table: that of another tally; by default an empty one, which grows as regions come.
    """

    def __init__(self, n_classes: int, table: FloatArray | None = None):
        self.n_classes = n_classes
        self._n_values = len(MEANS) + n_classes
        width = n_classes**2 + 2 * self._n_values + 1
        self.table = np.zeros((0, width)) if table is None else np.asarray(table, dtype=np.float64)
        if self.table.ndim != 2 or self.table.shape[1] != width:
            raise ValueError(f"a table of {n_classes} classes has {width} columns, got {self.table.shape}")

    def add(self, regions: IntArray, counts: IntArray) -> None:
        """Adds patches: the number of each one's region (n,), and its counts (n, C, C)."""
        if len(regions) == 0:
            return
        if regions.max() >= len(self.table):
            self.table = self.padded(max(int(regions.max()) + 1, 2 * len(self.table)))
        values = unit_values(counts)
        defined = ~np.isnan(values)
        flat = counts.reshape(len(regions), -1)
        rows = np.concatenate([flat, np.where(defined, values, 0.0), defined, np.ones((len(regions), 1))], axis=1)
        np.add.at(self.table, regions, rows)

    def padded(self, n_regions: int) -> FloatArray:
        """A copy of the table with `n_regions` rows; rows that are missing are zeros."""
        rows = self.table[:n_regions]
        return np.concatenate([rows, np.zeros((n_regions - len(rows), rows.shape[1]))])

    def counts(self) -> IntArray:
        """int64 (N, C, C)."""
        C = self.n_classes
        return np.rint(self.table[:, : C**2]).astype(np.int64).reshape(-1, C, C)

    def patch_sums(self) -> PatchSums:
        """Of each region."""
        first, K = self.n_classes**2, self._n_values
        totals, defined = self.table[:, first : first + K], self.table[:, first + K : first + 2 * K]
        return PatchSums(totals, np.rint(defined).astype(np.int64), np.rint(self.table[:, -1]).astype(np.int64))
