"""model.json as a file: sealed with its own digest when written, distrusted when read. No torch."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pathzoo.errors import ZooError
from pathzoo.fileio import canonical_json, sha256_bytes
from pathzoo.zoo.manifest import MANIFEST_FILE, SCHEMA_VERSION, Manifest


def seal(fields: Mapping[str, Any]) -> Manifest:
    """Validates JSON-like `fields` (without `digest`), fills in schema version and digest.

    Raises:
        ZooError: A field is missing, unknown or wrong; the message names the first.
    """
    text = json.dumps({"schema_version": SCHEMA_VERSION, **fields, "digest": "0" * 64}, allow_nan=True)
    try:
        draft = Manifest.model_validate_json(text)
    except ValidationError as error:
        where, reason = _problems(error)[0]
        raise ZooError(f"{MANIFEST_FILE}: {where}: {reason}") from error
    return draft.model_copy(update={"digest": self_digest(draft.model_dump(mode="json"))})


def self_digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of all but the key `digest`."""
    return sha256_bytes(canonical_json({key: value for key, value in content.items() if key != "digest"}))


def render(content: Mapping[str, Any]) -> str:
    """The one form in which model.json is written, so that any changed byte shows."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_text(manifest: Manifest) -> str:
    """model.json as text."""
    return render(manifest.model_dump(mode="json"))


def check_manifest(data: bytes) -> tuple[Manifest | None, list[tuple[str, str]]]:
    """Parses the bytes of a model.json and gives the manifest, or None, and every problem as (field, reason)."""
    try:
        text = data.decode("utf-8")
        content = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
        canonical = render(content) if isinstance(content, dict) else ""
    except (ValueError, RecursionError) as error:
        return None, [("", f"not readable as JSON ({str(error) or 'nested too deep'})")]
    if not isinstance(content, dict):
        return None, [("", f"holds a {type(content).__name__}, not an object")]
    version = content.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        return None, [
            (
                "schema_version",
                f"{version} is newer than {SCHEMA_VERSION}, the newest this pathzoo reads: update pathzoo",
            )
        ]
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        return None, _problems(error)
    problems = []
    if self_digest(content) != manifest.digest:
        problems.append(("digest", "does not match the content: the file was changed after publishing"))
    elif canonical != text:
        problems.append(("", "is not written as pathzoo writes it: the file was changed after publishing"))
    return manifest, problems


def read_manifest(folder: str | os.PathLike[str]) -> Manifest:
    """The manifest of a model folder, checked in itself (schema, digest) but not against the other files.

    Raises:
        ZooError: No model.json in `folder`, or one that is damaged; the message gives file, field and reason.
    """
    path = Path(folder) / MANIFEST_FILE
    if not path.is_file():
        raise ZooError(f"{path}: no such file, so {folder} is no published model")
    manifest, problems = check_manifest(path.read_bytes())
    if manifest is None or problems:
        where, reason = problems[0]
        raise ZooError(f"{path}: {f'{where}: ' if where else ''}{reason}")
    return manifest


def _problems(error: ValidationError) -> list[tuple[str, str]]:
    return [
        (".".join(_shown(part) for part in item["loc"]), item["msg"].removeprefix("Value error, "))
        for item in error.errors(include_url=False)
    ]


def _shown(part: int | str) -> str:
    """A key of the file as it may stand in a message of one line."""
    return part if isinstance(part, str) and part.isprintable() else repr(part)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in one object")
    return result


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
