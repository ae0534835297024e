"""What unlabelled tiles are checked for before anything is trained on them: their size, and who is tested on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pathzoo.datasets.leakage import blind_to, held_out_by
from pathzoo.datasets.splits import Split
from pathzoo.datasets.tile_windows import pixel_ratio, size_at, whole_tiles
from pathzoo.errors import DataError, LeakageError


def fitted(info: Mapping[str, Any], size: int, mpp: float | None) -> dict[str, Any]:
    """The info of a picture or stored tile with `ratio` and `tiles`, once it is known to be large enough.

    Args:
        info: kind, item, where, mpp, width, height. That of a slide comes back as it is: it was surveyed for a size.
        size: the crop that views take, in pixels.
        mpp: microns per pixel that the picture is brought to; None takes it as it is.

    Raises:
        DataError: smaller than the crop, its resolution not known or too coarse.
    """
    if info["kind"] == "slide":
        return dict(info)
    ratio = pixel_ratio(info, mpp)
    width, height = size_at(info["width"], info["height"], ratio)
    if min(width, height) < size:
        at = "" if ratio == 1 else f" at {mpp:g} um/px"
        raise DataError(
            f"{info['where']}: {info['item']} has {width} x {height} px{at}, smaller than the crop of {size} px that "
            "the views take: leave it out, or take smaller views"
        )
    return {**info, "ratio": ratio, "tiles": whole_tiles(info["width"], info["height"], ratio, size)}


def not_held_out(
    infos: Sequence[dict[str, Any]], held_out: str | Path, leave_out: bool
) -> tuple[list[dict[str, Any]], list[str]]:
    """The infos of what another task's split does not keep for validation or testing.

    Args:
        infos: item, patient, slide, sha256 of each tile.
        held_out: the task's `splits.json`.
        leave_out: leave the others out; otherwise they are an error.

    Returns:
        The infos, and caveats: what neither patients nor slides could tell.

    Raises:
        ConfigError, DataError: no such file, or not a split.
        LeakageError: names the first patient or picture, and counts them.
    """
    split = Split.load(held_out)
    found = held_out_by(split, infos)
    if found and not leave_out:
        raise LeakageError(
            f"{len(found)} of {len(infos)} tiles belong to what {held_out} keeps for validation and testing, first: "
            f"{found[0][1]}; what is tested on may not be learnt from, labels or not: take them out of source, or set "
            "leave_out_tested=True"
        )
    tested = {item for item, _ in found}
    rest = [info for info in infos if info["item"] not in tested]
    blind = blind_to(split, rest, kept_out=True)
    caveat = (
        f"{blind} of {len(rest)} tiles may be of patients that {Path(held_out).name} keeps for validation and testing: "
        "patients or slides are not known on both sides, so bytes alone were compared"
    )
    return rest, [caveat] if blind else []
