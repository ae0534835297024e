"""How a model is run over a slide."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pathzoo.errors import SlideError
from pathzoo.fileio import canonical_json, sha256_bytes
from pathzoo.wsi.predictor import Predictor

#: task -> part of a tile that its neighbour covers too, where the user says nothing. Tiles are judged alone in
#: classification and representation; a segmenter's borders are blended; an object must lie whole in some tile (1/3:
#: DESIGN, glomeruli).
DEFAULT_OVERLAP = {"classification": 0.0, "segmentation": 0.25, "detection": 1 / 3, "representation": 0.0}
#: task -> what it takes beside the options; see `pathzoo.wsi.segmentation` and `pathzoo.wsi.detection`.
SETTINGS: dict[str, tuple[str, ...]] = {
    "classification": (),
    "segmentation": ("outline_tolerance", "min_region_pixels"),
    "detection": ("score_threshold", "merge_iou", "merge_ios"),
    "representation": (),
}


_PART = 1 << 16


@dataclass(frozen=True)
class RunOptions:
    """How a slide is run over. All but the last block change the result.

    Args:
        mpp: Microns per level-0 pixel, in place of what the slide states.
        tissue: Predict only tiles that touch tissue; False predicts the whole scanned area.
        overlap: Part of a tile that its neighbour covers too, 0 <= overlap < 1; None takes `DEFAULT_OVERLAP`.
        stride: Pixels of the model from one tile to the next, in place of `overlap`.
        reader: Name of the reader, see `Slide`; None lets the file decide.
        settings: What a task takes beside these, such as a detector's score_threshold.
        batch_size: Tiles per call of the predictor.
        num_workers: Threads that decode ahead.
        isolate: Read in a process of its own, which can be ended where a decoder hangs or crashes.
        timeout: Seconds without an answer after which a decoder is taken for hanging.
    """

    mpp: float | None = None
    tissue: bool = True
    overlap: float | None = None
    stride: int | None = None
    reader: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    batch_size: int = 32
    num_workers: int = 2
    isolate: bool = True
    timeout: float = 60.0

    def check(self) -> None:
        """Raises SlideError that names the option and its value."""
        if self.batch_size < 1 or self.num_workers < 1:
            raise SlideError(
                f"batch size is {self.batch_size} and workers are {self.num_workers}; both must be at least 1"
            )
        if self.overlap is not None and not 0 <= self.overlap < 1:
            raise SlideError(f"overlap is {self.overlap}; it must be at least 0 and below 1")
        if self.stride is not None and (self.stride < 1 or self.overlap is not None):
            raise SlideError(f"stride is {self.stride}; it must be at least 1 px, and stands in place of an overlap")
        if not self.timeout > 0:
            raise SlideError(f"timeout is {self.timeout}; it must be above 0 seconds")

    def check_settings(self, task: str) -> None:
        """Raises SlideError where `settings` holds what `task` would not look at."""
        known = SETTINGS.get(task, ())
        if unknown := [name for name in self.settings if name not in known]:
            raise SlideError(f"{unknown[0]} means nothing to {task}; it takes {', '.join(known) or 'no settings'}")

    def result_key(self, path: Path, predictor: Predictor, classifier: Predictor | None = None) -> str:
        """Digest of all that decides the result: same key, same output. Of the file: its size, and parts of it."""
        given = asdict(self)
        for name in ("batch_size", "num_workers", "isolate", "timeout"):
            del given[name]
        model = [predictor.name, predictor.version, predictor.digest]
        decisive = {"options": given, "model": model, "file": fingerprint(path)}
        if classifier is not None:
            decisive["classifier"] = [classifier.name, classifier.version, classifier.digest]
        return sha256_bytes(canonical_json(decisive))


def fingerprint(path: Path) -> list[str | int]:
    """Size of a file, and SHA-256 of its first, middle and last 64 KiB: slides of one scanner may be of one size."""
    size = path.stat().st_size
    parts = b""
    with path.open("rb") as file:
        for start in (0, max(0, size // 2 - _PART // 2), max(0, size - _PART)):
            file.seek(start)
            parts += file.read(_PART)
    return [size, sha256_bytes(parts)]
