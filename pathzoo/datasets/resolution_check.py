"""Whether a pipeline that resamples to microns per pixel can take the images of a data set, asked before training."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pathzoo.datasets.transforms.geometry import ResizeShortSide, ResizeToMpp
from pathzoo.errors import DataError


def refuse_resolutions(
    infos: Sequence[Mapping[str, Any]], transforms: Sequence[Callable], source: str, remedy: str
) -> None:
    """Raises where the first `ResizeToMpp` among `transforms` would refuse an image in the midst of training.

    Args:
        infos: data_info of each image: item, mpp (None where unknown).
        transforms: the built pipeline; what wraps others (mmcv's RandomApply, RandomChoice, ...) is looked into.
        source: the table or folder, for the message.
        remedy: how this data set is told its resolution, for the message.

    Raises:
        DataError: names the first image without a resolution, or too coarse to be enlarged, and counts them.
    """
    transforms = list(_flat(transforms))
    place = next((n for n, transform in enumerate(transforms) if isinstance(transform, ResizeToMpp)), None)
    if place is None:
        return
    resize = transforms[place]
    unknown = [info for info in infos if info["mpp"] is None]
    if unknown:
        raise DataError(
            f"{source}: {unknown[0]['item']} and {len(unknown)} of {len(infos)} images in all have no microns per "
            f"pixel, which ResizeToMpp(mpp={resize.mpp:g}) needs: {remedy}, or resize by ResizeShortSide"
        )
    if any(isinstance(transform, ResizeShortSide) for transform in transforms[:place]):
        return  # what arrives at ResizeToMpp depends on each image's size
    coarse = [info for info in infos if resize.is_too_coarse(info["mpp"])]
    if coarse:
        first = coarse[0]
        raise DataError(
            f"{source}: {len(coarse)} of {len(infos)} images are too coarse, first {first['item']}: "
            f"{resize.too_coarse_text(first['mpp'])}"
        )


def _flat(transforms: Sequence[Callable]) -> Iterator[Callable]:
    """Every transform, in place of one that wraps others those."""
    for transform in transforms:
        inner = getattr(transform, "transforms", None)
        if isinstance(inner, list | tuple):
            yield from _flat(inner)
        elif callable(inner):  # mmcv keeps a Compose there
            yield from _flat([inner])
        else:
            yield transform
