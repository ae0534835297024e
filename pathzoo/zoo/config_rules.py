"""What may not stand in the config of a published model: whatever could fetch, open or import something.

The same rules strip a training config at publishing and refuse a foreign one at loading. No torch.
"""

import math
import re
from collections.abc import Iterator
from typing import Any

#: keys of mmengine and timm that fetch weights, read files or import modules; `_` starts mmengine's control keys
_FORBIDDEN_KEY = re.compile(
    r"init_cfg|pretrained.*|checkpoint.*|load_from|resume.*|custom_imports|backend_args|file_client_args|_.*"
)
#: only training needs these (mixing of images, freezing during training); a published config does without them
_TRAINING_KEY = re.compile(r"train_cfg|batch_augments")
_HUB = re.compile(r"(?:hf[-_]hub|local[-_]dir|file|https?|s3|ftp):", re.IGNORECASE)
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_TIMM_NAME = re.compile(r"[a-z0-9_]+")

Found = tuple[str, str]


def forbidden_key(key: str) -> str | None:
    """Why a config key may not be published, or None."""
    return "could fetch weights, read files or import code" if _FORBIDDEN_KEY.fullmatch(key) else None


def forbidden_value(value: str) -> str | None:
    """Why a text in a config may not be published, or None."""
    if "://" in value:
        return "is an address"
    if _HUB.match(value):
        return "names a hub or folder to fetch weights from"
    if value.startswith("/") or _DRIVE.match(value):
        return "is an absolute path"
    if value.startswith("~") or ".." in re.split(r"[\\/]", value):
        return "is a path"
    if "/" in value or "\\" in value:
        return "looks like a path or hub name"
    return None


def find_forbidden(config: Any, path: str = "model") -> Iterator[Found]:
    """Walks a config to any depth and yields (key path, reason) for all that the rules forbid.

    Which `type` names are allowed is not looked at here but in `pathzoo.zoo.allowlist`.
    """
    if isinstance(config, dict):
        yield from _in_dict(config, path)
    elif isinstance(config, (list, tuple)):
        for index, value in enumerate(config):
            yield from find_forbidden(value, f"{path}[{index}]")
    elif isinstance(config, str):
        reason = forbidden_value(config)
        if reason:
            yield path, f"{config!r} {reason}"
    elif isinstance(config, float) and not math.isfinite(config):
        yield path, f"{config} is not a number"
    elif not (config is None or isinstance(config, (bool, int, float))):
        yield path, f"a {type(config).__name__} is not plain data"


def _in_dict(config: dict[Any, Any], path: str) -> Iterator[Found]:
    for key, value in config.items():
        where = f"{path}.{key}"
        if not isinstance(key, str):
            yield where, f"key {key!r} is no text"
            continue
        reason = forbidden_key(key)
        if reason:
            yield where, f"key {key!r} {reason}"
            continue
        yield from find_forbidden(value, where)
    name = config.get("name")
    if config.get("type") == "pathzoo.TimmBackbone" and not (isinstance(name, str) and _TIMM_NAME.fullmatch(name)):
        yield f"{path}.name", f"{name!r} is no plain timm name (lower-case letters, digits and _)"


def strip(config: Any) -> Any:
    """A copy of a training config without forbidden and training-only keys; tuples become lists."""
    if isinstance(config, dict):
        return {
            key: strip(value)
            for key, value in config.items()
            if not (isinstance(key, str) and (forbidden_key(key) or _TRAINING_KEY.fullmatch(key)))
        }
    if isinstance(config, (list, tuple)):
        return [strip(value) for value in config]
    return config
