"""Takes a round's folder over: what a broken-off round of the same teacher left is kept, everything else is not."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from pathzoo.errors import DataError
from pathzoo.fileio import write_json


def begin_round(folder: Path, state: dict[str, Any], logger: logging.Logger) -> None:
    """Makes `folder` ready for a round, by the main process alone.

    Args:
        folder: of the round; need not exist.
        state: run (id), fingerprint (of what predictions depend on), model (digest); kept in round.json.
        logger: told where a round is thrown away.

    Where round.json holds the same fingerprint, the round goes on, whoever began it: a run that was ended before its
    first checkpoint has no id to come back with. With another fingerprint this run's own round is thrown away (its
    weights changed: it was resumed from an earlier checkpoint, or trained where sums are not exact).

    Raises:
        DataError: the folder is another run's, or not of a round at all.
    """
    path = folder / "round.json"
    found = _load(path)
    if found is None:
        if folder.is_dir() and any(not child.name.startswith(".") for child in folder.iterdir()):
            raise DataError(f"{folder}: holds files but no round.json: it is no round of pseudo-labels; move it away")
    elif found["fingerprint"] != state["fingerprint"]:
        if found["run"] != state["run"]:
            raise DataError(
                f"{folder}: pseudo-labels of another run (id {found['run'][:12]}, this one is {state['run'][:12]}): "
                f"remove {folder.parent}, or give another --work-dir"
            )
        logger.info(f"self-training: {folder} was made by other weights or settings: it is made anew")
        shutil.rmtree(folder)
    if found != state:
        write_json(path, state)
    for left in folder.glob("*/.*"):  # of a process that was killed while it wrote
        left.unlink()


def _load(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(found, dict) and all(isinstance(found.get(key), str) for key in ("run", "fingerprint"))
    return found if whole else None
