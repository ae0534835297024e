"""Which keywords a component takes: what a config's keys are checked against."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from mmengine.config.lazy import LazyAttr, LazyObject
from mmengine.registry import root as _root
from mmengine.registry.registry import Registry

from pathzoo.errors import ConfigError
from pathzoo.nearest import did_you_mean

#: Keywords that mmengine itself takes out of a scheduler's or an optimizer's dict before it builds.
_HOST_KEYWORDS = {"convert_to_iter_based", "_scope_", "_delete_"}


def resolve_type(kind: Any, where: str) -> Callable | None:
    """The class or function that a `type` means.

    Args:
        kind: A class, mmengine's lazy stand-in for one, or a string: a registered name with or without scope, or a
            dotted path, as in the resolved config that a run leaves behind.
        where: Names the place in errors.

    Returns:
        None for a name that only its own component can look up (such as albumentations' transforms by name).

    Raises:
        ConfigError: The class cannot be imported, or a dotted path leads nowhere.
    """
    if isinstance(kind, LazyObject | LazyAttr):
        try:
            return kind.build()
        except ImportError as error:
            raise ConfigError(f"{where}: {error}") from error
    if not isinstance(kind, str):
        return kind
    found = _registered(kind)
    if found is not None or "." not in kind:
        return found
    module, _, name = kind.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ConfigError(f"{where}: {kind!r} is neither registered nor importable ({error})") from error
    except AttributeError as error:
        hint = did_you_mean(name, dir(importlib.import_module(module)))
        raise ConfigError(f"{where}: {module} has no {name!r}{hint}") from error


def accepted_keywords(cls: Callable) -> set[str] | None:
    """The keywords that `cls(...)` takes, following **kwargs up its bases.

    Returns:
        None where anything is taken: a **kwargs that goes elsewhere than to a base class.
    """
    names, is_open = _keywords(cls)
    return None if is_open else names | _HOST_KEYWORDS


def named_keywords(cls: Callable) -> set[str]:
    """The keywords that `cls(...)` takes by name, also where it takes others besides."""
    return _keywords(cls)[0] | _HOST_KEYWORDS


def _keywords(cls: Callable) -> tuple[set[str], bool]:
    """The names, and whether any other is taken too."""
    if not inspect.isclass(cls):
        return _parameters(cls)
    names: set[str] = set()
    for base in cls.__mro__:
        if "__init__" not in vars(base) or base is object:
            continue
        parameters, is_open = _parameters(vars(base)["__init__"])
        names |= parameters
        if not is_open:
            return names, False
    return names, True


def _parameters(function: Callable) -> tuple[set[str], bool]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # built in C
        return set(), True
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)} - {"self"}
    return names, any(p.kind is p.VAR_KEYWORD for p in parameters)


def _registered(name: str) -> Callable | None:
    scope, _, short = name.rpartition(".")
    for registry in vars(_root).values():
        if isinstance(registry, Registry):
            for node in _walk(registry):
                if short in node.module_dict and scope in ("", node.scope):
                    return node.module_dict[short]
    return None


def _walk(registry: Registry) -> list[Registry]:
    return [registry] + [leaf for child in registry.children.values() for leaf in _walk(child)]
