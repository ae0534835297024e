"""Which components a published config may name, and the way from such a name to a class.

A `type` in model.json is a `scope.Name` that is looked up here, exactly, and nowhere else: host registries import any
dotted name they are given, so they only ever see the classes that this look-up found. Importing this module loads
neither torch nor an OpenMMLab package.
"""

import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pathzoo.errors import ZooError
from pathzoo.zoo.components import BUILT_IN, HOST_NAMES, TRAINED_AS, WHOLE_MODELS, WORDS
from pathzoo.zoo.config_rules import find_forbidden, strip

if TYPE_CHECKING:
    from torch import nn

#: the host of a bare name where the whole model does not tell
_FIRST_HOST = "mmpretrain"
_NAME = re.compile(r"[a-z][a-z0-9_]*\.[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True)
class _FromPlugin:
    component: Any
    plugin: str
    version: str


_from_plugins: dict[str, _FromPlugin] = {}


def register_allowed(name: str, component: Any, plugin: str, plugin_version: str) -> None:
    """Allows a component of an installed plug-in under `name`; the plug-in loader calls this, never a model.

    Args:
        name: `scope.Name`, e.g. `mylab.WideHead`.
        component: The class (or function) that the config's arguments are given to.
        plugin: Distribution name, as for `pip install`.
        plugin_version: Its installed version.

    Raises:
        ZooError: `name` is malformed or belongs to another component already.
    """
    known = _from_plugins.get(name)
    if not _NAME.fullmatch(name):
        raise ZooError(f"plug-in {plugin}: component name {name!r} is not of the form scope.Name")
    if name in BUILT_IN or name in WORDS or (known is not None and known.component is not component):
        owner = known.plugin if known else "pathzoo"
        raise ZooError(f"plug-in {plugin}: component name {name!r} already belongs to {owner}; rename it")
    _from_plugins[name] = _FromPlugin(component, plugin, plugin_version)


def allowed_names() -> list[str]:
    """Every `scope.Name` that a published config may hold here and now."""
    return sorted({*BUILT_IN, *WORDS, *_from_plugins})


def find_refused(config: Any) -> Iterator[tuple[str, str]]:
    """Yields (key path, reason) for all that keeps a published config from being built: forbidden key, unknown type."""
    if not isinstance(config, dict) or "type" not in config:
        yield "model", "is no config with a `type`"
        return
    yield from find_forbidden(config)
    for path, name in _types(config, "model"):
        if not isinstance(name, str):
            yield path, f"a {type(name).__name__} is no component name"
        elif name not in BUILT_IN and name not in WORDS and name not in _from_plugins:
            yield path, f"{name!r} is not a component that a published model may name"


def find_part(config: Any, task: str) -> Iterator[tuple[str, str]]:
    """Yields (key path, reason) where a config is no whole model of the task, e.g. a bare backbone.

    What a plug-in's component is, its author knows.
    """
    name = config.get("type") if isinstance(config, dict) else None
    whole = WHOLE_MODELS.get(task)
    if not isinstance(name, str) or whole is None or name not in BUILT_IN:
        return
    if name not in whole:
        yield "model.type", f"{name!r} is no whole {task} model, only a part of one or a model of another task"
    elif task == "representation" and config.get("head"):
        yield "model.head", "a representation model ends in features: leave the head out"


def plugins_needed(config: Any) -> dict[str, str]:
    """The plug-ins (name -> version) whose components a published config names."""
    found = (_from_plugins.get(name) for _, name in _types(config, "model") if isinstance(name, str))
    return {entry.plugin: entry.version for entry in found if entry is not None}


def to_data(config: Any) -> dict[str, Any]:
    """A training config's model as plain data, ready to publish.

    Classes, lazily imported names and registered strings become `scope.Name`; tuples become lists; what could fetch or
    open something (`init_cfg`, `pretrained`, ...) is left out. A model that differs from another one in training alone
    becomes that one.

    Raises:
        ZooError: A component is not on the allow-list, or a value is an address, a path or no plain data; the message
            gives key path and value.
    """
    stripped = _without_training(strip(config))
    kind = stripped.get("type") if isinstance(stripped, dict) else None
    scope = _name_of(kind, "model.type", _FIRST_HOST).partition(".")[0] if kind is not None else _FIRST_HOST
    data: dict[str, Any] = _name_types(stripped, "model", scope)
    for path, reason in find_refused(data):
        raise ZooError(f"{path}: {reason}, so the model cannot be published with it")
    return data


def build_from_data(config: dict[str, Any]) -> "nn.Module":
    """Builds a published config; its weights are as the components leave them, not yet the published ones.

    Raises:
        ZooError: The config holds something refused (see `find_refused`), or its arguments do not fit.
    """
    for path, reason in find_refused(config):
        raise ZooError(f"{path}: {reason}; the model is not built")
    from mmengine.config import ConfigDict

    from pathzoo.registry import MODELS

    try:
        # Hosts read some blocks by attribute (test_cfg.mode), as the configs of training let them.
        module: nn.Module = MODELS.build(ConfigDict(_with_classes(config)))
    except ZooError:
        raise
    except Exception as error:  # whatever a host's constructor raises for arguments that do not fit
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ZooError(f"model: cannot be built from its config: {reason}") from error
    return module


def _without_training(config: Any) -> Any:
    """A model of `TRAINED_AS` under the name, and with the arguments, that it is published by; others as they are."""
    kind: Any = config.get("type") if isinstance(config, dict) else None
    if hasattr(kind, "build") and not inspect.isclass(kind):
        kind = kind.build()
    text = kind if isinstance(kind, str) else f"{getattr(kind, '__module__', '')}.{getattr(kind, '__name__', '')}"
    for name, published in TRAINED_AS.items():
        if _spells(text, name):
            if published.backbone_only:
                return _encoder(config, published.name)
            rest = {key: value for key, value in config.items() if key not in published.without}
            return rest | {"type": published.name}
    return config


def _encoder(config: dict[str, Any], name: str) -> dict[str, Any]:
    """The backbone of a pretext model under a mean over the tile, fed by the same mean and std."""
    given = config.get("data_preprocessor") or {}
    swaps = any(given.get(key) for key in ("to_rgb", "bgr_to_rgb", "rgb_to_bgr"))
    norms = {key: given[key] for key in ("mean", "std") if key in given}
    return {
        "type": name,
        "data_preprocessor": {"type": "mmpretrain.ClsDataPreprocessor", **norms, "to_rgb": swaps},
        "backbone": config.get("backbone"),
        "neck": {"type": "mmpretrain.GlobalAveragePooling"},
    }


def _types(config: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(config, dict):
        for key, value in config.items():
            if key == "type":
                yield f"{path}.type", value
            else:
                yield from _types(value, f"{path}.{key}")
    elif isinstance(config, (list, tuple)):
        for index, value in enumerate(config):
            yield from _types(value, f"{path}[{index}]")


def _with_classes(config: Any) -> Any:
    if isinstance(config, dict):
        return {key: _resolve(value) if key == "type" else _with_classes(value) for key, value in config.items()}
    if isinstance(config, list):
        return [_with_classes(value) for value in config]
    return config


def _resolve(name: str) -> Any:
    if name in WORDS:
        return WORDS[name]
    if name in _from_plugins:
        return _module_class(_from_plugins[name].component, name)
    module, _, attribute = BUILT_IN[name].partition(":")
    if module.startswith("mm"):
        from pathzoo import compat

        compat.install()
    try:
        return getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise ZooError(f"{name}: its package cannot be imported here ({error}); install pathzoo[all]") from error


def _module_class(component: Any, name: str) -> Any:
    """A plug-in also registers data sets and hooks; a published model has no business with those."""
    from torch import nn

    if not (inspect.isclass(component) and issubclass(component, nn.Module)):
        raise ZooError(f"{name}: is no torch module, so a published model may not name it")
    return component


def _name_types(config: Any, path: str, scope: str) -> Any:
    if isinstance(config, dict):
        return {
            key: _name_of(value, f"{path}.type", scope) if key == "type" else _name_types(value, f"{path}.{key}", scope)
            for key, value in config.items()
        }
    if isinstance(config, list):
        return [_name_types(value, f"{path}[{index}]", scope) for index, value in enumerate(config)]
    return config


def _name_of(value: Any, path: str, scope: str) -> str:
    """The allow-list's name for a class, a lazily imported one (mmengine's LazyObject), or a string of either kind.

    A bare name that several hosts have (ResNet) means that of `scope`, the host of the whole model.
    """
    if hasattr(value, "build") and not inspect.isclass(value):
        value = value.build()
    if isinstance(value, str):
        exact = value in allowed_names()
        candidates = [value] if exact else [name for name in allowed_names() if _spells(value, name)]
    else:
        candidates = [name for name in allowed_names() if _may_be(value, name) and _resolve(name) is value]
    if len(candidates) > 1:
        candidates = [name for name in candidates if name.partition(".")[0] == scope]
    if len(candidates) != 1:
        shown = (
            value
            if isinstance(value, str)
            else f"{getattr(value, '__module__', '')}.{getattr(value, '__name__', value)}"
        )
        raise ZooError(
            f"{path}: {shown!r} is not a component that a published model may name; "
            "a plug-in can allow its own (entry point pathzoo.plugins)"
        )
    return candidates[0]


def _may_be(value: Any, name: str) -> bool:
    """Whether `name` is worth importing to see if it is the class `value`: a classifier does not import detection."""
    scope, _, last = name.partition(".")
    if getattr(value, "__name__", None) != last:
        return False
    return name in _from_plugins or getattr(value, "__module__", "").partition(".")[0] == scope


def _spells(text: str, name: str) -> bool:
    """Whether a string in a training config means the allowed `name`: by its last part or as a dotted import path.

    The path is compared, never imported: `mmpretrain.models.heads.LinearClsHead` means `mmpretrain.LinearClsHead`.
    """
    scope, _, last = name.partition(".")
    if HOST_NAMES.get(text) == name or (text == last and name not in WORDS):
        return True
    parts = text.split(".")
    return parts[0] == scope and parts[-1] == last and name not in WORDS
