"""Albumentations as one registered transform: image, mask and boxes move together."""

import random
import warnings
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import albumentations as A  # noqa: N812 - as its own documentation calls it
import numpy as np
from mmcv.transforms import BaseTransform

from pathzoo.datasets.transforms.albumentations_build import build_entry
from pathzoo.datasets.transforms.boxes import get_boxes, set_boxes
from pathzoo.datasets.transforms.draws import ProcessDraws
from pathzoo.datasets.transforms.geometry import check_movable
from pathzoo.errors import ConfigError, DataError
from pathzoo.registry import TRANSFORMS


@TRANSFORMS.register_module()
class Albumentations(BaseTransform):
    """Applies albumentations' transforms, and pathzoo's StainJitter, to image, mask and boxes alike.

        dict(type=Albumentations, transforms=[
            dict(type='RandomRotate90'),
            dict(type='OneOf', p=0.5, transforms=[dict(type='GaussianBlur'), dict(type='StainJitter', alpha=0.2)]),
        ])

    Draws: where the results hold `sample_seed`, everything drawn depends on it and on the list of transforms alone,
    whichever process draws in whichever order. Two views of one sample therefore need two sample seeds, or `stream`s.
    Without `sample_seed` each process draws its own stream: a loader's worker from the loader's seed of the epoch, the
    main process from numpy's global generator, any other fork from the operating system.

    Reads and writes `img`, and where present `gt_seg_map` (nearest neighbour) and `gt_bboxes` (ndarray or mmdet boxes;
    what belongs to each box is filtered with it). Updates `img_shape`.

    Args:
        transforms: what to apply, in order. `type` is a class of albumentations or its exact name; OneOf, SomeOf,
            Sequential and the like take `transforms` themselves.
        min_visibility: a box of which a smaller share is left after a step is dropped, 0..1.
        min_area: a box with fewer square pixels is dropped.
        min_size: a box narrower or lower than this many pixels is dropped.
        stream: number of an independent stream of draws for the same sample seeds.

    Raises:
        ConfigError: unknown name or keyword (with the nearest one), or a value that albumentations refuses.
    """

    def __init__(
        self,
        transforms: Sequence[Mapping[str, Any]],
        min_visibility: float = 0.0,
        min_area: float = 0.0,
        min_size: float = 0.0,
        stream: int = 0,
    ):
        if isinstance(transforms, Mapping | str) or not isinstance(transforms, Sequence):
            raise ConfigError("Albumentations(transforms=...): needs a list of dicts, each with a 'type'")
        boxes = A.BboxParams(
            "pascal_voc",
            min_area=min_area,
            min_visibility=min_visibility,
            min_width=min_size,
            min_height=min_size,
            clip=True,
            filter_invalid_bboxes=True,
        )
        built = [build_entry(entry, f"transforms[{i}]") for i, entry in enumerate(transforms)]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Got processor for bboxes")  # a list may well move no pixel
            self.compose = A.Compose(built, bbox_params=boxes)
        self._salt = [zlib.crc32(repr(self.compose).encode()), stream]
        self._process_draws = ProcessDraws(self._salt)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Raises DataError where image and mask differ in size, ConfigError for annotations that it cannot move."""
        check_movable(results)
        image, mask, boxes = results["img"], results.get("gt_seg_map"), get_boxes(results)
        data = {"image": image}
        if mask is not None:
            if mask.shape[:2] != image.shape[:2]:
                name = results.get("item") or results.get("img_path", "item")
                raise DataError(f"{name}: mask of {mask.shape[:2]} does not fit the image of {image.shape[:2]} (h, w)")
            data["mask"] = mask
        if boxes is not None:
            # The fifth column says which box it was: labels and flags are filtered by it afterwards.
            data["bboxes"] = np.column_stack([boxes, np.arange(len(boxes), dtype=np.float32)])
        self._seed(results.get("sample_seed"))
        out = self.compose(**data)
        results["img"], results["img_shape"] = out["image"], out["image"].shape[:2]
        if mask is not None:
            results["gt_seg_map"] = out["mask"]
        if boxes is not None:
            left = np.asarray(out["bboxes"], np.float32).reshape(-1, 5)
            set_boxes(results, left[:, :4], left[:, 4].astype(np.int64))
        return results

    def _seed(self, sample_seed: int | None) -> None:
        """Gives all transforms, nested ones too, one pair of generators.

        One shared pair, not `Compose.set_random_seed`: that seeds every transform alike, so that two flips at p=0.5
        always happen together.
        """
        if sample_seed is None:
            sample_seed = int(self._process_draws.generator().integers(2**63))
        self.compose.set_random_state(
            np.random.Generator(np.random.PCG64([int(sample_seed), *self._salt])),
            random.Random((int(sample_seed) << 64) | (self._salt[0] << 32) | self._salt[1]),
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.compose!r})"
