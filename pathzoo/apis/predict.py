"""Runs a published model over slides and images: what `pathzoo predict` calls."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pathzoo.apis.launch import Place, place
from pathzoo.apis.predict_batch import EXIT_SOME_FAILED, SlideTask, run_batch
from pathzoo.apis.predict_counts import check_counts, write_counts
from pathzoo.apis.predict_images import ImagesTask, finished_images, run_images
from pathzoo.apis.predict_inputs import Resolutions, sort_inputs
from pathzoo.apis.preemption import ended_cleanly_by_sigterm
from pathzoo.apis.setup import setup
from pathzoo.errors import DataError, PathzooError, SlideError
from pathzoo.wsi.grading import check_classifier
from pathzoo.wsi.isolation import end_idle, prepare
from pathzoo.wsi.names import slide_name
from pathzoo.wsi.pseudonyms import pseudonyms, table_beside
from pathzoo.wsi.run import TASKS, SlideResult
from pathzoo.wsi.run_options import RunOptions
from pathzoo.zoo.inputs import WORDS

EXIT_PARTIAL = 3


@dataclass
class PredictResult:
    """What came of a call: one entry per slide with an output, the CSV of the images, and what failed with why."""

    slides: list[SlideResult] = field(default_factory=list)
    #: How many of `slides` an earlier call, or another process, had done.
    reused: int = 0
    #: How many of these another process did during this call.
    elsewhere: int = 0
    images_csv: Path | None = None
    n_images: int = 0
    #: A detector's objects per slide.
    counts_csv: Path | None = None
    failed: list[tuple[Path, str]] = field(default_factory=list)
    #: False for a process of a launcher that leaves it to another one to speak for all.
    speaks: bool = True

    @property
    def exit_code(self) -> int:
        """0 all good; 2 nothing came out; 3 a slide has skipped tiles; 4 some inputs of a batch failed."""
        if not self.speaks:
            return 0
        if self.failed:
            return EXIT_SOME_FAILED if self.slides or self.n_images else PathzooError.exit_code
        return EXIT_PARTIAL if any(result.skipped for result in self.slides) else 0


def predict(
    inputs: Sequence[str | os.PathLike] | str | os.PathLike,
    model: str | os.PathLike,
    out: str | os.PathLike,
    *,
    classify: str | os.PathLike | None = None,
    mpp: float | None = None,
    mpp_csv: str | os.PathLike | None = None,
    batch_size: int = 32,
    num_workers: int = 2,
    device: str | None = None,
    tissue: bool = True,
    overlap: float | None = None,
    stride: int | None = None,
    reader: str | None = None,
    settings: Mapping[str, Any] | None = None,
    timeout: float = 60.0,
    isolate: bool = True,
    overwrite: bool = False,
    anonymise: bool = False,
    launcher: str = "none",
) -> PredictResult:
    """Predicts slides (`out/<slide>/`) and, by a classifier or an encoder, images (`out/predictions.csv`).

    What a slide's folder holds by task, `pathzoo.wsi.run.predict_slide` says; an encoder's vectors of images lie in
    `out/embeddings.npy`; a detector's objects per slide are counted in `out/counts.csv`, see
    `pathzoo.apis.predict_counts`.

    Slides whose output stands already are skipped; the same call goes on where an earlier one was ended, and several
    processes may be given the same output. Segmenters and detectors take images as slides of one level.

    Args:
        inputs: Files and folders; a folder stands for the slides and images directly in it.
        model: Name, `name@version` or folder of a published model; verified before it is loaded.
        out: The folder to write to.
        classify: A published classifier, named like `model`, that grades each object of a detector; see
            `pathzoo.wsi.grading`.
        mpp: Microns per pixel of the inputs, in place of what they state themselves.
        mpp_csv: The same file by file: a CSV with columns slide (file name or stem) and mpp.
        batch_size: Tiles per call of the network.
        num_workers: Threads that read tiles ahead.
        device: "cpu", "cuda", ...; the first GPU where there is one, else the CPU. Under a launcher each process takes
            the GPU of its local rank.
        tissue: Leave out tiles without tissue.
        overlap: Part of a tile that its neighbour covers too; by default 0 for classification and representation, 1/4
            for segmentation and 1/3 for detection.
        stride: Pixels of the model from one tile to the next, in place of `overlap`.
        reader: "tiled-tiff", "openslide" or "image"; by default what the file is decides.
        settings: What the task takes beside these; see `pathzoo.wsi.detection`.
        timeout: Seconds after which a decoder that gives no answer is ended.
        isolate: Decode in a process of its own, so that one that hangs or crashes can be ended.
        overwrite: Replace what stands in `out` for these inputs.
        anonymise: Outputs call slides by pseudonyms; the table that leads back is written beside `out`, as
            `<out>.names.csv`.
        launcher: "none", "pytorch" (torchrun) or "slurm": processes spread the slides among them.

    Returns:
        What was written and what failed; `exit_code` is what the command line ends with.

    Raises:
        PathzooError: Bad usage, an untrusted model, or a single input that cannot be used. Nothing is written then.
    """
    setup()
    where = place(launcher)
    slides, images = sort_inputs([inputs] if isinstance(inputs, str | os.PathLike) else inputs)
    resolutions = Resolutions(mpp, mpp_csv, [*slides, *images])
    folder = Path(out)
    options = RunOptions(
        tissue=tissue,
        overlap=overlap,
        stride=stride,
        reader=reader,
        settings=dict(settings or {}),
        batch_size=batch_size,
        num_workers=num_workers,
        isolate=isolate,
        timeout=timeout,
    )
    options.check()
    if slides and isolate:
        prepare()  # it starts while the model is loaded
    predictor, classifier = load_both(model, classify, device, where)
    slides, images = slides_and_images(slides, images, predictor, options)
    check_output(slides, folder)
    if predictor.task == "detection":
        check_counts(folder)
    many, result = len(slides) + len(images) > 1, PredictResult()
    with ended_cleanly_by_sigterm():
        names = _names([*slides, *images], folder, anonymise)
        called = {path: names[path] for path in images} if anonymise else None
        pictures = ImagesTask(images, resolutions, predictor, folder, batch_size, overwrite, many, called)
        if images and not overwrite:
            finished_images(pictures)  # refuses a table of others before any slide takes its time
        if slides:
            tasks = [
                SlideTask(
                    path, names[path], replace(options, mpp=resolutions.of(path)), names[path] if anonymise else None
                )
                for path in slides
            ]
            try:
                batch = run_batch(tasks, predictor, folder, overwrite, many, where, classifier)
            finally:
                end_idle()
            result = PredictResult(batch.results, batch.reused, batch.elsewhere, failed=batch.failed)
            result.speaks = where.rank == 0 or not batch.shared
            if predictor.task == "detection" and batch.results and result.speaks:
                result.counts_csv = write_counts(folder, predictor, classifier)
        if images and where.rank == 0:
            done = run_images(pictures)
            result.images_csv, result.n_images = done.csv, done.n
            result.failed += done.failed
    return result


def load(model: str | os.PathLike, device: str | None, where: Place) -> Any:
    """The model on the device that the user names, or on this process's own."""
    import torch

    from pathzoo.zoo.load import get_model

    if device is None or (device == "cuda" and where.world_size > 1):
        n = torch.cuda.device_count()
        device = f"cuda:{where.local_rank % n}" if n else "cpu"
    return get_model(model, device)


def load_both(
    model: str | os.PathLike, classify: str | os.PathLike | None, device: str | None, where: Place
) -> tuple[Any, Any]:
    """The model, and the classifier that grades its objects, or None.

    Raises:
        ZooError: Either cannot be trusted or found.
        SlideError: The two do not go together.
    """
    predictor = load(model, device, where)
    if classify is None:
        return predictor, None
    classifier = load(classify, device, where)
    check_classifier(predictor, classifier)
    return predictor, classifier


def slides_and_images(
    slides: list[Path], images: list[Path], predictor: Any, options: RunOptions
) -> tuple[list[Path], list[Path]]:
    """What runs as a slide and what as an image: classifiers and encoders alone take images as such.

    Raises:
        DataError: The model's task does not run over slides.
        SlideError: A setting means nothing to it.
    """
    if predictor.task not in TASKS:
        raise DataError(
            f"model {predictor.name}: its task is {predictor.task}; `pathzoo predict` runs {', '.join(TASKS)}"
        )
    takes = getattr(predictor, "takes", "pictures")  # a rule of a plug-in says nothing else
    if takes != "pictures":
        raise DataError(
            f"model {predictor.name}: takes {WORDS[takes]}, neither pictures nor slides: give it such an array "
            "(pathzoo.get_model)"
        )
    options.check_settings(predictor.task)
    if predictor.task not in ("classification", "representation") or (
        options.reader == "image" and predictor.input.mpp is not None
    ):
        return [*slides, *images], []
    if predictor.input.mpp is None:  # it takes images alone, and a TIFF may be one
        tiffs = [path for path in slides if path.suffix.lower() in (".tif", ".tiff")]
        return [path for path in slides if path not in tiffs], [*images, *tiffs]
    return slides, images


def check_output(slides: list[Path], folder: Path) -> None:
    """Raises DataError where `folder` is no folder, SlideError where two slides would have one folder in it."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; name a folder to write to")
    names: dict[str, Path] = {}
    for path in slides:
        other = names.setdefault(slide_name(path), path)
        if other != path:
            raise SlideError(f"{path}: writes to the same folder as {other}; predict them into two outputs")


def _names(paths: list[Path], folder: Path, anonymise: bool) -> dict[Path, str]:
    """How outputs call each input."""
    if not anonymise:
        return {path: slide_name(path) for path in paths}
    names: dict[str, Path] = {}
    for path in paths:
        other = names.setdefault(path.name, path)
        if other != path:
            raise DataError(f"{path}: would have the same pseudonym as {other}; predict them into two outputs")
    drawn = pseudonyms(table_beside(folder), names)
    return {path: drawn[path.name] for path in paths}
