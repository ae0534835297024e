"""Stain normalisation in training, by the same code as in prediction (`pathzoo.wsi.stain`)."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmcv.transforms import BaseTransform

from pathzoo.errors import ConfigError, DataError
from pathzoo.registry import TRANSFORMS
from pathzoo.wsi.stain import StainFit, StainTransform, normalize_picture


@TRANSFORMS.register_module()
class NormalizeStain(BaseTransform):
    """Gives pictures the stain `target`, the one that `model_input.stain_fit` declares.

    It belongs right after `LoadTile`, as prediction does it first. Where the source's stain comes from:

    - Without `fits`, every picture is fitted by itself, as prediction does with single images. For micrographs: a
      fit needs a whole field of view, and what is fitted to a crop differs from crop to crop.
    - With `fits`, a tile takes the fit of its slide (`slide` of its `data_info`), as prediction fits a slide once. For
      tiles cut from slides: their differences stay, and a tile with little stain is safe.

    A picture in which no stain can be found (white, one colour) stays as it is.

    Args:
        target: {"method": "macenko" or "reinhard", "parameters": {...}}, see `pathzoo.wsi.stain.StainFit`.
        fits: slide -> a block of the same form, or a JSON file of that; null for a slide that has no fit.

    Raises:
        ConfigError: No fit, or one of another method than `target`.
    """

    def __init__(
        self,
        target: Mapping[str, Any],
        fits: Mapping[str, Mapping[str, Any] | None] | str | os.PathLike | None = None,
    ) -> None:
        self.target = _fit(target, "target")
        source = "fits"
        if isinstance(fits, str | os.PathLike):
            source = str(fits)
            fits = _read(Path(fits))
        self.transforms: dict[str, StainTransform | None] | None = None
        if fits is not None:
            self.transforms = {
                slide: None if block is None else self._to_target(_fit(block, f"{source}: slide {slide!r}"), slide)
                for slide, block in fits.items()
            }

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replaces `img`, RGB uint8 (H, W, 3); raises DataError for a slide without an entry in `fits`."""
        if self.transforms is None:
            results["img"], _ = normalize_picture(results["img"], self.target)
            return results
        slide = results.get("slide")
        if slide not in self.transforms:
            raise DataError(
                f"{results.get('img_path', 'picture')}: its slide {slide!r} has no entry in NormalizeStain's fits; add "
                "one (pathzoo.wsi.slide_stain.fit_slide), or leave fits out to fit each picture by itself"
            )
        transform = self.transforms[slide]
        if transform is not None:
            results["img"] = transform.apply(results["img"])
        return results

    def _to_target(self, source: StainFit, slide: str) -> StainTransform:
        try:
            return StainTransform(source, self.target)
        except ValueError as error:
            raise ConfigError(f"NormalizeStain fits: slide {slide!r}: {error}") from error

    def __repr__(self) -> str:
        fits = "" if self.transforms is None else f", fits of {len(self.transforms)} slides"
        return f"{type(self).__name__}(target={self.target.to_block()}{fits})"


def _fit(block: Any, where: str) -> StainFit:
    try:
        return StainFit(block["method"], block["parameters"])
    except (TypeError, KeyError, ValueError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigError(f"NormalizeStain {where}: {reason}; a fit is a dict of method and parameters") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"NormalizeStain fits: {path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise ConfigError(f"NormalizeStain fits: {path}: holds a {type(content).__name__}, not an object by slide")
    return content
