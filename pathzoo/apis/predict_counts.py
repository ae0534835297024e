"""`OUT/counts.csv`: how many objects a detector found on each slide of an output, drawn from the slides' records."""

import csv
import io
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pathzoo.apis.predict_batch import EXIT_SOME_FAILED
from pathzoo.errors import DataError, OutputError
from pathzoo.fileio import write_text
from pathzoo.wsi.claims import Claims
from pathzoo.wsi.predictor import Predictor
from pathzoo.wsi.run import RUN_FILE

COUNTS = "counts.csv"
_HEAD = ["slide", "mpp", "tissue_mm2"]
_TAIL = ["score_threshold", "skipped_tiles"]
_POLL_SECONDS = 0.2


def check_counts(out: Path) -> None:
    """Raises DataError where something else than a table of counts stands in its place."""
    path = out / COUNTS
    try:
        with path.open(encoding="utf-8", newline="") as file:
            if next(csv.reader(file), [])[: len(_HEAD)] == _HEAD:
                return
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError, csv.Error):
        pass
    raise DataError(f"{path}: is no table of counts by pathzoo; move it, or choose another output folder")


def write_counts(out: Path, predictor: Predictor, classifier: Predictor | None = None) -> Path:
    """Writes `out/counts.csv`, whole or not at all, of every finished slide in `out` that these models made.

    Columns: slide (its folder's name), mpp (of level 0), tissue_mm2 (empty where tissue was not looked for), of each
    class count_CLASS and per_mm2_CLASS (objects per square millimetre of tissue), with a classifier count_CLASS: GRADE
    too, score_threshold, and skipped_tiles (not 0: the slide could not be read wholly, and objects may be missing).

    Processes that share `out` write it one after the other, each what is finished then: the last one has all. The table
    holds nothing that the slides' own predict_run.json do not; the same command writes it again.

    Raises:
        OutputError: It cannot be written; the slides are kept.
    """
    path = out / COUNTS
    try:
        with Claims(out) as claims:
            while True:
                with claims.claim(COUNTS) as ours:
                    if ours:
                        _write(path, predictor, classifier)
                        return path
                time.sleep(_POLL_SECONDS)
    except OSError as error:
        failure = OutputError(
            f"{path}: cannot be written: {error.strerror or error}; the slides are kept. Make room, and give the same "
            "command again"
        )
        failure.exit_code = EXIT_SOME_FAILED  # 2 would say that nothing was written
        raise failure from error


def _write(path: Path, predictor: Predictor, classifier: Predictor | None) -> None:
    grades = () if classifier is None else classifier.classes
    columns = [*_HEAD]
    for name in predictor.classes:
        columns += [f"count_{name}", *(f"count_{name}: {grade}" for grade in grades), f"per_mm2_{name}"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, *_TAIL])
    writer.writerows(
        _row(name, record, predictor, grades) for name, record in _records(path.parent, predictor, classifier)
    )
    if not path.is_file() or path.read_bytes() != text.getvalue().encode():
        write_text(path, text.getvalue())


def _records(out: Path, predictor: Predictor, classifier: Predictor | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Folder name and predict_run.json of each slide that the same models made, by name."""
    for file in sorted(out.glob(f"*/{RUN_FILE}")):
        if file.parent.name.startswith("."):  # half written, by another process
            continue
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            by = _who(record["model"]), _who(record["classifier"]) if record.get("classifier") else None
        except (OSError, ValueError, KeyError, TypeError):
            continue  # another one's file
        if by == (_identity(predictor), None if classifier is None else _identity(classifier)):
            yield file.parent.name, record


def _row(name: str, record: Mapping[str, Any], predictor: Predictor, grades: tuple[str, ...]) -> list[object]:
    area = record["slide"].get("tissue_mm2")
    row: list[object] = [name, record["slide"]["mpp"], "" if area is None else area]
    for each in predictor.classes:
        count = record["tiles"]["by_class"][each]
        row += [count, *(record["grades"]["by_class"][each][grade] for grade in grades)]
        row.append(f"{count / area:.4f}" if area else "")
    return [*row, record["detection"]["score_threshold"], len(record["skipped_tiles"])]


def _who(record: Mapping[str, Any]) -> tuple[Any, ...]:
    return record["name"], record["version"], record["digest"]


def _identity(model: Predictor) -> tuple[Any, ...]:
    return model.name, model.version, model.digest
