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
from pathzoo.zoo.config_rules import find_forbidden, strip

if TYPE_CHECKING:
    from torch import nn

#: scope.Name -> "module:attribute". `torch.*` are layers that hosts take in norm_cfg, act_cfg and conv_cfg.
_BUILT_IN = {
    "pathzoo.TimmBackbone": "pathzoo.models.backbones.timm_backbone:TimmBackbone",
    "mmpretrain.ImageClassifier": "mmpretrain.models:ImageClassifier",
    "mmpretrain.ClsDataPreprocessor": "mmpretrain.models:ClsDataPreprocessor",
    "mmpretrain.GlobalAveragePooling": "mmpretrain.models:GlobalAveragePooling",
    "mmpretrain.LinearClsHead": "mmpretrain.models:LinearClsHead",
    "mmpretrain.CrossEntropyLoss": "mmpretrain.models:CrossEntropyLoss",
    "mmpretrain.LabelSmoothLoss": "mmpretrain.models:LabelSmoothLoss",
    "mmpretrain.FocalLoss": "mmpretrain.models:FocalLoss",
    "mmpretrain.ResNet": "mmpretrain.models:ResNet",
    "mmpretrain.MobileNetV2": "mmpretrain.models:MobileNetV2",
    "torch.BatchNorm2d": "torch.nn:BatchNorm2d",
    "torch.SyncBatchNorm": "torch.nn:SyncBatchNorm",
    "torch.GroupNorm": "torch.nn:GroupNorm",
    "torch.Conv2d": "torch.nn:Conv2d",
    "torch.ReLU": "torch.nn:ReLU",
    "torch.LeakyReLU": "torch.nn:LeakyReLU",
    "torch.SiLU": "torch.nn:SiLU",
}
#: what host configs call some of them
_HOST_NAMES = {
    "BN": "torch.BatchNorm2d",
    "BN2d": "torch.BatchNorm2d",
    "SyncBN": "torch.SyncBatchNorm",
    "GN": "torch.GroupNorm",
    "Conv": "torch.Conv2d",
    "Swish": "torch.SiLU",
}
#: built-in components that are a whole model of a task; every other one is a part of one
_WHOLE_MODELS = {"classification": {"mmpretrain.ImageClassifier"}}
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
    if name in _BUILT_IN or (known is not None and known.component is not component):
        owner = known.plugin if known else "pathzoo"
        raise ZooError(f"plug-in {plugin}: component name {name!r} already belongs to {owner}; rename it")
    _from_plugins[name] = _FromPlugin(component, plugin, plugin_version)


def allowed_names() -> list[str]:
    """Every `scope.Name` that a published config may hold here and now."""
    return sorted({*_BUILT_IN, *_from_plugins})


def find_refused(config: Any) -> Iterator[tuple[str, str]]:
    """Yields (key path, reason) for all that keeps a published config from being built: forbidden key, unknown type."""
    if not isinstance(config, dict) or "type" not in config:
        yield "model", "is no config with a `type`"
        return
    yield from find_forbidden(config)
    for path, name in _types(config, "model"):
        if not isinstance(name, str):
            yield path, f"a {type(name).__name__} is no component name"
        elif name not in _BUILT_IN and name not in _from_plugins:
            yield path, f"{name!r} is not a component that a published model may name"


def find_part(config: Any, task: str) -> Iterator[tuple[str, str]]:
    """Yields (key path, reason) where a config is only a part of a model, e.g. a bare backbone.

    What a plug-in's component is, its author knows.
    """
    name = config.get("type") if isinstance(config, dict) else None
    whole = _WHOLE_MODELS.get(task)
    if isinstance(name, str) and whole is not None and name in _BUILT_IN and name not in whole:
        yield "model.type", f"{name!r} is no whole {task} model, only a part of one"


def plugins_needed(config: Any) -> dict[str, str]:
    """The plug-ins (name -> version) whose components a published config names."""
    found = (_from_plugins.get(name) for _, name in _types(config, "model") if isinstance(name, str))
    return {entry.plugin: entry.version for entry in found if entry is not None}


def to_data(config: Any) -> dict[str, Any]:
    """A training config's model as plain data, ready to publish.

    Classes, lazily imported names and registered strings become `scope.Name`; tuples become lists; what could fetch or
    open something (`init_cfg`, `pretrained`, ...) is left out.

    Raises:
        ZooError: A component is not on the allow-list, or a value is an address, a path or no plain data; the message
            gives key path and value.
    """
    data: dict[str, Any] = _name_types(strip(config), "model")
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
    from pathzoo.registry import MODELS

    try:
        module: nn.Module = MODELS.build(_with_classes(config))
    except ZooError:
        raise
    except Exception as error:  # whatever a host's constructor raises for arguments that do not fit
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ZooError(f"model: cannot be built from its config: {reason}") from error
    return module


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
    if name in _from_plugins:
        return _module_class(_from_plugins[name].component, name)
    module, _, attribute = _BUILT_IN[name].partition(":")
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


def _name_types(config: Any, path: str) -> Any:
    if isinstance(config, dict):
        return {
            key: _name_of(value, f"{path}.type") if key == "type" else _name_types(value, f"{path}.{key}")
            for key, value in config.items()
        }
    if isinstance(config, list):
        return [_name_types(value, f"{path}[{index}]") for index, value in enumerate(config)]
    return config


def _name_of(value: Any, path: str) -> str:
    """The allow-list's name for a class, a lazily imported one (mmengine's LazyObject), or a string of either kind."""
    if hasattr(value, "build") and not inspect.isclass(value):
        value = value.build()
    if isinstance(value, str):
        exact = value in allowed_names()
        candidates = [value] if exact else [name for name in allowed_names() if _spells(value, name)]
    else:
        last = f".{getattr(value, '__name__', '')}"
        candidates = [name for name in allowed_names() if name.endswith(last) and _resolve(name) is value]
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


def _spells(text: str, name: str) -> bool:
    """Whether a string in a training config means the allowed `name`: by its last part or as a dotted import path.

    The path is compared, never imported: `mmpretrain.models.heads.LinearClsHead` means `mmpretrain.LinearClsHead`.
    """
    scope, _, last = name.partition(".")
    if text == last or _HOST_NAMES.get(text) == name:
        return True
    parts = text.split(".")
    return parts[0] == scope and parts[-1] == last
