"""Version numbers as semver.org 2.0.0 orders them."""

import re

#: MAJOR.MINOR.PATCH with an optional pre-release, without build metadata (which would not order).
PATTERN = r"(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)(?:-[0-9A-Za-z]+(?:[.-][0-9A-Za-z]+)*)?"
_RELEASE = re.compile(PATTERN)

Key = tuple[tuple[int, ...], bool, tuple[tuple[bool, int, str], ...]]


def is_version(text: str) -> bool:
    """Whether `text` is a version such as `1.0.2` or `2.0.0-rc.1`."""
    return _RELEASE.fullmatch(text) is not None


def sort_key(version: str) -> Key:
    """A key by which versions sort: numbers as numbers, a pre-release before its release (semver 2.0.0, 11)."""
    release, _, pre = version.partition("-")
    fields = tuple((not field.isdigit(), int(field) if field.isdigit() else 0, field) for field in pre.split("."))
    return tuple(int(number) for number in release.split(".")), not pre, fields if pre else ()


def latest(versions: list[str]) -> str:
    """The highest release; a pre-release only where there is nothing else."""
    releases = [version for version in versions if "-" not in version]
    return max(releases or versions, key=sort_key)


def satisfies(installed: str, required: str) -> bool:
    """Whether `installed` is `required` or a later one that semver calls compatible (same major; for 0.x same minor).

    Versions that are not semver satisfy only when they are equal.
    """
    if not (is_version(installed) and is_version(required)):
        return installed == required
    have, need = sort_key(installed), sort_key(required)
    fixed = 1 if need[0][0] else 2
    return have[0][:fixed] == need[0][:fixed] and have >= need
