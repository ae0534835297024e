"""What data sets of pictures with patient-grouped subsets share: arguments, splits, damaged files, no refetching."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from pathzoo.datasets.split_config import checked_scheme
from pathzoo.datasets.splits import Split, no_such_subset
from pathzoo.errors import ConfigError, DataError, PathzooError
from pathzoo.nearest import did_you_mean

_SUBSETS = ("train", "val", "test", "unlabelled", "all")


class SplitDataset(BaseDataset):
    """A data set of one subset of a split; `TileClassification` and `RegionSegmentation` are such.

    No picture is ever replaced by another: what cannot be read is an error, or left out before anything is split.
    `load_data_list` of a subclass sets `_split`.

    Args:
        ann_file, data_root: where the data is.
        subset: "train", "val", "test", "unlabelled" or "all".
        split: `dict(scheme=...)` or a saved `splits.json`; None for the scheme "none".
        on_bad_image: "error" or "skip".
        mpp: microns per pixel of pictures that state none.
        seed: of `sample_seed`.
        metainfo, indices, serialize_data, pipeline, test_mode, lazy_init: as in mmengine's BaseDataset.

    Attributes:
        skipped: records of the files left out as damaged, of all subsets.

    Raises:
        ConfigError: an argument out of its choices.
    """

    #: Training needs a sampler that tells the epoch; see `pathzoo.datasets.sampling.check_sampler`.
    draws_by_epoch = True
    #: How pictures are told their resolution, for messages.
    mpp_remedy = "fill the column mpp, or give the dataset mpp=..."

    def __init__(
        self,
        ann_file: str,
        data_root: str,
        subset: str,
        split: Mapping[str, Any] | str | Path | None,
        on_bad_image: str,
        mpp: float | None,
        seed: int,
        metainfo: Mapping[str, Any] | None,
        indices: int | Sequence[int] | None,
        serialize_data: bool,
        pipeline: Sequence[dict | Callable],
        test_mode: bool,
        lazy_init: bool,
    ) -> None:
        check_choice("subset", subset, _SUBSETS)
        check_choice("on_bad_image", on_bad_image, ("error", "skip"))
        if mpp is not None and not mpp > 0:
            raise ConfigError(f"mpp={mpp!r}: give microns per pixel above 0, or None where not known")
        self.subset, self.on_bad_image, self.mpp, self.seed = subset, on_bad_image, mpp, seed
        self.skipped: list[Any] = []
        self._wanted_split = {"scheme": "none"} if split is None else split
        super().__init__(
            ann_file=str(ann_file),
            metainfo=metainfo,
            data_root=str(data_root),
            data_prefix={},
            indices=indices,
            serialize_data=serialize_data,
            pipeline=list(pipeline),
            test_mode=test_mode,
            lazy_init=lazy_init,
            max_refetch=0,
        )

    @staticmethod
    def check_config(arguments: Mapping[str, Any]) -> None:
        """Checks what a signature cannot: the keys of `split`. Called before anything of a config is built.

        Raises:
            ConfigError: an unknown scheme or key, or a value out of bounds.
        """
        if isinstance(arguments.get("split"), Mapping):
            checked_scheme(dict(arguments["split"]))

    @property
    def split(self) -> Split:
        """The split in use; loads the data where that has not happened yet."""
        self.full_init()
        return self._split

    def full_init(self) -> None:
        """Loads the data where that has not happened yet."""
        if not self._fully_initialized:
            super().full_init()
            self._settle()

    def get_subset_(self, indices: int | Sequence[int]) -> None:
        """Keeps some of what `load_data_list` lists only: the first ones, or those of a list of indices."""
        super().get_subset_(indices)
        self._settle()

    def get_subset(self, indices: int | Sequence[int]) -> "SplitDataset":
        """A data set of some of what `load_data_list` lists."""
        part = super().get_subset(indices)
        part._settle()
        return part

    def _settle(self) -> None:
        """Called when what is listed is known or was cut: a subclass counts there what it draws from."""

    def __getitem__(self, idx: int) -> Any:
        """Like mmengine's, but never fetches another picture in place of a bad one."""
        self.full_init()
        return self.prepare_data(idx)

    def through_pipeline(self, results: dict, where: str, damage: Callable[[], str | None] = lambda: None) -> Any:
        """What the pipeline makes of `results`.

        Args:
            results: of one picture.
            where: its file, for messages.
            damage: asked where the pipeline fails: what is wrong with the file, None where nothing is.

        Raises:
            DataError: the file is damaged, or the pipeline gave None.
            RuntimeError: a transform failed on a sound file.
        """
        try:
            data = self.pipeline(results)
        except Exception as error:
            found = damage()
            if found:
                raise DataError(f"{where}: {found}; it was sound when the data set was loaded: restore it") from error
            if isinstance(error, PathzooError) or where in str(error):
                raise  # says what to do already
            raise RuntimeError(f"{where}: the pipeline failed: {type(error).__name__}: {error}") from error
        if data is None:
            raise DataError(f"{where}: a transform returned None for this image; no other image is put in its place")
        return data

    def _join_prefix(self) -> None:
        """Nothing to join: a subclass looks for its files."""

    def _table(self) -> Path:
        """The table's path: a relative one is looked for in `data_root` first."""
        inside = Path(self.data_root, self.ann_file)
        return inside if inside.is_file() else Path(self.ann_file)

    def _sound(self, infos: list[dict], records: Sequence[Any], kind: str = "image") -> list[tuple[dict, Any]]:
        """The infos whose files are sound, each with its record; the others are an error, or join `skipped`.

        Args:
            infos: with `where`, for messages.
            records: of each info's file: path, error, missing.
            kind: what the files are, for messages.
        """
        pairs = list(zip(infos, records, strict=True))
        missing = [pair for pair in pairs if pair[1].missing]
        if missing:
            info, record = missing[0]
            raise DataError(
                f"{info['where']}: no {kind} file {record.path}{_and_more(missing)}: "
                "correct the path, remove the line, or set data_root"
            )
        bad = [pair for pair in pairs if pair[1].error]
        if bad and self.on_bad_image == "error":
            info, record = bad[0]
            raise DataError(
                f"{info['where']}: {kind} {record.path}: {record.error}{_and_more(bad)}: "
                'restore it, or set on_bad_image="skip" to leave such images out'
            )
        for _, record in bad:
            self.skipped.append(record)
            print_log(f"skipped {record.path}: {record.error}", logger="current", level=logging.WARNING)
        return [pair for pair in pairs if not pair[1].error]

    def _select(self, infos: list[dict], many: str = "images") -> list[dict]:
        """The infos of this subset, by their `item`."""
        if self.subset == "all":
            return infos
        if self.subset not in self._split.subsets:
            raise ConfigError(no_such_subset(self._split, self.subset))
        wanted = self._split.subsets[self.subset].items
        chosen = [info for info in infos if info["item"] in wanted]
        if not chosen:
            raise DataError(f"subset={self.subset!r} of the split holds none of the {len(infos)} {many} at hand")
        return chosen


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raises ConfigError with the nearest choice where `value` is none of them."""
    if value not in choices:
        raise ConfigError(f"{name}={value!r}{did_you_mean(value, choices)}")


def _and_more(found: Sequence) -> str:
    return f" (and {len(found) - 1} more)" if len(found) > 1 else ""
