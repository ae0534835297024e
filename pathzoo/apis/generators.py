"""What draws synthetic pictures: a run's generator, a published one or one with initial weights; and whom it saw."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from pydantic import ValidationError
from torch import nn

from pathzoo.apis.checks import errors_of_the_config, model_input
from pathzoo.apis.lineage import ancestors_of, not_compared, splits_beside
from pathzoo.apis.run_record import recorded, recorded_start
from pathzoo.datasets.split_caveats import CAVEATS
from pathzoo.datasets.splits import Split
from pathzoo.engine.checkpoint import load_checkpoint_safely, state_dict_of
from pathzoo.errors import CheckpointError, ConfigError, DataError, LeakageError
from pathzoo.fileio import sha256_file
from pathzoo.registry import MODELS
from pathzoo.zoo.find import find_model
from pathzoo.zoo.load import get_model
from pathzoo.zoo.manifest import WEIGHTS_FILE, Manifest, ModelInput
from pathzoo.zoo.verify import require_verified


@dataclass(frozen=True)
class Origin:
    """What is known of a generator before it draws.

    Attributes:
        record: what the folder of drawn pictures says of it: `generator`, the SHA-256 of its weights' file, None for
            initial weights; of a published one also `published`, as name@version.
        splits: of its run and of those that its weights come from, each with the name of its file.
        caveats: what could not be compared, a sentence each.
    """

    record: dict[str, Any]
    splits: list[tuple[Split, str]] = field(default_factory=list)
    caveats: list[str] = field(default_factory=list)


def origin_of(cfg: Config, checkpoint: str | Path | None, classes: Sequence[str]) -> Origin:
    """Where a generator comes from, once it may draw what a config wants.

    Args:
        cfg: a translator's config.
        checkpoint: a .pth of a run, the name or folder of a published model, None for initial weights.
        classes: of the label maps.

    Raises:
        ConfigError: a published model that is no translator, or of other classes than the config's; another input.
        DataError: no splits.json lies beside the .pth.
        LeakageError: a run that was not trained on its split's training subset.
        ZooError: no such model, or one that does not verify.
    """
    if checkpoint is None:
        return Origin({"generator": None})
    folder = published_folder(checkpoint)
    if folder is not None:
        return _origin_of_published(cfg, require_verified(folder), classes)
    path = Path(checkpoint)
    splits, caveats = _seen_by(path)
    _refuse_other_input(cfg, path)
    return Origin({"generator": sha256_file(path)}, splits, caveats)


def load_generator(cfg: Config, checkpoint: str | Path | None, seed: int, device: str | None) -> nn.Module:
    """The translator, in evaluation mode: see `origin_of` for `checkpoint`; initial weights are drawn by `seed`.

    Raises:
        CheckpointError: it cannot be loaded safely, or is of another model than the config's.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    folder = None if checkpoint is None else published_folder(checkpoint)
    if folder is not None:
        return get_model(folder, device).module
    with errors_of_the_config(cfg):
        model: Any = MODELS.build(cfg.model)
    if checkpoint is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model.init_weights()
    else:
        found = state_dict_of(load_checkpoint_safely(checkpoint))
        try:
            model.load_state_dict(found)
        except RuntimeError as error:
            reason = [*str(error).splitlines(), ""][1].strip() or str(error)
            raise CheckpointError(f"{checkpoint}: is not of the model in {cfg.filename} ({reason})") from error
    return model.to(device).eval()


def published_folder(checkpoint: str | Path) -> Path | None:
    """The folder of a published model; None for a file, or a name that ends as a run's files do.

    Raises:
        ZooError: neither a file nor a published model.
    """
    path = Path(checkpoint)
    return None if path.is_file() or path.suffix == ".pth" else find_model(checkpoint)


def _origin_of_published(cfg: Config, manifest: Manifest, classes: Sequence[str]) -> Origin:
    name = f"{manifest.name}@{manifest.version}"
    if manifest.task != "translation":
        raise ConfigError(f"{name}: its task is {manifest.task}; give a model of the task translation")
    kinds = [("the classes", tuple(classes), manifest.classes), *_kinds(_input_of(cfg), manifest.input)]
    _refuse_other(name, cfg, kinds, "give a config and options that fit, or train a generator of your own")
    caveats = [not_compared(f"the published {name}, which drew the pictures,")]
    if manifest.training is not None and manifest.training.synthetic:
        caveats.append(f"{name}, which drew the pictures, was trained on phantoms")
    return Origin({"generator": manifest.files[WEIGHTS_FILE].sha256, "published": name}, [], caveats)


def _seen_by(checkpoint: Path) -> tuple[list[tuple[Split, str]], list[str]]:
    """The splits of a generator's run and of those that its weights come from, and what could not be followed.

    Raises:
        DataError: there is none of its run.
        LeakageError: the run was not trained on its split's training subset.
    """
    run = checkpoint.parent
    trained = splits_beside(run)
    if not trained:
        raise DataError(
            f"{checkpoint}: no splits.json lies beside it, so whom it was trained on is not known, and it may have "
            "seen who is tested on: leave the checkpoint in its run's folder"
        )
    counts = recorded(run, "data", "counts") or {}
    subset = counts.get("subset")
    if subset not in ("train", None):
        raise LeakageError(
            f"{checkpoint}: its run was trained on the subset {subset!r}, and has seen who is validated or tested on: "
            "train a generator on subset 'train'"
        )
    ancestors = ancestors_of(recorded_start(run), run)
    return [*trained, *ancestors.splits], [*ancestors.caveats, *counts.get(CAVEATS, [])]


def _refuse_other_input(cfg: Config, checkpoint: Path) -> None:
    """Raises ConfigError where a run was trained for other pictures than a config wants, as far as its record says.

    Weights do not tell of their window: what they draw would be taken for other HU than were meant.
    """
    try:
        theirs = ModelInput.model_validate_json(json.dumps(recorded(checkpoint.parent, "model_input")))
    except ValidationError:  # a run of a host's, or an earlier one, that does not say
        return
    remedy = "give the options that it was trained with (window_centre=, window_width=, model_input...)"
    _refuse_other(str(checkpoint), cfg, _kinds(_input_of(cfg), theirs), remedy)


def _refuse_other(name: str, cfg: Config, kinds: Sequence[tuple[str, Any, Any]], remedy: str) -> None:
    for what, own, other in kinds:
        if own != other:
            raise ConfigError(
                f"{name}: draws {what} {_told(other)}, {Path(cfg.filename).name} wants {_told(own)}: {remedy}"
            )


def _kinds(wanted: ModelInput, theirs: ModelInput) -> list[tuple[str, Any, Any]]:
    """What two inputs may differ in so that pictures of one are none of the other: its name and both values."""
    return [
        ("tiles (width, height)", wanted.tile_size, theirs.tile_size),
        ("the window", wanted.hu_window, theirs.hu_window),
        ("channels", wanted.channels, theirs.channels),
        ("mpp", wanted.mpp, theirs.mpp),
    ]


def _input_of(cfg: Config) -> ModelInput:
    return ModelInput.model_validate_json(json.dumps(model_input(cfg)))


def _told(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
