"""Slides by name: what tells that two data sets hold the same tissue where nobody wrote down the patients.

Needs no torch.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pathzoo.wsi.names import slide_name


@dataclass(frozen=True)
class Origins:
    """What the images of one subset come from, as far as their table tells.

    Attributes:
        slides: slide (`slide_key`) -> its patient, None where not known.
        without_slide: images whose slide is not known.
        without_patient: images whose patient is not known.
    """

    slides: Mapping[str, str | None]
    without_slide: int = 0
    without_patient: int = 0

    @classmethod
    def of(cls, images: Iterable[tuple[str | None, str | None]]) -> "Origins":
        """Of (slide, patient) of each image; a slide's patient is the first that is known."""
        slides: dict[str, str | None] = {}
        without_slide = without_patient = 0
        for slide, patient in images:
            without_patient += patient is None
            if slide is None:
                without_slide += 1
            else:
                key = slide_key(slide)
                slides[key] = slides.get(key) or patient
        return cls(slides, without_slide, without_patient)

    def to_json(self) -> dict[str, Any]:
        """As plain data, in an order that does not depend on that of the images."""
        return {
            "slides": dict(sorted(self.slides.items())),
            "without_slide": self.without_slide,
            "without_patient": self.without_patient,
        }


def slide_key(name: str) -> str:
    """A slide's name without folders and without the ending of a slide's file: `2021/S-17.svs` is `S-17`."""
    return slide_name(PurePosixPath(name.replace("\\", "/")))


def same_slide(info: Mapping[str, Any], origins: Mapping[str, Origins | None]) -> tuple[str, str] | None:
    """(slide, subset) where an image is of a slide that a subset holds; None where it is not, or patients say so.

    Where both sides know the patient, it is patients that are compared: two hospitals may both have a slide `1`.

    Args:
        info: slide and patient of the image, None where not known.
        origins: subset -> what it comes from; None where its split does not tell.
    """
    if not info.get("slide"):
        return None
    slide = slide_key(info["slide"])
    for subset, part in origins.items():
        if part is None or slide not in part.slides:
            continue
        if info["patient"] is None or part.slides[slide] is None:
            return slide, subset
    return None


def beyond_names(infos: Sequence[Mapping[str, Any]], origins: Iterable[Origins | None], by_patient: bool) -> int:
    """How many images cannot be told by name to come from other tissue than the subsets: bytes alone compare them.

    An image is told apart by its patient where every patient of the subsets is known, and by its slide where every
    slide is.

    Args:
        infos: slide and patient of each image, None where not known.
        origins: what the subsets come from; None where their split does not tell.
        by_patient: whether the split keeps patients together at all.
    """
    parts = list(origins)
    patients = by_patient and all(part is not None and not part.without_patient for part in parts)
    slides = all(part is not None and not part.without_slide for part in parts)
    return sum(
        not ((patients and info["patient"] is not None) or (slides and bool(info.get("slide")))) for info in infos
    )
