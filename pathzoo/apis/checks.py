"""What a config is checked for before a run begins: that it fits the data, and says what its pipeline makes."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.config import Config
from pydantic import ValidationError

from pathzoo.ct.window import window_range
from pathzoo.errors import ConfigError, PathzooError
from pathzoo.wsi.stain import StainFit


@contextmanager
def errors_of_the_config(config: Config) -> Iterator[None]:
    """Turns what a value of the wrong kind raises while a run is built into one line that names the config."""
    try:
        yield
    except PathzooError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:300] or "no reason given"
        raise ConfigError(
            f"{config.filename}: cannot be built ({type(error).__name__}: {reason}); is a value of the wrong kind?"
        ) from error


def model_input(config: Config) -> dict[str, Any]:
    """How the model wants to be fed, with what its preprocessor says of mean and std (on the range 0..255).

    The window of CT slices is that of the test pipeline's HUWindow.
    """
    declared = config.to_dict().get("model_input") or {}
    for step in ((config.get("test_dataloader") or {}).get("dataset") or {}).get("pipeline") or []:
        if getattr(step["type"], "__name__", str(step["type"])).rpartition(".")[2] == "HUWindow":
            declared = declared | {"hu_window": list(map(float, window_range(step["centre"], step["width"])))}
    preprocessor = (config.get("model") or {}).get("data_preprocessor") or {}
    mean, std = (list(preprocessor.get(key) or []) for key in ("mean", "std"))
    return declared | {"value_range": [0, 255], "mean": mean, "std": std}


def check_model_input(config: Config) -> None:
    """What the config says of the model's input is valid, and is what its test pipeline makes.

    Raises:
        ConfigError: Names both values.
    """
    if not config.get("model_input"):
        return
    declared = model_input(config)
    from pathzoo.zoo.manifest import ModelInput

    try:
        ModelInput.model_validate_json(json.dumps(declared))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{config.filename}: model_input.{place}: {first['msg']}") from error
    stain = None
    for step in ((config.get("test_dataloader") or {}).get("dataset") or {}).get("pipeline") or []:
        name = getattr(step["type"], "__name__", str(step["type"])).rpartition(".")[2]
        if name == "ResizeToMpp":
            _same(config, "mpp", declared.get("mpp"), step["mpp"], name)
        elif name == "ResizeShortSide" and declared["resize"]["kind"] == "short_side":
            _same(config, "resize.size", declared["resize"]["size"], step["size"], name)
        elif name == "CenterCropOrPad":
            size = step["size"] if isinstance(step["size"], list | tuple) else (step["size"],) * 2
            _same(config, "tile_size", tuple(declared["tile_size"]), tuple(size), name)
        elif name == "NormalizeStain":
            stain = _stain_fit(config, step["target"])
    if config.get("test_dataloader"):
        _same(config, "stain_fit", _stain_fit(config, declared.get("stain_fit")), stain, "NormalizeStain")


def check_data_resolution(config: Config, dataset: Any) -> None:
    """Regions are cut at the resolution that they have; it must be the one that the config says the model sees.

    Raises:
        ConfigError: Names a region of another resolution, or of none.
    """
    declared = (config.get("model_input") or {}).get("mpp")
    if declared is None:
        return
    tolerance = (config.get("model_input") or {}).get("mpp_tolerance", 0.0)
    for region in getattr(dataset, "regions", None) or ():
        if region.mpp is None:
            raise ConfigError(
                f"{region.image}: its resolution is not known, but model_input.mpp is {declared}; fill the column "
                "mpp of the table, or give the data set mpp=..."
            )
        if abs(region.mpp - declared) > tolerance * declared:
            raise ConfigError(
                f"{region.image}: has {region.mpp:g} microns per pixel, but model_input.mpp is {declared} (tolerance "
                f"{tolerance:.0%}); convert the regions to one resolution, or set model_input.mpp"
            )


def check_slice_size(config: Config, size: tuple[int, int], where: str) -> None:
    """Slices have the size that the config says the model sees: another one is another scale, which no network tells.

    Args:
        config: of a model of slices.
        size: (width, height) of what it is to see, in pixels.
        where: whose size that is, for the message.

    Raises:
        ConfigError: names both sizes.
    """
    declared = (config.get("model_input") or {}).get("tile_size")
    if declared is not None and tuple(declared) != tuple(size):
        raise ConfigError(
            f"{where}: {size[0]} x {size[1]} px, but model_input.tile_size is {declared[0]} x {declared[1]}: convert "
            f"the slices to that size (ct_to_slices.py --size), or set model_input.tile_size='({size[0]},{size[1]})'"
        )


def check_length(config: Config) -> None:
    """A training takes at least one epoch or iteration.

    Raises:
        ConfigError: Names the key and its value.
    """
    for key in ("max_epochs", "max_iters"):
        value = (config.get("train_cfg") or {}).get(key)
        if isinstance(value, int) and value < 1:
            raise ConfigError(f"{config.filename}: train_cfg.{key} is {value!r}; a training takes 1 at least")


def _stain_fit(config: Config, block: Any) -> StainFit | None:
    try:
        return None if block is None else StainFit(block["method"], block["parameters"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{config.filename}: model_input.stain_fit: {error}") from error


def _same(config: Config, field: str, declared: Any, made: Any, step: str) -> None:
    if declared != made:
        raise ConfigError(
            f"{config.filename}: model_input.{field} is {declared}, but {step} of the test pipeline makes {made}; a "
            "published model would be fed wrongly: set both to one value"
        )
