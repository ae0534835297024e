"""What a training run wrote (train_run.json, metrics.json, splits.json) and what its author adds (the card file).

Read with tolerance for keys that publishing does not need, and with a clear line for those that it does. No torch.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pathzoo.errors import ZooError
from pathzoo.zoo.manifest import Attribution, Block, InitialWeights, Line, LongText, MaybeLongText, Spdx


class _Tolerant(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Config(_Tolerant):
    file: str | None = None
    digest: str | None = None


class _Git(_Tolerant):
    commit: str | None = None
    dirty: bool | None = None


class _SplitRef(_Tolerant):
    scheme: str
    digest: str | None = None
    file: str = "splits.json"


class _Data(_Tolerant):
    dataset: str | None = None
    digest: str | None = None
    split: _SplitRef | None = None
    counts: dict[str, Any] = {}
    synthetic: bool


class TrainRun(_Tolerant):
    """train_run.json, as far as publishing needs it."""

    study: str | None = None
    task: str = "classification"
    config: _Config = _Config()
    model: dict[str, Any]
    model_input: dict[str, Any]
    classes: list[str]
    initial_weights: dict[str, Any] | str | None = None
    seed: int | None = None
    data: _Data
    git: _Git = _Git()
    versions: dict[str, str] = {}
    pathzoo: dict[str, Any] = {}

    def counts(self) -> dict[str, dict[str, Any]]:
        """Counts by subset as the manifest has them."""
        return {subset: _counts(entry) for subset, entry in self._by_subset().items()}

    def caveats(self) -> list[str]:
        """What the data sets said of themselves and the run of its weights, each sentence once."""
        return _sentences(text for part in self._by_subset().values() for text in part.get("caveats") or ())

    def _by_subset(self) -> dict[str, dict[str, Any]]:
        """The counts of each subset, from either form: by subset, or one subset's `describe()`."""
        counts = self.data.counts
        return {str(counts["subset"]): counts} if "subset" in counts else counts

    def start(self) -> dict[str, Any] | None:
        """Where training started, without the name of any file."""
        given = self.initial_weights
        if given is None or isinstance(given, str):
            return {"source": given} if given else None
        source, network = str(given.get("source", "unknown")), given.get("network")
        return {
            "source": f"{source} ({network})" if network else source,
            "licence": given.get("licence"),
            "sha256": given.get("sha256"),
        }


class CardText(Block):
    """The author's file: what no training run can know."""

    description: LongText
    organ: Line | None = None
    stain: Line | None = None
    tissue: Line | None = None
    scanner: Line | None = None
    licence: Spdx
    commercial_use: bool
    attributions: tuple[Attribution, ...] = ()
    intended_use: MaybeLongText | None = None
    limits: MaybeLongText | None = None
    initial_weights: InitialWeights | None = None
    mpp_tolerance: Annotated[float, Field(ge=0, lt=1)] | None = None
    score_threshold: Annotated[float, Field(ge=0, le=1)] | None = None


def read_train_run(path: Path) -> TrainRun:
    """Reads train_run.json.

    Raises:
        ZooError: No such file, a key that publishing needs is missing, the run has not finished, or the model cannot be
            published.
    """
    content = read_json(path)
    model = content.get("model")
    if isinstance(model, dict) and "not_publishable" in model:
        raise ZooError(f"{path}: {model['not_publishable']}")
    status = content.get("status", "finished")  # records of other tools need not hold one
    if status != "finished":
        raise ZooError(f"{path}: the run is not finished (status {status!r}); resume it, then publish")
    try:
        return TrainRun.model_validate(content)
    except ValidationError as error:
        raise ZooError(f"{path}: {_first(error)}; publish from the folder of a finished run") from error


def read_card_text(path: Path) -> CardText:
    """Reads the author's card file, JSON or YAML by its suffix.

    Raises:
        ZooError: No such file, a key that is missing (description, licence, commercial_use) or unknown.
    """
    if path.suffix.lower() in (".yaml", ".yml"):
        import yaml

        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise ZooError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from error
    else:
        content = read_json(path)
    return parse_card_text(content, str(path))


def parse_card_text(content: Any, where: str) -> CardText:
    """The same from a dict; `where` stands in error messages."""
    try:
        return CardText.model_validate_json(json.dumps(content))
    except (ValidationError, TypeError, ValueError) as error:
        reason = _first(error) if isinstance(error, ValidationError) else str(error)
        raise ZooError(f"{where}: {reason}; the card file holds {', '.join(CardText.model_fields)}") from error


def read_evaluation(path: Path, split: str | None, synthetic: bool, dataset: str | None) -> dict[str, Any]:
    """metrics.json as the manifest's evaluation block. Rows without a value (too few images) are left out."""
    content = read_json(path)
    keys = ("metric", "level", "n", "value", "low", "high")
    rows = [{key: row.get(key) for key in keys} for row in content.get("rows", []) if row.get("value") is not None]
    return {
        "dataset": content.get("dataset") or dataset or "unnamed",
        "subset": content.get("subset") or "unnamed",
        "split": content.get("split", split),
        "synthetic": bool(content.get("synthetic", synthetic)),
        "rows": rows,
        "curve": content.get("curve") or [],
        "caveats": _sentences(content.get("caveats") or ()),
    }


def require_measured_on(path: Path, checkpoint: str) -> None:
    """Refuses the metrics.json of a run where it says that it was measured on another checkpoint (a file name).

    Raises:
        ZooError: It was.
    """
    measured = read_json(path).get("checkpoint")
    if measured is not None and measured != checkpoint:
        raise ZooError(
            f"{path}: was measured on {measured}, not {checkpoint}; test this checkpoint first, or name its figures "
            "by --metrics"
        )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or a ZooError that names the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ZooError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise ZooError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise ZooError(f"{path}: holds a {type(content).__name__}, not an object")
    return content


def _sentences(texts: Iterable[Any]) -> list[str]:
    """Each once, on one line."""
    return list(dict.fromkeys(" ".join(str(text).split()) for text in texts))


def _counts(entry: dict[str, Any]) -> dict[str, Any]:
    def first(*names: str) -> Any:
        return next((entry[name] for name in names if name in entry), 0)

    per_class = {
        str(name): count.get("n_images", 0) if isinstance(count, dict) else count
        for name, count in (entry.get("per_class") or {}).items()
    }
    return {
        "images": first("images", "n_images"),
        "patients": first("patients", "n_patients"),
        "unknown_patient_images": first("unknown_patient_images", "n_unknown_patient_images"),
        "per_class": per_class,
    }


def _first(error: ValidationError) -> str:
    item = error.errors(include_url=False)[0]
    return f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
