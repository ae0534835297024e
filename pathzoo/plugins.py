"""Plug-ins of other labs: packages that name a module in the entry-point group `pathzoo.plugins`.

Loading imports that module, whose decorators (`@pathzoo.registry.MODELS.register_module()`) are the whole plug-in. A
plug-in is loaded since somebody installed it, never since a model or a config asks for it. PATHZOO_PLUGINS chooses:
unset loads all, an empty string none, otherwise the names separated by commas.
"""

import contextlib
import os
from dataclasses import dataclass
from importlib import metadata

from pathzoo.errors import ConfigError

GROUP = "pathzoo.plugins"

_imported: set[str] = set()
_loaded: dict[str, str] = {}
_origins: dict[tuple[str, str], str] = {}


@dataclass(frozen=True)
class Component:
    """One registered class: its `kind` ("model", "dataset", ...), its `name`, and the package it comes from."""

    kind: str
    name: str
    origin: str


def installed() -> dict[str, metadata.EntryPoint]:
    """Name -> entry point of every plug-in that is installed, loaded or not."""
    return {point.name: point for point in metadata.entry_points(group=GROUP)}


def loaded() -> dict[str, str]:
    """Distribution name -> version of the plug-ins that were loaded in this process."""
    return dict(_loaded)


def load_plugins() -> dict[str, str]:
    """Imports the plug-ins that PATHZOO_PLUGINS allows and notes what each registered; harmless when repeated.

    Returns:
        As `loaded`.

    Raises:
        ConfigError: A plug-in that PATHZOO_PLUGINS names is not installed, or one fails to import.
    """
    points = installed()
    chosen = os.environ.get("PATHZOO_PLUGINS")
    names = list(points) if chosen is None else [name.strip() for name in chosen.split(",") if name.strip()]
    for name in names:
        if name not in points:
            raise ConfigError(f"PATHZOO_PLUGINS: no plug-in {name!r} is installed; installed: {sorted(points)}")
        if name not in _imported:
            _load(points[name], points)
            _imported.add(name)
    return loaded()


def _load(point: metadata.EntryPoint, points: dict[str, metadata.EntryPoint]) -> None:
    from pathzoo import registry
    from pathzoo.zoo.allowlist import register_allowed

    before = {kind: set(registered.module_dict) for kind, registered in registry.ALL.items()}
    package, version = _distribution(point)
    try:
        point.load()
    except Exception as error:
        raise ConfigError(
            f"plug-in {package} {version} fails to import ({type(error).__name__}: {error}); mend it, remove it, or "
            "leave it out by PATHZOO_PLUGINS"
        ) from error
    _loaded[package] = version
    # What a plug-in imports registers itself too: pathzoo's own parts, or another plug-in's, stay theirs.
    owners = {_top(other.module): _distribution(other) for other in points.values()}
    for kind, registered in registry.ALL.items():
        for name in sorted(set(registered.module_dict) - before[kind]):
            top = _top(getattr(registered.module_dict[name], "__module__", ""))
            if top == "pathzoo":
                continue
            owner, its_version = owners.get(top, (package, version))
            _loaded[owner] = its_version
            _origins[kind, name] = f"{owner} {its_version}"
            if kind == "model":  # the only kind that a published config may name
                register_allowed(f"pathzoo.{name}", registered.module_dict[name], owner, its_version)


def _distribution(point: metadata.EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version) if point.dist else (point.name, "unknown")


def _top(module: str) -> str:
    return module.partition(".")[0]


def components() -> list[Component]:
    """Every component in pathzoo's registries, plug-ins' included, by kind and name."""
    from pathzoo import registry
    from pathzoo._version import __version__

    for registered in registry.ALL.values():
        registered.import_from_location()
    from pathzoo import models

    for name in models.__all__:
        with contextlib.suppress(ImportError):  # what needs mmseg is registered when asked for, if mmseg is there
            getattr(models, name)
    load_plugins()
    return [
        Component(kind, name, _origins.get((kind, name), f"pathzoo {__version__}"))
        for kind, registered in registry.ALL.items()
        for name in sorted(registered.module_dict)
    ]
