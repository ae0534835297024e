"""Runs a published model over slides and images: what `pathzoo predict` calls."""

import csv
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pathzoo.apis.setup import setup
from pathzoo.errors import DataError, PathzooError, SlideError
from pathzoo.fileio import write_json
from pathzoo.nearest import did_you_mean
from pathzoo.wsi.images import predict_images, write_image_predictions
from pathzoo.wsi.outputs import package_versions
from pathzoo.wsi.run import SlideResult, predict_slide

#: Files that are read as slides; all else that is known is an image.
SLIDE_SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif", ".dcm", ".czi")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
EXIT_PARTIAL, EXIT_SOME_FAILED = 3, 4


@dataclass
class PredictResult:
    """What came of a call: one entry per slide that was written, the CSV of the images, and what failed with why."""

    slides: list[SlideResult] = field(default_factory=list)
    images_csv: Path | None = None
    n_images: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 all good; 2 nothing came out; 3 a slide has skipped tiles; 4 some inputs of a batch failed."""
        if self.failed:
            return EXIT_SOME_FAILED if self.slides or self.n_images else PathzooError.exit_code
        return EXIT_PARTIAL if any(result.skipped for result in self.slides) else 0


def predict(
    inputs: Sequence[str | os.PathLike] | str | os.PathLike,
    model: str | os.PathLike,
    out: str | os.PathLike,
    *,
    mpp: float | None = None,
    mpp_csv: str | os.PathLike | None = None,
    batch_size: int = 32,
    num_workers: int = 2,
    device: str | None = None,
    tissue: bool = True,
    overwrite: bool = False,
) -> PredictResult:
    """Predicts slides (`out/<slide>/`) and images (`out/predictions.csv`).

    Args:
        inputs: Files and folders; a folder stands for the slides and images directly in it.
        model: Name, `name@version` or folder of a published model; verified before it is loaded.
        out: The folder to write to.
        mpp: Microns per pixel of the inputs, in place of what they state themselves.
        mpp_csv: The same file by file: a CSV with columns slide (file name or stem) and mpp.
        batch_size: Tiles per call of the network.
        num_workers: Threads that read tiles ahead.
        device: "cpu", "cuda", ...; the first GPU where there is one, else the CPU.
        tissue: Leave out tiles without tissue.
        overwrite: Replace what stands in `out` for these inputs.

    Returns:
        What was written and what failed; `exit_code` is what the command line ends with.

    Raises:
        PathzooError: Bad usage, an untrusted model, or a single input that cannot be used. Nothing is written then.
    """
    setup()
    slides, images = _sort_inputs([inputs] if isinstance(inputs, str | os.PathLike) else inputs)
    resolutions = _Resolutions(mpp, mpp_csv, [*slides, *images])
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; name a folder to write to")
    predictor = _load(model, device)
    if predictor.input.mpp is None:  # it takes images alone, and a TIFF may be one
        images += [path for path in slides if path.suffix.lower() in (".tif", ".tiff")]
        slides = [path for path in slides if path not in images]
    _refuse_clashes(slides, images, folder, overwrite)
    result = PredictResult()
    many = len(slides) + len(images) > 1
    for number, path in enumerate(slides, 1):
        try:
            result.slides.append(
                predict_slide(
                    path,
                    predictor,
                    folder,
                    mpp=resolutions.of(path),
                    batch_size=batch_size,
                    tissue=tissue,
                    overwrite=overwrite,
                    num_workers=num_workers,
                    progress=_Progress(f"[{number}/{len(slides)}] {path.name}", "tiles"),
                    arguments={"model": predictor.name},
                )
            )
        except PathzooError as error:
            if not many:
                raise
            _report_failure(result, path, str(error))
    if images:
        _predict_images(images, predictor, folder, resolutions, batch_size, many, result)
    return result


def _predict_images(
    images: list[Path],
    predictor: Any,
    folder: Path,
    resolutions: "_Resolutions",
    batch_size: int,
    many: bool,
    result: PredictResult,
) -> None:
    started = time.perf_counter()
    predictions = predict_images(
        images,
        predictor,
        predictor.prepare,
        batch_size=batch_size,
        mpp=[resolutions.of(path) for path in images],
        progress=_Progress("images", "images"),
    )
    if predictions.failed and not many:
        raise DataError(predictions.failed[0][1])
    for path, reason in predictions.failed:
        _report_failure(result, path, reason)
    if not predictions.paths:
        return
    result.n_images = len(predictions.paths)
    result.images_csv = folder / "predictions.csv"
    write_image_predictions(result.images_csv, predictions)
    record = {
        "model": {"name": predictor.name, "version": predictor.version, "digest": predictor.digest},
        "versions": package_versions(),
        "images": result.n_images,
        "failed": [{"image": path.name, "reason": reason} for path, reason in predictions.failed],
        "seconds": round(time.perf_counter() - started, 3),
    }
    write_json(folder / "predict_run.json", record)


def _report_failure(result: PredictResult, path: Path, reason: str) -> None:
    result.failed.append((path, reason))
    print(f"pathzoo: {reason}", file=sys.stderr)


def _sort_inputs(inputs: Sequence[str | os.PathLike]) -> tuple[list[Path], list[Path]]:
    slides, images = [], []
    for given in inputs:
        path = Path(given)
        if path.is_dir() and path.suffix.lower() not in SLIDE_SUFFIXES:
            known = SLIDE_SUFFIXES + IMAGE_SUFFIXES
            found = sorted(f for f in path.iterdir() if f.suffix.lower() in known and f.name[0] != "." and f.is_file())
            if not found:
                raise DataError(f"{path}: holds no slide ({' '.join(SLIDE_SUFFIXES)}) and no image; name a file")
        elif path.exists():
            found = [path]
        else:
            raise DataError(f"{path}: no such file or folder")
        for file in found:
            (images if file.suffix.lower() in IMAGE_SUFFIXES else slides).append(file)
    return slides, images


def _refuse_clashes(slides: list[Path], images: list[Path], folder: Path, overwrite: bool) -> None:
    stems: dict[str, Path] = {}
    for path in slides:
        if path.stem in stems:
            raise SlideError(f"{path}: writes to the same folder as {stems[path.stem]}; predict them into two outputs")
        stems[path.stem] = path
    if images and not overwrite and (folder / "predictions.csv").exists():
        raise DataError(f"{folder / 'predictions.csv'}: exists; choose another output, or --overwrite")


def _load(model: str | os.PathLike, device: str | None) -> Any:
    import torch

    from pathzoo.zoo.load import get_model

    return get_model(model, device or ("cuda" if torch.cuda.is_available() else "cpu"))


class _Resolutions:
    """The user's word on microns per pixel, for all files or file by file; None where there is none."""

    def __init__(self, mpp: float | None, mpp_csv: str | os.PathLike | None, inputs: Sequence[Path]) -> None:
        if mpp is not None and not 0 < mpp < 1000:
            raise DataError(f"--mpp {mpp}: microns per pixel are above 0 (a scanner's 40x gives about 0.25)")
        self._all = mpp
        self._each = {} if mpp_csv is None else _read_mpp_csv(Path(mpp_csv))
        unmatched = set(self._each) - {path.name for path in inputs} - {path.stem for path in inputs}
        if unmatched:
            hint = did_you_mean(min(unmatched), [path.name for path in inputs])
            raise DataError(f"{mpp_csv}: {min(unmatched)!r} is none of the {len(inputs)} inputs{hint}")

    def of(self, path: Path) -> float | None:
        return self._each.get(path.name, self._each.get(path.stem, self._all))


def _read_mpp_csv(path: Path) -> dict[str, float]:
    if not path.is_file():
        raise DataError(f"--mpp-csv {path}: no such file")
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not {"slide", "mpp"} <= set(reader.fieldnames or ()):
            raise DataError(f"{path}: needs the columns slide,mpp; found {','.join(reader.fieldnames or ())}")
        table = {}
        for row in reader:
            try:
                value = float(row["mpp"])
            except (TypeError, ValueError):
                value = 0.0
            if not 0 < value < 1000:
                raise DataError(f"{path}, line {reader.line_num}: mpp {row['mpp']!r} is no number above 0")
            if row["slide"] in table:
                raise DataError(f"{path}, line {reader.line_num}: {row['slide']!r} stands twice; keep one line")
            table[row["slide"]] = value
    return table


class _Progress:
    """A line on a terminal, at most four times a second; nothing in a log file but the end."""

    def __init__(self, title: str, unit: str) -> None:
        self._title, self._unit, self._shown = title, unit, 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        terminal = sys.stderr.isatty()
        if done < total and (not terminal or now - self._shown < 0.25):
            return
        self._shown = now
        end = "\n" if done >= total else ""
        print(f"{chr(13) if terminal else ''}{self._title}: {done}/{total} {self._unit}", end=end, file=sys.stderr)
