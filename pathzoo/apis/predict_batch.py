"""Many slides, one after another, beside other processes that do the same: nothing twice, nothing lost."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from pathzoo.apis.predict_progress import BatchProgress
from pathzoo.errors import OutputError, PathzooError, SlideError
from pathzoo.wsi.claims import Claims
from pathzoo.wsi.predictor import Predictor
from pathzoo.wsi.run import SlideResult, finished_result, predict_slide
from pathzoo.wsi.run_options import RunOptions

#: Ended by SIGTERM: the same command goes on (DESIGN, exit codes).
EXIT_PREEMPTED = 75
_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class SlideTask:
    """One slide of a batch: where it lies, how outputs call its folder, and how to run over it."""

    path: Path
    name: str
    options: RunOptions
    #: How outputs call the slide inside its files; None takes the file's name.
    title: str | None = None


@dataclass
class BatchResult:
    """`results` holds every slide with an output, the ones done before included; `reused` counts those."""

    results: list[SlideResult]
    failed: list[tuple[Path, str]]
    reused: int = 0


def run_batch(
    tasks: Sequence[SlideTask], predictor: Predictor, out: Path, overwrite: bool = False, many: bool | None = None
) -> BatchResult:
    """Runs every slide that is not done yet and that no other process works on; waits for what others work on.

    A slide whose output stands already is left as it is where the same model and options made it, and is a failure
    where others did, unless `overwrite`.

    Args:
        tasks: The slides.
        predictor: The model.
        out: Their outputs' folder, which other processes may share.
        overwrite: Do slides again that an earlier call did.
        many: Go on after a failure; by default where there are several slides.

    Returns:
        What came of all slides, whoever did them.

    Raises:
        SlideError: Without `many`, what makes the slide fail.
        OutputError: Nothing more can be written; what was done before is kept.
    """
    batch = BatchResult([], [])
    many = len(tasks) > 1 if many is None else many
    progress = BatchProgress([task.path for task in tasks], many)
    with Claims(out) as claims, _ended_cleanly_by_sigterm():
        pending = list(tasks)
        while pending:
            pending = [
                task for task in pending if not _attempt(task, predictor, out, overwrite, claims, batch, progress)
            ]
            if pending:
                progress.wait_for(len(pending))
                time.sleep(_POLL_SECONDS)
        if batch.failed and not many:
            raise SlideError(batch.failed[0][1])
    return batch


def _attempt(
    task: SlideTask,
    predictor: Predictor,
    out: Path,
    overwrite: bool,
    claims: Claims,
    batch: BatchResult,
    progress: BatchProgress,
) -> bool:
    """Whether the slide needs no further attempt: done or failed, here or elsewhere."""
    with claims.claim(task.name) as ours:
        if not ours:
            return False
        reason = claims.failure(task.name)
        if reason is None:
            try:
                result = _reused(task, predictor, out, overwrite and not claims.done(task.name))
                if result is None:
                    with progress.slide(task.path) as report:
                        result = _run(task, predictor, out, overwrite, report)
                    claims.note_done(task.name)
                else:
                    batch.reused += 1
                    progress.reused(task.path)
                batch.results.append(result)
                return True
            except OutputError:
                raise  # a full disk is no fault of this slide: the others would fail as well
            except PathzooError as error:
                reason = str(error)
                claims.note_failure(task.name, reason)
                progress.failed(task.path, reason)
        batch.failed.append((task.path, reason))
        return True


def _run(
    task: SlideTask, predictor: Predictor, out: Path, overwrite: bool, report: Callable[[int, int], None]
) -> SlideResult:
    return predict_slide(
        task.path,
        predictor,
        out,
        task.options,
        name=task.name,
        title=task.title,
        overwrite=overwrite,
        progress=report,
        arguments={"model": predictor.name},
    )


def _reused(task: SlideTask, predictor: Predictor, out: Path, anew: bool) -> SlideResult | None:
    """The result of an earlier run, or of another process; None where the slide is to be done."""
    folder = out / task.name
    if anew or not folder.exists():
        return None
    found = finished_result(folder)
    if found is None:
        raise SlideError(f"{folder}: exists and is no finished prediction; remove it, or pass --overwrite")
    key, result = found
    if key != task.options.result_key(task.path, predictor):
        raise SlideError(
            f"{folder}: exists already, by another model or other options; choose another output, or pass --overwrite"
        )
    return result


@contextmanager
def _ended_cleanly_by_sigterm() -> Iterator[None]:
    """SIGTERM raises SystemExit(75), so that temporary folders are removed and claims given back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        print("pathzoo: ended by SIGTERM; what is done is kept, and the same command goes on", file=sys.stderr)
        raise SystemExit(EXIT_PREEMPTED)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
