"""How good drawn pictures are, and whether any of them may copy a patient's: numbers, and a page to look at."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from torch import nn

from pathzoo.apis.synthesis_maps import Drawn, TrainingMaps
from pathzoo.apis.synthesize import draw_one, maps_class
from pathzoo.evaluation.functional.image_quality import Memorised, kid, memorised, shrink, ssim
from pathzoo.fileio import atomic_path, write_json
from pathzoo.visualization.synthesis import Triptych, triptychs

#: Side of the shrunk pictures that stand for features where no network is at hand.
_SIDE = 32
#: Label maps that are drawn again, unchanged, to be held against their real pictures.
_COMPARED = 200
_ROWS = 8


def report_synthesis(cfg: Config, model: nn.Module, folder: str | Path, pictures: int = _ROWS) -> dict[str, Any]:
    """Judges drawn pictures beside the real ones that their label maps are from; writes report.json and pictures.png.

    - `quality`: mean SSIM and mean absolute difference (of 0..255) between real training pictures and what the
      generator draws of their own label maps, without noise and changes; n of them. A run's own has trained on them.
    - `kid`: Kernel Inception Distance of the drawn pictures from the training pictures of the label maps, in units of
      the features, which are area means of 32 x 32 parts (0..1) of each channel, no Inception network's: values compare
      with each other alone. Beside it that of the validation patients' pictures that show the same, as a measure for
      how far real ones lie apart.
    - `memorised`: `pathzoo.evaluation.functional.memorised` on the same features: how many drawn pictures are as near
      to a real one as no two patients' pictures are, and which. Real ones are those of all training maps, whatever
      classes were drawn; a generator's from elsewhere are not among them. One that was mirrored or turned is not
      recognised.

    Args:
        cfg: The translator's config, with the options of the drawing.
        model: The generator, in evaluation mode.
        folder: Where `synthesize` wrote them.
        pictures: Rows of the page: the flagged ones first, then evenly over the others.

    Returns:
        What report.json holds.
    """
    kind = maps_class(cfg)
    classes = kind.record_of(folder).get("classes")
    maps = kind(cfg, classes)
    made = maps.read(folder)
    features = _features(map(maps.real, range(len(maps))))
    others = _features(map(made.picture, range(len(made.items))))
    seen = maps if classes is None else kind(cfg)  # by the generator, which may copy any of them
    copies = _copies(others, features if classes is None else _features(map(seen.real, range(len(seen)))), seen)
    found = {
        "n": len(others),
        "parents": {maps.map_name: len(maps), "patients": len(set(maps.patients))},
        "quality": _quality(model, maps),
        "kid": {"features": f"area means of {_SIDE} x {_SIDE} parts", "drawn": _kid(features, others)}
        | _validation(maps, features),
        "memorised": _told(copies, made),
    }
    page = _page(maps, made, copies, seen, pictures)
    with atomic_path(Path(folder) / "pictures.png") as temporary:
        page.save(temporary)
    write_json(Path(folder) / "report.json", found)
    return found


def _features(pictures: Iterable[np.ndarray]) -> np.ndarray:
    """(N, D) of 0..1; one picture is in memory at a time."""
    return np.concatenate([shrink(picture[None] / 255, _SIDE) for picture in pictures])


def _copies(drawn: np.ndarray, real: np.ndarray, maps: TrainingMaps) -> Memorised | None:
    """None with one training patient alone: how far patients lie apart is not known then."""
    return memorised(drawn, real, maps.patients) if len(set(maps.patients)) > 1 else None


def _told(copies: Memorised | None, made: Drawn) -> dict[str, Any]:
    if copies is None:
        return {"flagged": None, "note": "one training patient alone: how far patients lie apart is not known"}
    ratios = copies.ratio[np.isfinite(copies.ratio)]
    return {
        "flagged": int(copies.flagged.sum()),
        "threshold": copies.threshold,
        "median_ratio": float(np.median(ratios)) if len(ratios) else None,
        "items": [made.items[index] for index in np.flatnonzero(copies.flagged)],
    }


def _quality(model: nn.Module, maps: TrainingMaps) -> dict[str, Any]:
    n = len(maps)
    similar, different = [], []
    for index in np.unique(np.linspace(0, n - 1, min(_COMPARED, n)).round().astype(int)):
        real = maps.real(index)
        drawn = np.moveaxis(draw_one(model, maps.label(index), None), 0, -1).reshape(real.shape)
        similar.append(ssim(real, drawn, 255.0))
        different.append(np.abs(real - drawn).mean())
    return {"n": len(similar), "ssim": float(np.mean(similar)), "mae": float(np.mean(different))}


def _kid(one: np.ndarray, other: np.ndarray) -> dict[str, float] | None:
    if min(len(one), len(other)) < 2:
        return None
    mean, deviation = kid(one, other)
    return {"mean": mean, "std_of_subsets": deviation}


def _validation(maps: TrainingMaps, features: np.ndarray) -> dict[str, Any]:
    pictures = [shrink(picture[None] / 255, _SIDE) for picture in maps.validation()]
    return {} if len(pictures) < 2 else {"validation": _kid(features, np.concatenate(pictures))}


def _page(maps: TrainingMaps, made: Drawn, copies: Memorised | None, seen: TrainingMaps, count: int) -> Any:
    from PIL import Image

    all_flagged = np.flatnonzero(copies.flagged) if copies else np.array([], int)
    flagged = all_flagged[: count // 2]
    others = np.setdiff1d(np.arange(len(made.items)), all_flagged)
    evenly = np.linspace(0, len(others) - 1, count - len(flagged)).round().astype(int) if len(others) else []
    rows = []
    for index in dict.fromkeys([*flagged, *(others[place] for place in evenly)]):
        rows.append(
            Triptych(
                maps.real(made.parents[index]),
                made.label(int(index)),
                made.picture(int(index)),
                seen.real(int(copies.neighbour[index])) if copies else None,
                f"{made.items[index]}{', flagged' if index in all_flagged else ''}",
                ("of the label map", "", "", f"{copies.ratio[index]:.2f} of the patients' distance" if copies else ""),
            )
        )
    title = f"{len(made.items)} drawn {maps.drawn_name}" + (
        f", {len(all_flagged)} flagged: nearer to a real one than two patients are" if copies else ""
    )
    return Image.fromarray(triptychs(rows, maps.classes, maps.palette, columns=1, title=title))
