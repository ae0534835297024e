"""Plain images as `pathzoo predict` takes them: one table for all of them, made once."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pathzoo.apis.predict_inputs import Resolutions
from pathzoo.apis.predict_progress import counter, tell
from pathzoo.errors import DataError, OutputError
from pathzoo.fileio import atomic_path, canonical_json, sha256_bytes, sha256_file, write_json
from pathzoo.wsi.claims import Claims
from pathzoo.wsi.images import (
    ImagePredictions,
    ImageVectors,
    predict_images,
    represent_images,
    write_image_predictions,
)
from pathzoo.wsi.outputs import package_versions
from pathzoo.wsi.representation import VECTORS

TABLE, _RECORD = "predictions.csv", "predict_run.json"
_POLL_SECONDS = 1.0


@dataclass
class ImagesResult:
    """What came of the images: the table, their number, and what failed with why."""

    csv: Path | None = None
    n: int = 0
    #: An earlier call, or another process, made the table.
    reused: bool = False
    failed: list[tuple[Path, str]] = field(default_factory=list)


@dataclass(frozen=True)
class ImagesTask:
    """All images of a call."""

    paths: Sequence[Path]
    resolutions: Resolutions
    predictor: Any
    out: Path
    batch_size: int = 32
    overwrite: bool = False
    #: Go on after a failure.
    many: bool = True
    #: Path -> pseudonym, where outputs must not tell names.
    called: Mapping[Path, str] | None = None

    def name(self, path: Path) -> str:
        """How the table calls an image."""
        return path.as_posix() if self.called is None else self.called[path]

    @property
    def key(self) -> str:
        """Digest of all that decides the table."""
        images = [(self.name(p), p.stat().st_size, self.resolutions.of(p)) for p in self.paths]
        model = [self.predictor.name, self.predictor.version, self.predictor.digest]
        return sha256_bytes(canonical_json({"images": images, "model": model}))


def run_images(task: ImagesTask) -> ImagesResult:
    """Writes `out/predictions.csv` (path, predicted, prob_CLASS...) and `out/predict_run.json`, unless they stand.

    An encoder's table is path, row; the vectors lie in those rows of `out/embeddings.npy` (float32 (N, D)).

    Raises:
        DataError: A table of other images, of another model or of unknown origin stands there; or, without `many`,
            why the image fails.
        OutputError: The table cannot be written.
    """
    with Claims(task.out) as claims:
        while True:
            with claims.claim(TABLE) as ours:
                if ours:
                    now = claims.done(TABLE)
                    done = None if task.overwrite and not now else finished_images(task, now)
                    if done is None:
                        done = _predict(task)
                        claims.note_done(TABLE)
                    return done
            time.sleep(_POLL_SECONDS)


def finished_images(task: ImagesTask, now: bool = False) -> ImagesResult | None:
    """What was made of the same images before; None where that is nothing, or where some failed and are tried again.

    Args:
        task: The images.
        now: Another process made it during this call: what failed there needs no second attempt.

    Raises:
        DataError: There is one, of other images or by another model.
    """
    table = task.out / TABLE
    if not table.exists():
        return None
    try:
        record = json.loads((task.out / _RECORD).read_text(encoding="utf-8"))
        same = record["key"] == task.key and record["table"] == sha256_file(table)
        if same and record.get("vectors"):
            same = record["vectors"] == sha256_file(task.out / VECTORS)
        reasons = {entry["image"]: entry["reason"] for entry in record["failed"]}
        n = record["images"]
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise DataError(
            f"{table}: exists already, of other images or by another model; choose another output, or pass --overwrite"
        )
    failed = [(path, reasons[task.name(path)]) for path in task.paths if task.name(path) in reasons]
    return ImagesResult(table, n, reused=True, failed=failed) if now or not failed else None


class _NothingToKeepError(Exception):
    """Not one image could be used."""


def _predict(task: ImagesTask) -> ImagesResult:
    failed: list[tuple[Path, str]] = []
    try:
        n = _predict_and_write(task, failed, time.perf_counter())
    except _NothingToKeepError:
        return ImagesResult(failed=failed)
    except OSError as error:
        raise OutputError(
            f"{task.out / TABLE}: cannot be written: {error.strerror or error}; nothing of it was kept. Make room, or "
            "choose another output, and give the same command again"
        ) from error
    return ImagesResult(task.out / TABLE, n, failed=failed)


def _predict_and_write(task: ImagesTask, failed: list[tuple[Path, str]], started: float) -> int:
    """Writes all files of a call; returns how many images they hold."""
    encoder = task.predictor.task == "representation"
    with atomic_path(task.out / VECTORS) if encoder else nullcontext() as vectors:
        given = {
            "batch_size": task.batch_size,
            "mpp": [task.resolutions.of(path) for path in task.paths],
            "progress": counter("images", "images"),
        }
        inputs = (task.paths, task.predictor, task.predictor.prepare)
        found = predict_images(*inputs, **given) if vectors is None else represent_images(*inputs, vectors, **given)
        failed += found.failed
        if failed and not task.many:
            raise DataError(failed[0][1])
        for _, reason in failed:
            tell(reason)
        if not found.paths:
            raise _NothingToKeepError
        _write(task, found, vectors, started)
    return len(found.paths)


def _write(
    task: ImagesTask, predictions: ImagePredictions | ImageVectors, vectors: Path | None, started: float
) -> None:
    failed = [
        {"image": task.name(path), "reason": reason if task.called is None else "not usable"}
        for path, reason in predictions.failed
    ]
    if task.called is not None:
        predictions.paths = [Path(task.called[path]) for path in predictions.paths]
    predictor = task.predictor
    with atomic_path(task.out / TABLE) as temporary:
        write_image_predictions(temporary, predictions)
        record = {
            "model": {"name": predictor.name, "version": predictor.version, "digest": predictor.digest},
            "versions": package_versions(),
            "images": len(predictions.paths),
            "failed": failed,
            "key": task.key,
            "table": sha256_file(temporary),
            "seconds": round(time.perf_counter() - started, 3),
        }
        if vectors is not None:
            record["vectors"] = sha256_file(vectors)
        # First, and with the tables' digests: a table without a record that fits is none of ours.
        write_json(task.out / _RECORD, record)
