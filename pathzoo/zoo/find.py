"""Which models there are, and where: a folder given, PATHZOO_ZOO, the packaged zoo, the cache, in that order. No torch.

A zoo is a folder `<root>/<name>/<version>/` with a model.json in each.
"""

import fnmatch
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pathzoo.errors import ZooError
from pathzoo.nearest import did_you_mean
from pathzoo.paths import packaged_zoo
from pathzoo.zoo import semver
from pathzoo.zoo.manifest import MANIFEST_FILE, TASKS, Manifest
from pathzoo.zoo.manifest_file import read_manifest


def zoo_roots() -> list[tuple[str, Path]]:
    """(origin, folder) of every zoo, in look-up order; a folder may be missing."""
    own = [("PATHZOO_ZOO", Path(root)) for root in os.environ.get("PATHZOO_ZOO", "").split(os.pathsep) if root]
    cache = Path(os.environ.get("PATHZOO_CACHE") or Path.home() / ".cache" / "pathzoo")
    return [*own, ("packaged", packaged_zoo()), ("cache", cache / "zoo")]


def find_model(model: str | os.PathLike[str]) -> Path:
    """The folder of a published model.

    Args:
        model: A folder with a model.json (or `<zoo>/<name>`, whose latest version is taken), a name, or
            `name@version`. The first zoo in look-up order that has the name (and version) wins; without a version it
            gives its latest release.

    Raises:
        ZooError: No such folder, name or version; the message gives the nearest name, or the versions there are.
    """
    folder = Path(model)
    if (folder / MANIFEST_FILE).is_file():
        return folder
    text = os.fspath(model)
    if os.sep in text or text in (".", "..", ""):
        versions = _versions(folder)
        if not versions:
            raise ZooError(f"{folder}: no {MANIFEST_FILE} in it, so it is no published model")
        return versions[semver.latest(list(versions))]
    name, _, version = text.partition("@")
    seen: set[str] = set()
    for _, root in zoo_roots():
        versions = _versions(root / name)
        if version in versions:
            return versions[version]
        if versions and not version:
            return versions[semver.latest(list(versions))]
        seen |= set(versions)
    if seen:
        have = ", ".join(sorted(seen, key=semver.sort_key))
        raise ZooError(f"model {name!r} has no version {version!r}; there are {have}")
    names = {folder.parent.name for _, folder in _all_folders()}
    looked = ", ".join(f"{origin} ({'found' if root.is_dir() else 'no such folder'})" for origin, root in zoo_roots())
    hint = did_you_mean(name, sorted(names))
    hint += "" if hint.endswith("?") else "."
    raise ZooError(f"no model {name!r}{hint} Looked in {looked}; `pathzoo list` shows all")


def list_models(
    pattern: str | None = None,
    task: str | None = None,
    organ: str | None = None,
    mpp: float | None = None,
    commercial: bool | None = None,
) -> list[dict[str, Any]]:
    """Every model in reach, by name, the latest version first.

    Args:
        pattern: Part of the name or description, or a shell pattern (`breakhis_*`) for the name.
        task: One of the tasks in `pathzoo.zoo.manifest.TASKS`.
        organ: As the manifest gives it, in any case.
        mpp: Microns per pixel that the model has to take, within its own tolerance.
        commercial: True leaves only what may be used commercially, False only what may not.

    Returns:
        Dicts with name, version, task, description, classes, organ, stain, mpp, tile_size, licence, commercial_use,
        synthetic, n_parameters, digest, origin, folder. A damaged model.json is left out with a warning.

    Raises:
        ZooError: `task` is not a task.
    """
    if task is not None and task not in TASKS:
        raise ZooError(f"no task {task!r}{did_you_mean(task, TASKS)} Tasks: {', '.join(TASKS)}")
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for origin, folder in _all_folders():
        try:
            manifest = read_manifest(folder)
        except ZooError as error:
            warnings.warn(f"left out of the list: {error}", stacklevel=2)
            continue
        if _matches(manifest, pattern, task, organ, mpp, commercial):
            rows.setdefault((manifest.name, manifest.version), _row(manifest, origin, folder))
    latest_first = sorted(rows.values(), key=lambda row: semver.sort_key(row["version"]), reverse=True)
    return sorted(latest_first, key=lambda row: str(row["name"]))


def folders_of(root: Path) -> list[Path]:
    """The model folders of one zoo, by name and version."""
    if not root.is_dir():
        return []
    names = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [
        folder for name in names for _, folder in sorted(_versions(name).items(), key=lambda x: semver.sort_key(x[0]))
    ]


def _all_folders() -> Iterator[tuple[str, Path]]:
    for origin, root in zoo_roots():
        for folder in folders_of(root):
            yield origin, folder


def _versions(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    candidates = (path for path in folder.iterdir() if semver.is_version(path.name))
    return {path.name: path for path in candidates if (path / MANIFEST_FILE).is_file()}


def _matches(
    manifest: Manifest,
    pattern: str | None,
    task: str | None,
    organ: str | None,
    mpp: float | None,
    commercial: bool | None,
) -> bool:
    if pattern:
        text = f"{manifest.name} {manifest.description}".casefold()
        if not (fnmatch.fnmatch(manifest.name, pattern) or pattern.casefold() in text):
            return False
    if mpp is not None:
        own = manifest.input.mpp
        if own is None or abs(own - mpp) > own * manifest.input.mpp_tolerance:
            return False
    return (
        (task is None or manifest.task == task)
        and (organ is None or (manifest.organ or "").casefold() == organ.casefold())
        and (commercial is None or manifest.commercial_use == commercial)
    )


def _row(manifest: Manifest, origin: str, folder: Path) -> dict[str, Any]:
    return {
        "name": manifest.name,
        "version": manifest.version,
        "task": manifest.task,
        "description": manifest.description,
        "classes": list(manifest.classes),
        "organ": manifest.organ,
        "stain": manifest.stain,
        "mpp": manifest.input.mpp,
        "tile_size": list(manifest.input.tile_size),
        "licence": manifest.licence,
        "commercial_use": manifest.commercial_use,
        "synthetic": manifest.training.synthetic if manifest.training else None,
        "n_parameters": manifest.weights.n_parameters,
        "digest": manifest.digest,
        "origin": origin,
        "folder": str(folder),
    }
