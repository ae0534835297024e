"""Makes one round of pseudo-labels: predict every unlabelled region, choose what to trust, write, audit.

Everything is a function of the teacher's weights, the images and the settings: a round that was broken off goes on
where it stood, and any number of processes gives the same files.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from pathzoo.engine.self_training.audit import (
    Alarm,
    Counts,
    audit_rows,
    count_region,
    sum_counts,
    warnings_of,
    write_table,
)
from pathzoo.engine.self_training.confidence import SCALE, lowest_probability
from pathzoo.engine.self_training.folder import FORMAT, PseudoLabelFolder, round_folder
from pathzoo.engine.self_training.labeller import Tiling
from pathzoo.engine.self_training.pictures import file_name, write_labels
from pathzoo.engine.self_training.policies import keep, lowest_levels
from pathzoo.engine.self_training.progress import Progress
from pathzoo.engine.self_training.records import (
    check_unchanged,
    is_done,
    load_record,
    predict_and_store,
    read_prediction,
)
from pathzoo.engine.self_training.sharing import on_main, share_out
from pathzoo.engine.self_training.state import begin_round
from pathzoo.engine.self_training.teacher import state_digest
from pathzoo.errors import DataError
from pathzoo.fileio import canonical_json, sha256_bytes, write_json
from pathzoo.wsi.colors import class_colors


@dataclass(frozen=True)
class Round:
    """What a round is made of.

    Args:
        work_dir: the run's; on several machines one that all of them see.
        number: from 1.
        epoch: epochs trained before it.
        run: id of the run.
        dataset: a `PseudoLabelled`: its unlabelled part is predicted, its labelled part gives the mix of classes.
        teacher: "ema" or "model", for the record.
        policy: of `checked_policy`.
        tiling: how regions are predicted.
        alarm: when to warn.
        use_truth: hold the pseudo-labels against the hidden truth, where there is one, for the audit alone.
    """

    work_dir: Path
    number: int
    epoch: int
    run: str
    dataset: Any
    teacher: str
    policy: dict[str, Any]
    tiling: Tiling = field(default_factory=Tiling)
    alarm: Alarm = field(default_factory=Alarm)
    use_truth: bool = True

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return round_folder(self.work_dir, self.number)

    @property
    def regions(self) -> tuple[Any, ...]:
        """The unlabelled regions."""
        return tuple(self.dataset.unlabelled.regions)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the order of the labels."""
        return tuple(self.dataset.metainfo["classes"])

    @property
    def colors(self) -> list[tuple[int, int, int]]:
        """RGB of each class: the data's own palette, or ours."""
        palette = self.dataset.metainfo.get("palette") or class_colors(self.classes).values()
        return [tuple(int(channel) for channel in color) for color in palette]

    def fingerprint(self, model: str) -> str:
        """Digest of all that a prediction depends on beside the image; `model` is the weights' digest."""
        parts = {"format": FORMAT, "round": self.number, "model": model, "policy": self.policy, "classes": self.classes}
        parts |= {"tta": self.tiling.tta, "tile": self.tiling.tile, "stride": self.tiling.stride}
        return sha256_bytes(canonical_json(parts))


def make_round(
    plan: Round, model: nn.Module, logger: logging.Logger, after_region: Callable[[], None] = lambda: None
) -> PseudoLabelFolder:
    """Makes the round, or what is missing of it; to be called by all processes of the run.

    Args:
        plan: what to make.
        model: the teacher, in evaluation mode, with the same weights in all processes.
        logger: told how far it is, what came out, and what is wrong with it.
        after_region: called after every region predicted; may end the process, the regions done are kept.

    Raises:
        DataError: the folder holds another run's round; an image changed; a file that was written is gone or damaged.
        ConfigError: the model does not give one finite probability for each class and pixel.
    """
    digest = state_digest(model)
    fingerprint, regions = plan.fingerprint(digest), plan.regions
    todo = on_main(lambda: _prepare(plan, digest, fingerprint, logger))
    progress = Progress(f"round {plan.number}", todo, [r.width * r.height for r in regions], logger)

    def predict(index: int) -> None:
        check_unchanged(regions[index])
        image = np.asarray(plan.dataset.unlabelled.read_image(index))
        predict_and_store(plan.folder, regions[index], image, model, plan.colors, plan.tiling, fingerprint)
        progress.done(index)
        after_region()

    share_out(todo, predict)
    histogram = on_main(lambda: _histogram(plan, fingerprint))
    lowest = lowest_levels(plan.policy, histogram)
    before = _round_before(plan)
    written = share_out(range(len(regions)), lambda index: _write_region(plan, index, lowest, before))
    on_main(lambda: _conclude(plan, digest, histogram, lowest, written, before, logger))
    return PseudoLabelFolder(plan.folder)


def labelled_mix(dataset: Any) -> NDArray[np.int64]:
    """(C,) labelled pixels by class that are trained on, over whole regions."""
    n_classes = len(dataset.metainfo["classes"])
    part = dataset.labelled
    return sum_counts(count_region(part.read_labels(i), n_classes) for i in range(len(part.regions))).kept


def _prepare(plan: Round, digest: str, fingerprint: str, logger: logging.Logger) -> list[int]:
    """Takes the folder over or makes it; the regions that are still to be predicted."""
    if not plan.regions:
        raise DataError("self-training: the unlabelled part holds no region: nothing to make pseudo-labels of")
    names = {file_name(region.item): region.item for region in plan.regions}
    if len(names) != len(plan.regions):
        raise DataError(f"{plan.folder}: {len(plan.regions)} regions share {len(names)} file names; rename one of them")
    begin_round(plan.folder, {"run": plan.run, "fingerprint": fingerprint, "model": digest}, logger)
    pixels = [region.width * region.height for region in plan.regions]
    todo = [index for index, region in enumerate(plan.regions) if not is_done(plan.folder, region, fingerprint)]
    todo.sort(key=lambda index: -pixels[index])  # dealt out in turn, every process gets about as much
    logger.info(
        f"self-training: round {plan.number} after {plan.epoch} epochs: {len(plan.regions)} regions, "
        f"{sum(pixels) / 1e6:.1f} megapixels, {len(plan.regions) - len(todo)} regions done before; weights "
        f"{digest[:12]}"
    )
    return todo


def _histogram(plan: Round, fingerprint: str) -> NDArray[np.int64]:
    """(C, 256) pixels by class and level over all regions, from their records."""
    records = [load_record(plan.folder, region.item) for region in plan.regions]
    for region, record in zip(plan.regions, records, strict=True):
        if record is None or record.get("fingerprint") != fingerprint:
            raise DataError(
                f"{plan.folder}: the prediction of {region.item} is not there though a process made it: several "
                "machines need one --work-dir that all of them see"
            )
    return np.sum([record["counts"] for record in records], axis=0, dtype=np.int64)


def _write_region(
    plan: Round, index: int, lowest: NDArray[np.int64], before: PseudoLabelFolder | None
) -> tuple[dict[str, Any], Counts]:
    """Writes the labels of one region; gives its entry in the provenance, and its counts."""
    region = plan.regions[index]
    record = load_record(plan.folder, region.item)
    labels = keep(*read_prediction(plan.folder, record), lowest)
    name = file_name(region.item)
    written = write_labels(plan.folder / "labels" / f"{name}.png", labels, plan.colors)
    truth = plan.dataset.unlabelled.read_truth(index) if plan.use_truth else None
    earlier = before.read(region.item) if before is not None else None
    counts = count_region(labels, len(plan.classes), earlier, truth)
    entry = {"file": name, "image_sha256": region.sha256, "width": region.width, "height": region.height}
    return {**entry, "labels": written, "kept": float(counts.kept.sum() / labels.size)}, counts


def _conclude(
    plan: Round,
    digest: str,
    histogram: NDArray[np.int64],
    lowest: NDArray[np.int64],
    written: list[tuple[dict[str, Any], Counts]],
    before: PseudoLabelFolder | None,
    logger: logging.Logger,
) -> None:
    """Writes provenance and audit; with the first the round is whole."""
    from pathzoo.engine.self_training.audit_plot import plot_audit  # matplotlib, which most runs never need
    from pathzoo.visualization.curves import save_figure

    counts = sum_counts(counts for _, counts in written)
    labelled = labelled_mix(plan.dataset)
    rows = audit_rows(plan.number, plan.epoch, plan.classes, histogram, lowest, counts, labelled)
    warnings = warnings_of(rows, before.provenance["audit"] if before is not None else None, plan.alarm)
    thresholds = [lowest_probability(int(level)) for level in lowest]
    write_json(
        plan.folder / "provenance.json",
        {
            "format": FORMAT,
            "round": plan.number,
            "epoch": plan.epoch,
            "run": plan.run,
            "teacher": plan.teacher,
            "model": digest,
            "split": plan.dataset.split.digest,
            "data": plan.dataset.data_digest,
            "classes": list(plan.classes),
            "policy": plan.policy,
            "thresholds": dict(zip(plan.classes, thresholds, strict=True)),
            "levels": dict(zip(plan.classes, lowest.tolist(), strict=True)),
            "confidence": SCALE,
            "tta": plan.tiling.tta,
            "tile": plan.tiling.tile,
            "stride": plan.tiling.stride,
            "items": {region.item: entry for region, (entry, _) in zip(plan.regions, written, strict=True)},
            "audit": rows,
            "warnings": warnings,
        },
    )
    table = [*_earlier_rows(plan), *rows]
    write_table(plan.folder.parent / "audit.csv", table)
    save_figure(plot_audit(table), plan.folder.parent / "audit.png")
    logger.info(_summary(plan, rows))
    for text in warnings:
        logger.warning(f"self-training: round {plan.number}: {text}; see {plan.folder.parent / 'audit.png'}")


def _round_before(plan: Round) -> PseudoLabelFolder | None:
    """The run's round before this one, if there was one and it is kept."""
    folder = round_folder(plan.work_dir, plan.number - 1)
    if plan.number == 1 or not (folder / "provenance.json").is_file():
        return None
    found = PseudoLabelFolder(folder)
    return found if found.provenance["run"] == plan.run else None


def _earlier_rows(plan: Round) -> list[dict[str, Any]]:
    """The audits of the run's rounds before this one, of those that are kept."""
    rows = []
    for number in range(1, plan.number):
        folder = round_folder(plan.work_dir, number)
        if (folder / "provenance.json").is_file():
            made = PseudoLabelFolder(folder).provenance
            rows += made["audit"] if made["run"] == plan.run else []
    return rows


def _summary(plan: Round, rows: list[dict[str, Any]]) -> str:
    whole, by_class = rows[0], rows[1:]
    kept = ", ".join(f"{row['class']} {row['kept_share'] or 0:.0%}" for row in by_class)
    text = f"self-training: round {plan.number}: kept {whole['kept_share']:.1%} of the pixels ({kept})"
    text += f", mean confidence {whole['mean_confidence']:.3f}"
    if whole["agreement"] is not None:
        text += f", agreement with the round before {whole['agreement']:.1%}"
    if whole["precision"] is not None:
        text += f", {whole['precision']:.1%} of the kept pixels are right"
    return f"{text}; in {plan.folder}"
