"""What a published model was made from, as far back as the zoos on this machine tell. No torch."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pathzoo.errors import ZooError
from pathzoo.zoo.find import find_model
from pathzoo.zoo.manifest import MANIFEST_FILE, WEIGHTS_FILE, Manifest, Parent
from pathzoo.zoo.manifest_file import read_manifest

IN_THIS_ZOO, ELSEWHERE, DIFFERS, NOT_HERE = "in this zoo", "in another zoo", "differs", "not here"


@dataclass(frozen=True)
class Ancestor:
    """One model that another was made from; `depth` 1 is a parent, 2 a parent's parent."""

    name: str
    version: str
    depth: int
    #: SHA-256 of its weights, as the model made from it says.
    sha256: str
    #: One of the four above; "differs": a model of this name and version is here and has other weights.
    status: str
    #: Of the model found; None where there is none.
    task: str | None = None
    digest: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain data, for `pathzoo info --json`."""
        return asdict(self)


def ancestry(folder: Path, manifest: Manifest) -> list[Ancestor]:
    """Parents, each followed by its own: looked for beside `folder`'s model first, then in every zoo in reach."""
    return list(_above(folder.resolve().parent.parent, manifest, 1, {(manifest.name, manifest.version)}))


def format_ancestry(ancestors: list[Ancestor]) -> str:
    """A line for each, indented by its depth; the first digits of the manifest's digest, or of the weights' SHA-256."""
    if not ancestors:
        return "Made from no published model."
    lines = ["Made from:"]
    for one in ancestors:
        known = f"{one.task}, digest {one.digest[:12]}" if one.digest else f"weights {one.sha256[:12]}"
        lines.append(f"{'  ' * one.depth}{one.name}@{one.version}  {known}  {one.status}")
    return "\n".join(lines)


def find_differing(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Says of each parent that lies in the same zoo, and is not what the model says it was made from, why."""
    zoo = folder.resolve().parent.parent
    for parent in manifest.parents:
        place = zoo / parent.name / parent.version
        if not (place / MANIFEST_FILE).is_file():
            continue
        label = f"parents: {parent.name} {parent.version} lies in the same zoo"
        try:
            found = read_manifest(place)
        except ZooError as error:
            yield f"{label}, but cannot be read ({error})"
            continue
        if not _is(found, parent):
            sha256 = found.files[WEIGHTS_FILE].sha256
            yield f"{label} with other weights (SHA-256 {sha256[:12]}..., not {parent.sha256[:12]}...)"


def _above(zoo: Path, manifest: Manifest, depth: int, seen: set[tuple[str, str]]) -> Iterator[Ancestor]:
    for parent in manifest.parents:
        found, status = _look_up(zoo, parent)
        own = (found.task, found.digest) if found else (None, None)
        yield Ancestor(parent.name, parent.version, depth, parent.sha256, status, *own)
        key = (parent.name, parent.version)
        if found and status != DIFFERS and key not in seen:  # a forged ring of parents has an end, too
            yield from _above(zoo, found, depth + 1, seen | {key})


def _look_up(zoo: Path, parent: Parent) -> tuple[Manifest | None, str]:
    places = [(zoo / parent.name / parent.version, IN_THIS_ZOO)]
    with suppress(ZooError):
        places.append((find_model(f"{parent.name}@{parent.version}"), ELSEWHERE))
    other: Manifest | None = None
    for place, status in places:
        try:
            found = read_manifest(place)
        except ZooError:
            continue
        if _is(found, parent):
            return found, status
        other = found
    return other, DIFFERS if other else NOT_HERE


def _is(found: Manifest, parent: Parent) -> bool:
    named = (found.name, found.version) == (parent.name, parent.version)
    return named and found.files[WEIGHTS_FILE].sha256 == parent.sha256
