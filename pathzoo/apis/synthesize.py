"""Draws synthetic pictures from the label maps of training patients: what `tools/synthesize.py` calls."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.utils import track_iter_progress
from torch import nn

from pathzoo._version import __version__
from pathzoo.apis.config import load_config
from pathzoo.apis.generators import load_generator, origin_of
from pathzoo.apis.lineage import seen_beyond, warn
from pathzoo.apis.setup import setup
from pathzoo.apis.signatures import resolve_type
from pathzoo.apis.synthesis_maps import TrainingMaps
from pathzoo.apis.synthesis_regions import RegionMaps
from pathzoo.apis.synthesis_slices import SliceMaps
from pathzoo.datasets.label_augmentation import LabelAugmentation, augment_labels
from pathzoo.datasets.regions import RegionSegmentation
from pathzoo.datasets.slices import SliceSegmentation
from pathzoo.datasets.split_caveats import CAVEATS
from pathzoo.errors import ConfigError

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
        checkpoint: A .pth of its run, or name or folder of a published translator, whose patients cannot be compared: a
            caveat that goes with the pictures. None with the control "untrained".
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
        ConfigError: No translator's config, no checkpoint, no such class; a published model of other classes or another
            input.
        CheckpointError: It cannot be loaded safely, or is of another model.
        LeakageError: The generator, or a run that its weights come from, was trained on patients whom the data keeps
            for validation or testing.
        ZooError: No such published model, or one that does not verify.
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
    origin = origin_of(cfg, checkpoint, maps.classes)
    maps.refuse_held_out(origin.splits)
    caveats = [*origin.caveats, *seen_beyond(maps.split, origin.splits)]
    warn(caveats)
    model = load_generator(cfg, checkpoint, drawing.seed, device)
    key, digest = maps.parent
    record = {
        key: digest,
        **origin.record,
        **({CAVEATS: caveats} if caveats else {}),
        "config": Path(cfg.filename).name,
        "pathzoo": __version__,
        **asdict(drawing),
        "classes": None if classes is None else list(classes),
    }
    with maps.writer(out, record, overwrite) as add:
        for number, (index, labels, picture) in enumerate(_drawn(model, maps, drawing)):
            add(number, index, labels, picture)
    return model


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
