"""What a run is checked for before it begins: that the config fits the data, and the data what was trained on."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from pydantic import ValidationError

from pathzoo.apis.run_record import recorded_start
from pathzoo.datasets.leakage import refuse_choosing_on_test, refuse_overlap
from pathzoo.datasets.splits import Split
from pathzoo.errors import ConfigError, PathzooError
from pathzoo.wsi.stain import StainFit

#: What helps where the run that a backbone was made from has seen patients that are tested on.
ANCESTOR_REMEDY = (
    "pretrain anew without them (held_out=FILE with the splits.json of this run), or start from other weights"
)


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
    """How the model wants to be fed, with what its preprocessor says of mean and std (on the range 0..255)."""
    declared = config.to_dict().get("model_input") or {}
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


def splits_beside(folder: Path) -> list[tuple[Split, str]]:
    """The split that a run left in `folder`, with the file's name, or nothing."""
    path = folder / "splits.json"
    return [(Split.load(path), str(path))] if path.exists() else []


def ancestor_splits(start: Mapping[str, Any], folder: Path) -> list[tuple[Split, str]]:
    """The splits of all runs that a run's backbone was made from, the nearest first, each with its file's name.

    The chain is followed from run to run, as far as their folders are there; what is not is told in the log. A
    published model names no patients, so the chain ends at it.

    Args:
        start: `initial_weights` of the run.
        folder: Its work folder.
    """
    found: list[tuple[Split, str]] = []
    seen = {folder.resolve()}
    while start.get("source") == "run" and start.get("folder"):
        folder = (folder / start["folder"]).resolve()
        if folder in seen:
            break
        seen.add(folder)
        splits = splits_beside(folder)
        if not splits:
            print_log(
                f"{folder}: holds no splits.json, so the patients that {start.get('file')} was trained on cannot be "
                "compared with those of this run",
                logger="current",
                level=logging.WARNING,
            )
        found += splits
        start = recorded_start(folder)
    return found


def refuse_ancestors_patients(own: Split, ancestors: Sequence[tuple[Split, str]]) -> None:
    """Raises where what a run keeps for validation or testing was seen by a run that its backbone was made from.

    A representation that was learnt from the test patients, even without their labels, makes the test too good.

    Raises:
        LeakageError: Names the subset, the patient or image, and the earlier run's split.
    """
    for split, source in ancestors:
        refuse_trained_split(own, split, source, ANCESTOR_REMEDY)


def refuse_training_patients(
    dataset: Any, trained: Sequence[tuple[Split | None, str]], remedy: str | None = None
) -> None:
    """Raises where a patient, or an image's bytes, of an evaluated data set was trained on.

    Args:
        dataset: The data set to evaluate on; one without `subset` (a host's) is not looked at.
        trained: Splits of the runs that the weights come from, each with the name of its source.
        remedy: What to do about it, in place of what fits a run's own split.

    Raises:
        LeakageError: Names the subset, the patient or image, and the source.
    """
    if not hasattr(dataset, "subset"):
        return
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    for split, source in trained:
        if split is not None:
            refuse_overlap(split, infos, dataset.subset, source, remedy)


def refuse_validation_on_test(dataset: Any, split: Split) -> None:
    """Raises where a validation data set holds what the run's own split keeps for testing.

    Raises:
        LeakageError: Names the patient or image.
    """
    if hasattr(dataset, "subset"):
        refuse_choosing_on_test(split, [dataset.get_data_info(index) for index in range(len(dataset))])


def check_length(config: Config) -> None:
    """A training takes at least one epoch or iteration.

    Raises:
        ConfigError: Names the key and its value.
    """
    for key in ("max_epochs", "max_iters"):
        value = (config.get("train_cfg") or {}).get(key)
        if isinstance(value, int) and value < 1:
            raise ConfigError(f"{config.filename}: train_cfg.{key} is {value!r}; a training takes 1 at least")


def refuse_trained_split(own: Split, trained: Split, source: str, remedy: str | None = None) -> None:
    """Raises where what a split keeps for validation or testing was trained on under another split.

    `remedy` stands in place of `refuse_overlap`'s own.

    Raises:
        LeakageError: As `refuse_training_patients`.
    """
    for subset in ("val", "val_unlabelled", "test"):
        part = own.subsets.get(subset)
        if part is not None:
            infos = [{"item": group, "patient": group, "sha256": ""} for group in part.groups]
            infos += [{"item": item, "patient": None, "sha256": digest} for item, digest in part.items.items()]
            refuse_overlap(trained, infos, subset, source, remedy)


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
