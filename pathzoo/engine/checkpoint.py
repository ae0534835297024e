"""Training checkpoints (.pth) that hold, and load, tensors and plain data alone.

mmengine's own `load_checkpoint` tries `weights_only=True` (with `getattr` allowed) and falls back, silently, to a full
unpickling, which runs whatever code the file names. Here there is no way back: what needs more is refused, and our own
runs save their log history as tensors, so that they need nothing more.
"""

import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer

from pathzoo.errors import CheckpointError


def load_checkpoint_safely(path: str | os.PathLike, map_location: Any = "cpu") -> dict[str, Any]:
    """Loads a .pth file written by `torch.save` with `weights_only=True`, and nothing beyond it.

    Args:
        path: The file; not an address.
        map_location: As for `torch.load`.

    Returns:
        The dict that was saved; for a run of ours with keys `meta`, `state_dict`, `optimizer`, `message_hub`, ...

    Raises:
        CheckpointError: The file is missing, truncated or no checkpoint, or holds objects that only unpickling could
            make; the message names the file and the object.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|global|class) ['`]?([\w.]+)", str(error))
        what = f"it names {found[1]}" if found else "it is damaged, or holds objects other than tensors and plain data"
        raise CheckpointError(
            f"{path}: not loaded, since {what}, which only unpickling could make, and unpickling runs foreign code; "
            "save its state_dict alone (torch.save(model.state_dict(), FILE)) where you trust the file"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: truncated or no checkpoint ({reason}); take the one before it") from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"{path}: holds a {type(checkpoint).__name__}, not a dict of tensors")
    return checkpoint


def state_dict_of(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The model's tensors of a checkpoint, whether they stand under `state_dict` or are the whole file."""
    state = checkpoint.get("state_dict", checkpoint)
    return {key.removeprefix("module."): value for key, value in state.items() if isinstance(value, torch.Tensor)}


def history_to_plain(message_hub: dict[str, Any]) -> dict[str, Any]:
    """mmengine's MessageHub state with its HistoryBuffers as tensors and its numpy scalars as Python numbers."""
    scalars = {
        key: {
            "history": torch.as_tensor(np.asarray(buffer.data[0], dtype=np.float64)),
            "count": torch.as_tensor(np.asarray(buffer.data[1], dtype=np.float64)),
            "max_length": buffer.max_length,
        }
        for key, buffer in message_hub["log_scalars"].items()
    }
    info = {
        key: value.item() if isinstance(value, np.generic) else value
        for key, value in message_hub["runtime_info"].items()
    }
    return {"log_scalars": scalars, "runtime_info": info, "resumed_keys": dict(message_hub["resumed_keys"])}


def history_from_plain(message_hub: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `history_to_plain`: what `MessageHub.load_state_dict` takes."""
    scalars = {
        key: HistoryBuffer(saved["history"].cpu().numpy(), saved["count"].cpu().numpy(), saved["max_length"])
        for key, saved in message_hub["log_scalars"].items()
    }
    return message_hub | {"log_scalars": scalars}


def latest_checkpoint(work_dir: str | os.PathLike) -> Path | None:
    """The checkpoint of the most epochs (or iterations) in `work_dir`, or None.

    mmengine follows the file `last_checkpoint`, which it writes in place; the names alone are enough, since our
    checkpoints appear whole or not at all.
    """
    found = []
    for path in Path(work_dir).glob("*.pth"):
        match = re.fullmatch(r"(?:epoch|iter)_(\d+)\.pth", path.name)
        if match:
            found.append((int(match[1]), path))
    return max(found)[1] if found else None


def chosen_checkpoint(folder: Path) -> Path:
    """The best checkpoint by validation where the run kept one, else the newest.

    Raises:
        CheckpointError: There is none.
    """
    best = sorted(folder.glob("best_*.pth"), key=lambda path: path.stat().st_mtime)
    found = best[-1] if best else latest_checkpoint(folder)
    if found is None:
        raise CheckpointError(f"{folder}: holds no checkpoint; train first, or name a .pth file")
    return found
