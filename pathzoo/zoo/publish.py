"""From a training run to a published folder: whole or not at all, and without a trace of patients or machines.

torch and the model's packages are imported when `publish_model` runs, not before.
"""

import contextlib
import datetime
import hmac
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathzoo.errors import ZooError
from pathzoo.zoo import identifiers, semver, verify
from pathzoo.zoo.allowlist import find_part, plugins_needed, to_data
from pathzoo.zoo.components import TRAINING_TENSORS, WHOLE_MODELS
from pathzoo.zoo.index import write_index
from pathzoo.zoo.manifest import SLUG_PATTERN
from pathzoo.zoo.parents import Parents, parents_of
from pathzoo.zoo.published_folder import write_folder
from pathzoo.zoo.training_record import (
    CardText,
    TrainRun,
    parse_card_text,
    read_card_text,
    read_evaluation,
    read_json,
    read_train_run,
    require_measured_on,
)

if TYPE_CHECKING:
    import torch

_MIN_KEY_BYTES = 16


@dataclass(frozen=True)
class _Source:
    """What is published: the run's records and its tensors."""

    run: TrainRun
    folder: Path
    split: dict[str, Any] | None
    state: "dict[str, torch.Tensor]"
    meta: dict[str, Any]


def publish_model(
    checkpoint: str | os.PathLike[str],
    name: str,
    version: str,
    out: str | os.PathLike[str],
    card: str | os.PathLike[str] | dict[str, Any],
    run: str | os.PathLike[str] | None = None,
    metrics: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    half: bool = False,
    hash_key: str | os.PathLike[str] | None = None,
    parents: Sequence[str | os.PathLike[str]] = (),
) -> Path:
    """Publishes a checkpoint to `<out>/<name>/<version>/` and writes `<out>/index.json` anew.

    Args:
        checkpoint: A .pth of the run. Where mmengine averaged weights (EMAHook), its `state_dict` holds the average.
        name: Lower-case letters and digits, joined by - or _.
        version: MAJOR.MINOR.PATCH; one that exists is never overwritten.
        out: The zoo folder.
        card: JSON or YAML file, or a dict: description, licence, commercial_use, and by choice organ, stain, tissue,
            scanner, attributions, intended_use, limits, initial_weights.
        run: The run's folder, or its train_run.json; the checkpoint's folder where not given.
        metrics: metrics.json to publish, or several; the one in the run's folder where not given, none if there is
            none. Of a representation's best checkpoint it is metrics_best.json, what its own validation gave.
        half: Store floating-point tensors as float16 (they are computed with as float32).
        hash_key: A file with a secret of at least 16 bytes: HMAC-SHA256 of each patient id under it is published, so
            that whoever has the key can look for overlap.
        parents: Folders of the published models that this one was made from. One that the run began with is known
            already; where it began with another run's checkpoint, the folder that this one was published to is needed.

    Returns:
        The new folder; it has passed `verify_model` with the golden outputs.

    Raises:
        ZooError: Anything missing, forbidden or identifying; nothing is left behind.
        CheckpointError: The checkpoint cannot be loaded safely.
    """
    if not re.fullmatch(SLUG_PATTERN, name):
        raise ZooError(f"name {name!r} is not lower-case letters and digits joined by - or _")
    if not semver.is_version(version):
        raise ZooError(f"version {version!r} is not of the form MAJOR.MINOR.PATCH")
    target = Path(out) / name / version
    if target.exists():
        raise ZooError(f"{target}: exists; a published version is never changed, so give a higher one")
    blocked = [place for place in target.parents if place.exists() and not place.is_dir()]
    if blocked:
        raise ZooError(f"{blocked[0]}: is a file, not a folder to publish into")
    text = parse_card_text(card, "card") if isinstance(card, dict) else read_card_text(Path(card))
    source = _read_source(Path(checkpoint), Path(run) if run else None)
    lineage = parents_of(source.run, [Path(parent) for parent in parents])
    fields = _fields(name, version, text, source, lineage)
    given = [metrics] if isinstance(metrics, str | os.PathLike) else metrics or ()
    fields["metrics"] = _metrics(source, Path(checkpoint).name, [Path(path) for path in given])
    fields["training"]["patient_hashes"] = _patient_hashes(source.split, Path(hash_key)) if hash_key else None
    new_parent = not target.parent.exists()
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{version}.", dir=target.parent))
    try:
        write_folder(draft, fields, _published_tensors(source.state, fields), half)
        _refuse_leaks(draft, source)
        draft.chmod(0o755)
        draft.rename(target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        if new_parent:
            with contextlib.suppress(OSError):  # another version may have been published there meanwhile
                target.parent.rmdir()
        raise
    write_index(out)
    return target


def _read_source(checkpoint: Path, run: Path | None) -> _Source:
    from pathzoo import plugins
    from pathzoo.engine.checkpoint import load_checkpoint_safely, state_dict_of

    plugins.load_plugins()
    record = run or checkpoint.parent
    record = record / "train_run.json" if record.is_dir() else record
    train_run = read_train_run(record)
    split = None
    if train_run.data.split:
        # Without it the search for patients' ids would be blind.
        split = read_json(record.parent / train_run.data.split.file)
    content = load_checkpoint_safely(checkpoint)
    meta = content.get("meta")
    state = {key: value for key, value in state_dict_of(content).items() if not key.startswith(TRAINING_TENSORS)}
    return _Source(train_run, record.parent, split, state, meta if isinstance(meta, dict) else {})


def _published_tensors(state: "dict[str, torch.Tensor]", fields: dict[str, Any]) -> "dict[str, torch.Tensor]":
    """Without what serves training alone; of a representation, the backbone's: its pretext's head stays behind."""
    if fields["task"] == "representation" and fields["model"]["type"] in WHOLE_MODELS["representation"]:
        return {key: value for key, value in state.items() if key.startswith("backbone.")}
    return state


def _fields(name: str, version: str, text: CardText, source: _Source, lineage: Parents) -> dict[str, Any]:
    """All of the manifest but what depends on the written weights."""
    run = source.run
    model = to_data(run.model)
    for where, reason in find_part(model, run.task):
        raise ZooError(f"{where}: {reason}, so it cannot be published")
    spec = dict(run.model_input)
    if text.mpp_tolerance is not None:
        spec["mpp_tolerance"] = text.mpp_tolerance
    described = text.model_dump(mode="json", exclude={"initial_weights", "mpp_tolerance"})
    return {
        "name": name,
        "version": version,
        "task": run.task,
        **described,
        "classes": [] if run.task == "representation" else run.classes,  # vectors know none
        "input": spec,
        "model": model,
        "training": _training(source, text, lineage),
        "parents": list(lineage.entries),
        "plugins": [{"name": plugin, "version": need} for plugin, need in sorted(plugins_needed(model).items())],
        "created": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def _training(source: _Source, text: CardText, lineage: Parents) -> dict[str, Any]:
    run = source.run
    split = run.data.split
    return {
        "study": run.study,
        "config": Path(run.config.file).name if run.config.file else None,
        "config_digest": run.config.digest,
        "dataset": run.data.dataset,
        "data_digest": run.data.digest,
        "split": {"scheme": split.scheme, "digest": split.digest} if split else None,
        "counts": run.counts(),
        "seed": run.seed,
        "epochs": source.meta.get("epoch"),
        "iterations": source.meta.get("iter"),
        "pathzoo_version": run.pathzoo.get("version"),
        "versions": run.versions,
        "commit": run.git.commit,
        "dirty": run.git.dirty,
        "initial_weights": text.initial_weights.model_dump(mode="json")
        if text.initial_weights
        else lineage.initial_weights,
        "synthetic": run.data.synthetic,
        "caveats": run.caveats(),
    }


def _metrics(source: _Source, checkpoint: str, given: Sequence[Path]) -> list[dict[str, Any]]:
    """The evaluations of the files that the user names, whose figures are the user's word, or of the run's own."""
    data = source.run.data
    files = list(given) or _own_metrics(source, checkpoint)
    scheme = data.split.scheme if data.split else None
    return [read_evaluation(file, scheme, data.synthetic, data.dataset) for file in files]


def _own_metrics(source: _Source, checkpoint: str) -> list[Path]:
    file, best = source.folder / "metrics.json", source.folder / "metrics_best.json"
    # A pretext is not tested: what its validation gave when this checkpoint was kept are its figures.
    if source.run.task == "representation" and best.is_file() and read_json(best).get("checkpoint") == checkpoint:
        file = best
    if not file.is_file():
        return []
    require_measured_on(file, checkpoint)
    return [file]


def _patient_hashes(split: dict[str, Any] | None, key_file: Path) -> dict[str, list[str]]:
    try:
        key = key_file.read_bytes().strip()
    except OSError as error:
        raise ZooError(f"{key_file}: cannot be read ({error.strerror})") from error
    if len(key) < _MIN_KEY_BYTES:
        raise ZooError(
            f"{key_file}: a key of {len(key)} bytes can be guessed; {_MIN_KEY_BYTES} at least, from a random source"
        )
    if split is None or split.get("group_key") != "patient":
        raise ZooError("--hash-key: the run's split is not grouped by patient, so there are no patient ids to hash")
    return {
        name: sorted(
            hmac.new(key, group.encode(), "sha256").hexdigest() for group in subset["groups"] if group != "unknown"
        )
        for name, subset in split["subsets"].items()
    }


def _refuse_leaks(folder: Path, source: _Source) -> None:
    """The folder has to pass verification, golden outputs and the search for everything this machine knows."""
    known = identifiers.from_machine([source.folder, Path.cwd()])
    if source.split:
        known |= identifiers.from_split(source.split)
    report = verify.verify_model(folder, golden=True, identifiers=known)
    if report.problems:
        raise ZooError(f"not published, and nothing is left behind: {'; '.join(str(p) for p in report.problems[:5])}")
