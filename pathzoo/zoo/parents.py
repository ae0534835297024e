"""Which published models a run was made from: known from its own record, proved by the weights where need be."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathzoo.errors import ZooError
from pathzoo.zoo.manifest import WEIGHTS_FILE
from pathzoo.zoo.manifest_file import read_manifest
from pathzoo.zoo.training_record import TrainRun


@dataclass(frozen=True)
class Parents:
    """What the manifest says of them: its `parents`, and its `training.initial_weights`."""

    entries: tuple[dict[str, str], ...]
    initial_weights: dict[str, Any] | None


def parents_of(run: TrainRun, given: Sequence[Path]) -> Parents:
    """The parents of a run's weights.

    Where training began with a published model, the record names it. Where it began with another run's checkpoint,
    one of the folders `given` has to hold that checkpoint's backbone, as it was published: equal, after rounding to the
    folder's type, tensor by tensor.

    Args:
        run: The run's record.
        given: Folders of published models, by the user; others than the backbone's (a teacher) are taken at the
            user's word.

    Raises:
        ZooError: The parent is a run's checkpoint that none of `given` holds; or a folder contradicts the record.
    """
    entries = [_entry(folder) for folder in given]
    start = run.initial_weights if isinstance(run.initial_weights, dict) else {}
    if start.get("source") == "published":
        own = {key: str(start.get(key)) for key in ("name", "version", "sha256")}
        for folder, entry in zip(given, entries, strict=True):
            if (entry["name"], entry["version"]) == (own["name"], own["version"]) and entry != own:
                raise ZooError(
                    f"{folder}: is not the {own['name']} {own['version']} that the run began with (SHA-256 "
                    f"{entry['sha256'][:12]}..., not {own['sha256'][:12]}...); give the folder that it was trained from"
                )
        return Parents(_first(own, entries), _from_parent(own, start.get("licence")))
    if start.get("source") == "run":
        folder = _published_form(start, given)
        own = _entry(folder)
        return Parents(_first(own, entries), _from_parent(own, read_manifest(folder).licence))
    return Parents(tuple(entries), run.start())


def _entry(folder: Path) -> dict[str, str]:
    parent = read_manifest(folder)
    return {"name": parent.name, "version": parent.version, "sha256": parent.files[WEIGHTS_FILE].sha256}


def _first(own: dict[str, str], entries: list[dict[str, str]]) -> tuple[dict[str, str], ...]:
    return (own, *(entry for entry in entries if entry != own))


def _from_parent(entry: dict[str, str], licence: str | None) -> dict[str, Any]:
    return {"source": f"{entry['name']} {entry['version']}", "licence": licence, "sha256": entry["sha256"]}


def _published_form(start: dict[str, Any], given: Sequence[Path]) -> Path:
    """The folder among `given` that holds the checkpoint that a run began with."""
    digests = start.get("backbone") or {}
    for folder in given:
        dtype = read_manifest(folder).weights.dtype
        if _backbone_digest(folder, dtype) == digests.get(dtype):
            return folder
    checkpoint = f"{start.get('file')} of the run in {start.get('folder')}"
    if not given:
        raise ZooError(
            f"the backbone was made from {checkpoint}, which is no published model: publish it first, then name its "
            "folder as parent (--parent FOLDER)"
        )
    names = ", ".join(str(folder) for folder in given)
    raise ZooError(
        f"the backbone was made from {checkpoint}, and {names} holds other weights: publish that very checkpoint, then "
        "name its folder as parent (--parent FOLDER)"
    )


def _backbone_digest(folder: Path, dtype: str) -> str:
    from pathzoo.models.backbones.parent_weights import backbone_digest, timm_keys
    from pathzoo.zoo.load import read_tensors
    from pathzoo.zoo.verify import require_verified

    manifest = require_verified(folder)
    return backbone_digest(timm_keys(read_tensors(folder / WEIGHTS_FILE, manifest)), dtype)
