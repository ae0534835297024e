"""BreakHis: breast tumour histology at four magnifications."""

import logging
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from pathzoo.datasets.file_search import files_below
from pathzoo.datasets.inventory import ImageRecord
from pathzoo.datasets.tiles import TileClassification
from pathzoo.errors import ConfigError, DataError
from pathzoo.registry import DATASETS

#: code in the file name -> subtype, in the order of the labels; the first four are benign
SUBTYPES = {
    "A": "adenosis",
    "F": "fibroadenoma",
    "PT": "phyllodes_tumor",
    "TA": "tubular_adenoma",
    "DC": "ductal_carcinoma",
    "LC": "lobular_carcinoma",
    "MC": "mucinous_carcinoma",
    "PC": "papillary_carcinoma",
}
_BENIGN = ("A", "F", "PT", "TA")
CLASSES = {"binary": ("benign", "malignant"), "subtype": tuple(SUBTYPES.values())}

#: magnification -> microns per pixel of an original image, 700 pixels wide (Spanhol et al. 2016). It agrees within 2 %
#: with the camera and optics that the paper names: 6.5 um pixels / (relay lens 3.3 x * objective 4, 10, 20 or 40 x).
PIXEL_SIZE = {40: 0.49, 100: 0.20, 200: 0.10, 400: 0.05}
_WIDTH, _HEIGHT = 700, 460

_NAME = re.compile(
    r"(?P<biopsy>SOB|CNB)_(?P<kind>[BM])_(?P<code>A|F|PT|TA|DC|LC|MC|PC)"
    r"(?:-(?P<year>\d\d)-(?P<slide>\d+[A-Z]*)-(?P<magnification>40|100|200|400)-(?P<number>\d+)"
    r"|_(?P<year2>\d\d)-(?P<slide2>\d+[A-Z]*)_(?P<number2>\d+))"
)
_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


def parse_name(name: str) -> dict[str, Any] | None:
    """What a BreakHis file name says; None for a name that does not fit.

    Two forms: `SOB_B_A-14-22549AB-40-001.png` (biopsy, class, subtype, year, slide, magnification, number), the
    original, and `SOB_B_A_14-22549AB_0.png`, tiles in circulation whose magnification is not recorded.

    Returns:
        label ("benign" or "malignant"), subtype, code, year, slide, patient (the slide's digits: 22549AB and 22549CD
        are one patient), magnification (int or None).
    """
    stem, suffix = os.path.splitext(name)  # noqa: PTH122
    match = _NAME.fullmatch(stem)
    if match is None or suffix.lower() not in _SUFFIXES:
        return None
    code, slide = match["code"], match["slide"] or match["slide2"]
    if (match["kind"] == "B") != (code in _BENIGN):
        return None
    return {
        "label": "benign" if match["kind"] == "B" else "malignant",
        "subtype": SUBTYPES[code],
        "code": code,
        "year": match["year"] or match["year2"],
        "slide": slide,
        "patient": slide.rstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        "magnification": int(match["magnification"]) if match["magnification"] else None,
    }


def pixel_size(magnification: int | None, width: int | None, height: int | None) -> float | None:
    """Microns per pixel of an image of `width` x `height` pixels; None where it cannot be told.

    A downsized image keeps the originals' shape of 700 x 460: its pixels are larger by 700 / width. Another shape is a
    crop, whose pixel size depends on what happened before: not known.
    """
    if magnification is None or not width or not height or abs(width / height / (_WIDTH / _HEIGHT) - 1) > 0.02:
        return None
    return PIXEL_SIZE[magnification] * _WIDTH / width


@DATASETS.register_module()
class BreakHis(TileClassification):
    """BreakHis (Spanhol et al., IEEE TBME 63(7), 2016; CC BY 4.0): 7909 H&E images of 700 x 460 from 82 slide folders.

    Found by file name anywhere below `data_root`, through linked folders too, so the official tree and a flat folder
    both do:

        BreaKHis_v1/histology_slides/breast/
          benign/SOB/{adenosis,fibroadenoma,phyllodes_tumor,tubular_adenoma}/
            SOB_B_A_14-22549AB/{40X,100X,200X,400X}/SOB_B_A-14-22549AB-40-001.png ...
          malignant/SOB/{ductal,lobular,mucinous,papillary}_carcinoma/...

    | magnification | benign | malignant | um per pixel |
    |---|---|---|---|
    | 40 | 625 | 1370 | 0.49 |
    | 100 | 644 | 1437 | 0.20 |
    | 200 | 623 | 1390 | 0.10 |
    | 400 | 588 | 1232 | 0.05 |

    Adds subtype and magnification (int or None) to what `TileClassification` yields. The patient is the digits of the
    slide id. To share folds between magnifications, save one split of `magnification="all"` and give it to each.

    Args:
        data_root: any folder above the images.
        task: "binary" (benign, malignant) or "subtype" (the 8 of `SUBTYPES`).
        magnification: 40, 100, 200, 400, "unknown" (not recorded), a tuple of these, or "all".
        exclude: slides left out, as subtype-year-slide, and named in the log. By default DC-14-13412: the slide number
            of LC-14-13412 (which stays) under another diagnosis, held to be a mislabelled duplicate.
        ignore_unknown_names: leave out images whose names do not fit, and say how many, in place of an error.
        subset, split, on_bad_image, shuffle_labels, seed, metainfo, indices, serialize_data, pipeline, test_mode,
            lazy_init: as in `TileClassification`.

    Raises:
        ConfigError: no such folder, a task or magnification that does not exist.
        DataError: an image name that does not fit, one name in two folders, a class folder that contradicts the name,
            no image of the magnification; and those of `TileClassification`.
    """

    mpp_remedy = "choose magnifications whose pixel size is known (see pixel_size)"

    def __init__(
        self,
        data_root: str,
        task: str = "binary",
        magnification: int | str | Sequence[int | str] = "all",
        exclude: Sequence[str] = ("DC-14-13412",),
        ignore_unknown_names: bool = False,
        subset: str = "all",
        split: Mapping[str, Any] | str | Path | None = None,
        on_bad_image: str = "error",
        shuffle_labels: bool | int | None = None,
        seed: int = 0,
        metainfo: Mapping[str, Any] | None = None,
        indices: int | Sequence[int] | None = None,
        serialize_data: bool = True,
        pipeline: Sequence[dict | Callable] = (),
        test_mode: bool = False,
        lazy_init: bool = False,
    ) -> None:
        if task not in CLASSES:
            raise ConfigError(f"task={task!r}: give one of {', '.join(map(repr, CLASSES))}")
        self.task, self.exclude, self.ignore_unknown_names = task, tuple(exclude), ignore_unknown_names
        self.magnifications = _magnifications(magnification)
        super().__init__(
            data_root=str(data_root),
            classes=CLASSES[task],
            subset=subset,
            split=split,
            on_bad_image=on_bad_image,
            shuffle_labels=shuffle_labels,
            seed=seed,
            metainfo=metainfo,
            indices=indices,
            serialize_data=serialize_data,
            pipeline=pipeline,
            test_mode=test_mode,
            lazy_init=lazy_init,
        )

    def find_images(self) -> tuple[list[dict[str, Any]], Collection[str]]:
        """All images below the root that fit magnification and exclusion, and the ids of those left out."""
        root = Path(os.path.abspath(self.data_root))  # noqa: PTH100 - resolve() would follow links
        if not root.is_dir():
            raise ConfigError(f"data_root={self.data_root!r}: no such folder; give the one that holds BreaKHis_v1")
        found = self._parse_tree(root)
        excluded = [i for i in found if f"{i['code']}-{i['year']}-{i['slide']}" in self.exclude]
        if excluded:
            names = sorted({f"{i['code']}-{i['year']}-{i['slide']}" for i in excluded})
            print_log(f"left out {len(excluded)} images of {', '.join(names)} (exclude=...)", logger="current")
        gone = {info["item"] for info in excluded}
        gone |= {info["item"] for info in found if info["magnification"] not in self.magnifications}
        wanted = [info for info in found if info["item"] not in gone]
        if not wanted:
            kinds = sorted({str(i["magnification"] or "unknown") for i in found})
            raise DataError(
                f"{root}: no image of magnification {self.magnifications} among {len(found)} "
                f"(there are {', '.join(kinds) or 'none at all'}): choose another or correct data_root"
            )
        for info in wanted:
            info["label"] = info["label"] if self.task == "binary" else info["subtype"]
            del info["code"], info["year"]
        return wanted, gone

    def resolution(self, info: Mapping[str, Any], record: ImageRecord) -> float | None:
        """See `pixel_size`."""
        return pixel_size(info["magnification"], record.width, record.height)

    def _parse_tree(self, root: Path) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        strangers = []
        for path in files_below(root):
            if path.suffix.lower() not in _SUFFIXES or path.name.startswith("."):
                continue
            info = parse_name(path.name)
            if info is None:
                strangers.append(path)
                continue
            if path.name in found:
                raise DataError(
                    f"{path.name} stands in {Path(found[path.name]['img_path']).parent} and in {path.parent}: "
                    "point data_root at one copy"
                )
            item = path.relative_to(root)
            wrong = {"benign", "malignant"} - {info["label"]}
            if wrong & set(item.parts[:-1]):
                raise DataError(f"{path}: the name says {info['label']}, the folder {wrong.pop()}: put it right")
            found[path.name] = {"img_path": str(path), "item": item.as_posix(), "where": str(root), **info}
        if strangers and not self.ignore_unknown_names:
            raise DataError(
                f"{strangers[0]}: not a BreakHis file name such as SOB_B_A-14-22549AB-40-001.png "
                f"({len(strangers)} such files): move them away or set ignore_unknown_names=True"
            )
        if strangers:
            text = f"left out {len(strangers)} images whose names are not BreakHis's, first {strangers[0].name}"
            print_log(text, logger="current", level=logging.WARNING)
        return list(found.values())


def _magnifications(value: int | str | Sequence[int | str]) -> tuple[int | None, ...]:
    known: dict[int | str, int | None] = {**{m: m for m in PIXEL_SIZE}, "unknown": None}
    if value == "all":
        return tuple(known.values())
    values = (value,) if isinstance(value, (int, str)) else tuple(value)
    for one in values:
        if one not in known:
            raise ConfigError(f"magnification={one!r}: give {', '.join(map(str, known))}, several of these, or 'all'")
    return tuple(known[one] for one in values)
