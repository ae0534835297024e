"""Draws synthetic pictures from the label maps of training patients: what `tools/synthesize.py` calls."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.utils import track_iter_progress
from torch import nn

from pathzoo._version import __version__
from pathzoo.apis.checks import errors_of_the_config
from pathzoo.apis.config import load_config
from pathzoo.apis.lineage import ancestors_of, splits_beside
from pathzoo.apis.run_record import recorded_start
from pathzoo.apis.setup import setup
from pathzoo.apis.signatures import resolve_type
from pathzoo.apis.synthesis_maps import TrainingMaps
from pathzoo.apis.synthesis_regions import RegionMaps
from pathzoo.apis.synthesis_slices import SliceMaps
from pathzoo.datasets.label_augmentation import LabelAugmentation, augment_labels
from pathzoo.datasets.regions import RegionSegmentation
from pathzoo.datasets.slices import SliceSegmentation
from pathzoo.datasets.splits import Split
from pathzoo.engine.checkpoint import load_checkpoint_safely, state_dict_of
from pathzoo.errors import CheckpointError, ConfigError, DataError, LeakageError
from pathzoo.fileio import sha256_file
from pathzoo.registry import MODELS

#: What a control has of the real thing: "untrained" the label maps alone, "shuffled" pictures of other label maps.
CONTROLS = ("untrained", "shuffled")
#: The study's number.
COUNT = 1333


@dataclass(frozen=True)
class Drawing:
    """How pictures are drawn.

    Args:
        count: How many.
        seed: Of their order, of the changes to label maps and of the generator's noise; picture k of a seed is the same
            whatever the count is.
        augmentation: Changes to the label maps.
        noise: The generator's dropout is on, drawn anew for each picture.
        control: "untrained" draws by a generator with its initial weights; "shuffled" draws every picture from the
            label map of another one. Neither can help; what either gains in a study is not due to the drawing.
    """

    count: int = COUNT
    seed: int = 0
    augmentation: LabelAugmentation = field(default_factory=LabelAugmentation)
    noise: bool = True
    control: str | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"count={self.count}: draw one picture at least")
        if self.control is not None and self.control not in CONTROLS:
            raise ConfigError(f"control={self.control!r}: give one of {', '.join(CONTROLS)}, or none")


def synthesize(
    config: str | Path,
    checkpoint: str | Path | None,
    out: str | Path,
    drawing: Drawing | None = None,
    *,
    classes: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    device: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Draws pictures by a trained generator.

    Label maps are those of the config's training subset that show a class other than the first, each equally often: of
    CT the slices of a store, of tissue the patches that cover the regions. A drawn picture inherits the patient of its
    label map, and stays training data for good: the data sets refuse it elsewhere.

    Args:
        config: A translator's config, or its path below the packaged ones.
        checkpoint: A .pth of its run; None with the control "untrained".
        out: The folder: a synthetic store (`pathzoo.ct.store`) of slices, drawn regions
            (`pathzoo.datasets.drawn_regions`) of tissue.
        drawing: How; as `Drawing` has it where not given.
        classes: Label maps that show one of these alone: a rare class is augmented so.
        options: Dotted key -> value, set in the config (`data_root`).
        device: "cpu", "cuda", ...; the first GPU where there is one.
        overwrite: Replace a folder of drawn pictures that is there.

    Returns:
        `out`.

    Raises:
        ConfigError: No translator's config, no checkpoint, no such class.
        CheckpointError: It cannot be loaded safely, or is of another model.
        LeakageError: The generator, or a run that its weights come from, was trained on patients whom the data keeps
            for validation or testing.
        DataError, OutputError: As the data set and the writer.
    """
    setup()
    draw_into(
        out, load_config(config, options), checkpoint, drawing, classes=classes, device=device, overwrite=overwrite
    )
    return Path(out)


def draw_into(
    out: str | Path,
    cfg: Config,
    checkpoint: str | Path | None,
    drawing: Drawing | None = None,
    *,
    classes: Sequence[str] | None = None,
    device: str | None = None,
    overwrite: bool = False,
) -> nn.Module:
    """As `synthesize`, by a config that is read already; the generator that drew, for `report_synthesis`."""
    drawing = drawing or Drawing()
    maps = maps_class(cfg)(cfg, classes)
    drawing = replace(drawing, augmentation=maps.fitted(drawing.augmentation))
    if (checkpoint is None) != (drawing.control == "untrained"):
        raise ConfigError("give the checkpoint of a trained generator; the control 'untrained' alone goes without one")
    if drawing.control == "shuffled" and len(maps) < 2:
        raise ConfigError("the control 'shuffled' pairs a picture with another one's label map, and there is only one")
    if checkpoint is not None:
        maps.refuse_held_out(_seen_by(Path(checkpoint)))
    model = load_generator(cfg, checkpoint, drawing.seed, device)
    key, digest = maps.parent
    record = {
        key: digest,
        "generator": sha256_file(checkpoint) if checkpoint is not None else None,
        "config": Path(cfg.filename).name,
        "pathzoo": __version__,
        **asdict(drawing),
        "classes": None if classes is None else list(classes),
    }
    with maps.writer(out, record, overwrite) as add:
        for number, (index, labels, picture) in enumerate(_drawn(model, maps, drawing)):
            add(number, index, labels, picture)
    return model


def _seen_by(checkpoint: Path) -> list[tuple[Split, str]]:
    """The splits of a generator's run and of those that its weights come from, each with the name of its file.

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
    subset = _trained_subset(run)
    if subset not in ("train", None):
        raise LeakageError(
            f"{checkpoint}: its run was trained on the subset {subset!r}, and has seen who is validated or tested on: "
            "train a generator on subset 'train'"
        )
    ancestors = ancestors_of(recorded_start(run), run)
    for text in ancestors.caveats:
        print_log(text, logger="current", level=logging.WARNING)
    return [*trained, *ancestors.splits]


def _trained_subset(run: Path) -> str | None:
    """The subset that the train_run.json of a run counts; None where it does not say."""
    try:
        found = json.loads((run / "train_run.json").read_text(encoding="utf-8"))["data"]["counts"].get("subset")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return None if found is None else str(found)


def maps_class(cfg: Config) -> type[TrainingMaps]:
    """The kind of label maps that a translator's config is trained on.

    Raises:
        ConfigError: The config is no translator's of CT slices or of regions.
    """
    given = (cfg.get("train_dataloader") or {}).get("dataset") or {}
    kind = resolve_type(given.get("type"), f"{cfg.filename}: train_dataloader.dataset.type")
    for base, maps in ((SliceSegmentation, SliceMaps), (RegionSegmentation, RegionMaps)):
        if cfg.get("task") == "translation" and isinstance(kind, type) and issubclass(kind, base):
            return maps
    raise ConfigError(
        f"{cfg.filename}: is a config of task {cfg.get('task')} on {getattr(kind, '__name__', kind)}; give a "
        "translator's on SliceSegmentation or RegionSegmentation"
    )


def load_generator(cfg: Config, checkpoint: str | Path | None, seed: int, device: str | None) -> nn.Module:
    """The translator of a config, in evaluation mode: a run's, or one with initial weights drawn by `seed`."""
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
    model = model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return model.eval()


def draw_one(model: nn.Module, labels: np.ndarray, seed: list[int] | None) -> np.ndarray:
    """One picture of one label map (H, W): float32 (K, H, W) of 0..255; with the generator's noise where a seed is."""
    draw: Any = model.draw
    device = next(model.parameters()).device
    number = None if seed is None else [int(np.random.SeedSequence(seed).generate_state(1)[0])]
    drawn = draw(torch.from_numpy(labels.astype(np.int64))[None].to(device), number)
    return drawn[0].float().cpu().numpy()


def _drawn(model: nn.Module, maps: TrainingMaps, drawing: Drawing) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """For each picture the index of its label map, the map as changed, and the picture (K, H, W), 0..255."""
    for number in track_iter_progress(range(drawing.count)):
        index, labels = _label_map(maps, drawing, number)
        seen = labels
        if drawing.control == "shuffled":  # the map of another picture of the same round, which has each map once
            turn, place = divmod(number, len(maps))
            other = (place + max(1, len(maps) // 2)) % len(maps)
            seen = _label_map(maps, drawing, turn * len(maps) + other)[1]
        yield index, labels, draw_one(model, seen, [drawing.seed, number] if drawing.noise else None)


def _label_map(maps: TrainingMaps, drawing: Drawing, number: int) -> tuple[int, np.ndarray]:
    """Label map `number`: in every round each of them once, in another order, changed in its own way."""
    turn, place = divmod(number, len(maps))
    index = int(np.random.default_rng([drawing.seed, 1, turn]).permutation(len(maps))[place])
    rng = np.random.default_rng([drawing.seed, 2, number])
    return index, augment_labels(maps.label(index), rng, drawing.augmentation)
