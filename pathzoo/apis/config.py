"""Loads a config, sets options in it, and refuses what nobody would read, before anything is built."""

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from mmengine.config import Config, ConfigDict
from mmengine.config.lazy import LazyAttr, LazyObject

from pathzoo.apis.signatures import accepted_keywords, named_keywords, resolve_type
from pathzoo.errors import ConfigError
from pathzoo.nearest import did_you_mean
from pathzoo.paths import configs_root, leaf_configs

_LOADER = (
    "dataset batch_size sampler batch_sampler num_workers collate_fn worker_init_fn persistent_workers pin_memory "
    "drop_last prefetch_factor timeout num_batch_per_epoch indices pin_memory_device multiprocessing_context"
)
_LOOP = "type by_epoch max_epochs max_iters val_begin val_interval dynamic_intervals fp16"
#: What mmengine's Runner reads at the top level, with the keys of those dicts that have no `type` of their own.
_RUNNER_KEYS: dict[str, str | None] = {
    "model": None,
    "work_dir": None,
    "train_dataloader": _LOADER,
    "val_dataloader": _LOADER,
    "test_dataloader": _LOADER,
    "train_cfg": _LOOP,
    "val_cfg": _LOOP,
    "test_cfg": _LOOP,
    "auto_scale_lr": "enable base_batch_size",
    "optim_wrapper": "type optimizer constructor paramwise_cfg clip_grad accumulative_counts dtype loss_scale use_fsdp",
    "param_scheduler": None,
    "val_evaluator": None,
    "test_evaluator": None,
    "default_hooks": "runtime_info timer sampler_seed logger param_scheduler checkpoint visualization",
    "custom_hooks": None,
    "data_preprocessor": None,
    "load_from": None,
    "resume": None,
    "launcher": None,
    "env_cfg": "cudnn_benchmark mp_cfg dist_cfg resource_limit",
    "log_processor": None,
    "log_level": None,
    "visualizer": None,
    "default_scope": None,
    "randomness": "seed diff_rank_seed deterministic",
    "experiment_name": None,
    "model_wrapper_cfg": None,
    "find_unused_parameters": None,
    "sync_bn": None,
    "compile": None,
    "runner_type": None,
}
#: What pathzoo itself reads at the top level.
_OWN_KEYS: dict[str, str | None] = {
    "study": None,
    "task": None,
    "model_input": "tile_size mpp mpp_tolerance resize hu_window channels stain_fit",
    "parameters": None,
}


def load_config(path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Loads a config file, sets `options` and checks every key.

    Args:
        path: A file, or a path below the packaged `configs/` (as `breakhis_xception/NAME.py`).
        options: Dotted key -> value. A name in the config's `parameters` sets every place that stands there, so that
            `fold=3` reaches all three data sets.

    Raises:
        ConfigError: The file is missing or no valid Python; a key of the config or of `options` is one that nothing
            reads. The message names the file, the key and the nearest valid one.
    """
    file = find_config(path)
    try:
        config = Config.fromfile(str(file))
    except ConfigError:
        raise
    except Exception as error:  # a config is Python: anything may be raised in it
        raise ConfigError(f"{file}: cannot be read as a config ({type(error).__name__}: {error})") from error
    set_options(config, options or {}, "--cfg-options")
    check_config(config)
    return config


def find_config(path: str | Path) -> Path:
    """The file that `path` names, in the working folder or below the packaged configs.

    Raises:
        ConfigError: There is none; the nearest packaged config is named.
    """
    for candidate in (Path(path), configs_root() / path):
        if candidate.is_file():
            return candidate.resolve()
    packaged = [str(file.relative_to(configs_root())) for file in leaf_configs()]
    raise ConfigError(f"{path}: no such config file{did_you_mean(str(path).removeprefix('configs/'), packaged)}")


def set_options(config: Config, options: Mapping[str, Any], source: str) -> None:
    """Sets dotted keys in place, parameters through all their places.

    Args:
        config: A loaded config.
        options: Dotted key -> value; list entries are addressed by number (`val_evaluator.0.positive`).
        source: What to name in errors, such as "--cfg-options".

    Raises:
        ConfigError: A key that the config does not have and nothing would read.
    """
    for key, value in options.items():
        places = (config.get("parameters") or {}).get(key)
        for place in places or [key]:
            _set(config, place, copy.deepcopy(value), f"{source} {key}")


def check_config(config: Config) -> None:
    """Checks every key of a loaded config against what reads it.

    A dict with a `type` is bound to that class's signature, and to its `check_config` where it has one; the Runner's
    own dicts are compared with what it reads. Names at the top level that only serve the file itself begin with `_` or
    end in `_pipeline`.

    Raises:
        ConfigError: With the file, the key and the nearest valid one.
    """
    file = config.filename or "config"
    valid = {**_RUNNER_KEYS, **_OWN_KEYS}
    content = _plain(config)
    for key, value in content.items():
        if key not in valid:
            if not key.startswith("_") and not key.endswith("_pipeline"):
                raise ConfigError(f"{file}: nothing reads the key {key!r}{did_you_mean(key, valid)}")
            continue
        if key == "optim_wrapper" and _has_parts(value):
            for name in value.keys() - {"constructor"}:
                _check_keys(value[name], valid[key], f"{key}.{name}", file)
        else:
            _check_keys(value, valid[key], key, file)
        for path, node in _typed_nodes(value, key):
            _check_binding(node, path, file)
    for name, places in (content.get("parameters") or {}).items():
        for place in places:
            _lookup(config, place, f"{file}: parameters.{name}", free_dicts=True)


def _has_parts(wrapper: Any) -> bool:
    """Whether a constructor of its own gives each part of the model (generators, discriminators) its own optimizer."""
    if not isinstance(wrapper, dict) or "optimizer" in wrapper or "constructor" not in wrapper:
        return False
    return all(isinstance(part, dict) for name, part in wrapper.items() if name != "constructor")


def _plain(config: Config) -> dict[str, Any]:
    """The config's content without the imported classes, which mmengine keeps beside it."""
    content = config._to_lazy_dict() if hasattr(config, "_to_lazy_dict") else dict(config)
    return {key: value for key, value in content.items() if not isinstance(value, LazyObject | LazyAttr)}


def _check_keys(value: Any, keys: str | None, path: str, file: str) -> None:
    if keys is None or not isinstance(value, dict):
        return
    for key in value:
        if key not in keys.split():
            raise ConfigError(f"{file}: nothing reads the key {path}.{key}{did_you_mean(key, keys.split())}")


def _typed_nodes(value: Any, path: str) -> Iterator[tuple[str, dict]]:
    if isinstance(value, dict):
        if "type" in value:
            yield path, value
        for key, child in value.items():
            yield from _typed_nodes(child, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for number, child in enumerate(value):
            yield from _typed_nodes(child, f"{path}.{number}")


def _check_binding(node: dict, path: str, file: str) -> None:
    cls = resolve_type(node["type"], f"{file}: {path}.type")
    if cls is None:
        return
    accepted = accepted_keywords(cls)
    if accepted is not None and not _RUNNER_KEYS.get(path):  # the Runner's own dicts were checked by that table
        for key in set(node) - {"type"} - accepted:
            name = getattr(cls, "__name__", str(cls))
            raise ConfigError(f"{file}: {path}.{key}: {name} takes no {key!r}{did_you_mean(key, accepted)}")
    further: Callable | None = getattr(cls, "check_config", None)
    if further is not None:
        try:
            further({key: value for key, value in node.items() if key != "type"})
        except ConfigError as error:
            raise ConfigError(f"{file}: {path}: {error}") from error


def _lookup(config: Config, place: str, source: str, free_dicts: bool = False) -> tuple[Any, str]:
    """The container that holds `place`'s last key, and that key; the key itself may be new where a class takes it.

    With `free_dicts` it may also be new in a dict without a type: a parameter such as `fold` has no place while the
    whole `split` is another scheme's.
    """
    node: Any = config
    *heads, last = place.split(".")
    for number, key in enumerate(heads):
        if isinstance(node, list | tuple) and key.isdigit() and int(key) < len(node):
            node = node[int(key)]
        elif isinstance(node, dict | Config) and key in node:
            node = node[key]
        else:
            _refuse(node, key, ".".join(heads[: number + 1]), source)
    if isinstance(node, list):
        known = last.isdigit() and int(last) < len(node)
    elif free_dicts and isinstance(node, dict) and "type" not in node:
        known = True
    else:
        known = isinstance(node, dict | Config) and (last in node or last in _new_keys(node, ".".join(heads)))
    if not known:
        _refuse(node, last, place, source)
    return node, last


def _new_keys(node: Any, path: str) -> set[str]:
    """Keys that may be added to the dict at `path` of the config, since something would read them."""
    if isinstance(node, Config):
        return {*_RUNNER_KEYS, *_OWN_KEYS, *(node.get("parameters") or {})}
    if isinstance(node, dict) and "type" in node:
        cls = resolve_type(node["type"], "type")
        return named_keywords(cls) if cls else set()
    return set((_RUNNER_KEYS.get(path) or "").split())


def _refuse(node: Any, key: str, place: str, source: str) -> NoReturn:
    valid = _new_keys(node, place.rpartition(".")[0])
    if isinstance(node, dict | Config):
        valid |= {str(name) for name, value in node.items() if not isinstance(value, LazyObject | LazyAttr)}
    raise ConfigError(f"{source}: the config has no {place!r}{did_you_mean(key, valid)}")


def _set(config: Config, place: str, value: Any, source: str) -> None:
    node, last = _lookup(config, place, f"{config.filename}: {source}")
    if isinstance(value, dict):
        value = ConfigDict(value)
    if isinstance(node, list):
        node[int(last)] = value
    else:
        node[last] = value
