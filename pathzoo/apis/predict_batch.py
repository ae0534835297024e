"""Many slides, one after another, beside other processes that do the same: nothing twice, nothing lost."""

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathzoo.apis.launch import Place
from pathzoo.apis.predict_progress import BatchProgress
from pathzoo.apis.preemption import ended_cleanly_by_sigterm
from pathzoo.errors import OutputError, PathzooError, SlideError
from pathzoo.wsi.claims import Claims
from pathzoo.wsi.predictor import Predictor
from pathzoo.wsi.pseudonyms import without_names
from pathzoo.wsi.run import SlideResult, finished_result, predict_slide
from pathzoo.wsi.run_options import RunOptions

EXIT_SOME_FAILED = 4
_POLL_SECONDS = 1.0
#: How long the first of several processes waits for the others to end, once nothing is left to do.
_PATIENCE_SECONDS = 10.0
#: How long each of several processes, with nothing left to do, waits for those that the launcher started later.
_ARRIVAL_SECONDS = 60.0


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
    """`results` holds every slide with an output, also those that stood already: `reused` counts these.

    `elsewhere` says how many of the reused ones another process did during this call.
    """

    results: list[SlideResult]
    failed: list[tuple[Path, str]]
    reused: int = 0
    elsewhere: int = 0
    #: Whether the processes of a launcher know what the others did.
    shared: bool = True


def run_batch(
    tasks: Sequence[SlideTask],
    predictor: Predictor,
    out: Path,
    overwrite: bool = False,
    many: bool | None = None,
    where: Place | None = None,
    classifier: Predictor | None = None,
) -> BatchResult:
    """Runs every slide that is not done yet and that no other process works on; waits for what others work on.

    A slide whose output stands already is left as it is where the same model and options made it, and is a failure
    where others did, unless `overwrite`.

    Args:
        tasks: The slides.
        predictor: The model.
        out: Their outputs' folder, which other processes may share.
        overwrite: Do slides again that an earlier call did.
        many: Go on after a failure, also after one that is a defect of pathzoo; by default where there are several
            slides.
        where: This process among those of a launcher. Each begins elsewhere; on a file system without locks each
            does its part alone.
        classifier: Grades the objects of a detector.

    Returns:
        What came of all slides, whoever did them.

    Raises:
        SlideError: Without `many`, what makes the slide fail.
        OutputError: Nothing more can be written; what was done before is kept, and `exit_code` says whether anything.
    """
    where = where or Place()
    many = len(tasks) > 1 if many is None else many
    rank = where.rank if where.world_size > 1 else None
    with ended_cleanly_by_sigterm(), Claims(out, rank) as claims:
        batch = BatchResult([], [], shared=claims.locks)
        first = where.rank * len(tasks) // where.world_size
        pending = [*tasks[first:], *tasks[:first]] if claims.locks else [*tasks[where.rank :: where.world_size]]
        progress = BatchProgress([t.path for t in pending], many)
        run = _Run(predictor, classifier, out, overwrite, many, claims, batch, progress)
        try:
            while pending:
                pending = [task for task in pending if not run.attempt(task)]
                if pending:
                    run.progress.wait_for(len(pending))
                    time.sleep(_POLL_SECONDS)
        except OutputError as error:
            if batch.results:
                error.exit_code = EXIT_SOME_FAILED  # 2 would say that nothing was written
            raise
        if batch.failed and not many:
            raise SlideError(batch.failed[0][1])
        if where.world_size > 1 and claims.locks:
            claims.wait_for_arrivals(where.world_size, _ARRIVAL_SECONDS)
        if where.rank == 0 and where.world_size > 1:
            claims.wait_for_others(_PATIENCE_SECONDS)  # launchers end the others when one ends with a code above 0
    return batch


@dataclass(frozen=True)
class _Run:
    """What every slide of a batch has in common."""

    predictor: Predictor
    classifier: Predictor | None
    out: Path
    overwrite: bool
    many: bool
    claims: Claims
    batch: BatchResult
    progress: BatchProgress

    def attempt(self, task: SlideTask) -> bool:
        """Whether the slide needs no further attempt: done or failed, here or elsewhere."""
        with self.claims.claim(task.name) as ours:
            if not ours:
                return False
            told = self.claims.failure(task.name)
            if told is not None:
                reason = _with_path(told, task)
                self.progress.settled(task.path)
            else:
                reason = self._do(task)
            if reason is not None:
                self.batch.failed.append((task.path, reason))
            return True

    def _do(self, task: SlideTask) -> str | None:
        """Why the slide fails; None where it does not."""
        elsewhere = self.claims.done(task.name)
        try:
            result = _reused(task, self.predictor, self.classifier, self.out, self.overwrite and not elsewhere)
            if result is not None:
                self.batch.reused += 1
                self.batch.elsewhere += elsewhere
                self.progress.reused(task.path, elsewhere)
            else:
                with self.progress.slide(task.path) as report:
                    result = self._predict(task, report)
                self.claims.note_done(task.name)
        except OutputError:
            raise  # a full disk is no fault of this slide: the others would fail as well
        except PathzooError as error:
            reason = str(error)
        except Exception as error:
            if not self.many:
                raise
            traceback.print_exc()
            reason = f"{task.path}: {type(error).__name__}: {error} (a defect of pathzoo, or of the model: see above)"
        else:
            self.batch.results.append(result)
            return None
        self.claims.note_failure(task.name, _without_path(reason, task))
        self.progress.failed(task.path, reason)
        return reason

    def _predict(self, task: SlideTask, report: Callable[..., None]) -> SlideResult:
        given = {"model": self.predictor.name}
        given |= {"classify": self.classifier.name} if self.classifier is not None else {}
        return predict_slide(
            task.path,
            self.predictor,
            self.out,
            task.options,
            classifier=self.classifier,
            name=task.name,
            title=task.title,
            overwrite=self.overwrite,
            progress=report,
            arguments=given,
        )


def _reused(
    task: SlideTask, predictor: Predictor, classifier: Predictor | None, out: Path, anew: bool
) -> SlideResult | None:
    """The result of an earlier run, or of another process; None where the slide is to be done."""
    folder = out / task.name
    if anew or not folder.exists():
        return None
    found = finished_result(folder)
    if found is None:
        raise SlideError(f"{folder}: exists and is no finished prediction; remove it, or pass --overwrite")
    key, result = found
    if key != task.options.result_key(task.path, predictor, classifier):
        raise SlideError(
            f"{folder}: exists already, by another model or other options; choose another output, or pass --overwrite"
        )
    return result


def _without_path(reason: str, task: SlideTask) -> str:
    """The reason as it may stand in the output folder: a run that is killed leaves its notes there."""
    return reason if task.title is None else without_names(reason, task.path, task.title)


def _with_path(reason: str, task: SlideTask) -> str:
    """The reason that another process noted, for the user of this one."""
    told = task.title is not None and reason.startswith(task.title)
    return f"{task.path}{reason.removeprefix(task.title)}" if told and task.title else reason
