"""From the dicts of a config to albumentations' objects, with errors that name what is wrong.

Albumentations 2 only warns about a keyword that a transform does not have; here it is an error.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import albumentations as A  # noqa: N812 - as its own documentation calls it

from pathzoo.datasets.transforms.stain import StainJitter
from pathzoo.errors import ConfigError
from pathzoo.nearest import did_you_mean

_OWN = {"StainJitter": StainJitter}
_KINDS = (A.BasicTransform, A.BaseCompose)


def build_entry(entry: Any, where: str) -> A.BasicTransform | A.BaseCompose:
    """Builds one transform.

    Args:
        entry: a mapping with `type` (a class, or its exact name) and its keywords; `transforms` inside is built alike.
        where: the place in the config that messages name, as in "transforms[2]".

    Raises:
        ConfigError: no or unknown `type`, unknown keyword, missing keyword, or a value that is refused.
    """
    if not isinstance(entry, Mapping) or "type" not in entry:
        raise ConfigError(f"Albumentations: {where} is {entry!r}; it needs a dict with a 'type'")
    kind = _find(entry["type"], where)
    # By [] and not by dict(): an mmengine config hands out its lazily imported classes only that way.
    keywords = {key: entry[key] for key in entry if key != "type"}
    _check_keywords(kind, keywords, where)
    children = keywords.get("transforms")
    if children is not None:
        if not isinstance(children, Sequence) or isinstance(children, str):
            raise ConfigError(f"Albumentations: {where}.transforms needs a list of dicts, each with a 'type'")
        keywords["transforms"] = [build_entry(c, f"{where}.transforms[{i}]") for i, c in enumerate(children)]
    keywords = {key: _plain(value) for key, value in keywords.items()}
    try:
        return kind(**keywords)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"Albumentations: {where} ({kind.__name__}): {_one_line(error)}") from None


def _find(name: Any, where: str) -> type:
    if isinstance(name, str):
        # A resolved config spells a class out (albumentations.core.composition.OneOf); only the last part is looked up.
        short = name.rpartition(".")[2] if name.startswith(("albumentations.", "pathzoo.")) else name
        found = _OWN.get(short) or getattr(A, short, None)
        if not _is_transform(found):
            known = [*_OWN, *(key for key in dir(A) if _is_transform(getattr(A, key)))]
            raise ConfigError(f"Albumentations: {where} has unknown type '{name}'{did_you_mean(short, known)}")
        return found
    if not _is_transform(name):
        raise ConfigError(f"Albumentations: {where} has type {name!r}, which is no transform of albumentations")
    return name


def _is_transform(thing: Any) -> bool:
    return inspect.isclass(thing) and issubclass(thing, _KINDS) and thing not in (*_KINDS, A.ReplayCompose)


def _check_keywords(kind: type, keywords: Mapping[str, Any], where: str) -> None:
    known = [name for name in inspect.signature(kind.__init__).parameters if name != "self"]
    for name in keywords:
        if name not in known:
            raise ConfigError(
                f"Albumentations: {where} ({kind.__name__}) has no keyword '{name}'{did_you_mean(name, known)}"
            )


def _plain(value: Any) -> Any:
    """Lists of plain values as tuples: pydantic inside albumentations takes tuples where configs dump lists."""
    if isinstance(value, list) and all(isinstance(part, int | float) for part in value):
        return tuple(value)
    return value


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # pydantic: "1 validation error for InitSchema", then the field, then what is wrong with it, then an address.
    lines = [
        line for line in lines if not line.startswith("For further information") and "validation error" not in line
    ]
    return " ".join(lines) or type(error).__name__
