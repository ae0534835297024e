"""What a backbone's vectors tell of a labelled data set, before any of it is fine-tuned."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from pathzoo.apis.checks import errors_of_the_config
from pathzoo.apis.config import load_config
from pathzoo.apis.embed import Embedder, embed_dataset, load_embedder, network_of
from pathzoo.apis.lineage import ancestors_of
from pathzoo.apis.run_record import start_from
from pathzoo.apis.setup import setup
from pathzoo.datasets.splits import SCHEMES
from pathzoo.errors import ConfigError, DataError
from pathzoo.evaluation.functional import Row, classification_report, knn_probs, linear_probe
from pathzoo.evaluation.functional.knn import TEMPERATURE, K

_SUBSETS = ("train", "val", "test")


@dataclass(frozen=True)
class Embedded:
    """One subset: vectors (N, D), and each picture's data_info."""

    vectors: np.ndarray
    infos: list[dict[str, Any]]

    def column(self, key: str) -> list[Any]:
        """One entry of every picture."""
        return [info[key] for info in self.infos]

    @property
    def labels(self) -> np.ndarray:
        """(N,) class indices."""
        return np.array(self.column("gt_label"), np.int64)


@dataclass(frozen=True)
class Probe:
    """What came of it: `record` is plain data, ready for JSON; `subsets` holds the vectors, for pictures."""

    record: dict[str, Any]
    subsets: dict[str, Embedded]
    classes: tuple[str, ...]


def probe(
    source: str | Path | None,
    config: str | Path,
    options: Mapping[str, Any] | None = None,
    *,
    network: str | None = None,
    k: int = K,
    temperature: float = TEMPERATURE,
    n_bootstrap: int = 1000,
    batch_size: int = 64,
    num_workers: int = 0,
    device: str | None = None,
    seed: int = 0,
    partial: bool = False,
    all_folds: bool = False,
) -> Probe:
    """Judges a backbone by nearest neighbours and by a linear classifier on its vectors.

    Both learn from the config's training subset (with its `label_fraction`) without augmentation; its validation subset
    chooses the linear classifier's penalty, and its test subset is judged, with intervals over patients.

    Args:
        source: None for random weights, "imagenet" for timm's, a file of tensors, a run's checkpoint, a published
            model's folder or its NAME[@VERSION].
        config: A classification config, or its path below the packaged ones; its model gives mean and std, and the
            network, where the source does not tell them.
        options: Dotted key -> value, set in the config.
        network: timm's name, in place of the config's.
        k: Neighbours that vote.
        temperature: Of their votes; see `pathzoo.evaluation.functional.knn`.
        n_bootstrap: Resamples of patients for the intervals; 0 for none.
        batch_size: Pictures per call of the network.
        num_workers: Processes that read pictures.
        device: "cpu", "cuda", ...; the first GPU where there is one.
        seed: Of random weights, folds and resampling.
        partial: Take what fits of weights that do not fit in whole.
        all_folds: Of a split by `patient_kfold` judge every fold, each picture once by what has not seen its patient,
            and report on all of them together. Small data sets need it: a fold of four patients says little.

    Returns:
        `record`: `source`, `config`, `counts` by subset, `caveats` (which ancestors of the weights could not be held
        against the test patients), and for "knn" and "linear" their settings and the metric `rows` of the test subset.
        Of all folds: `counts` of "test" alone, `folds`, and "C" is a list, one for each.

    Raises:
        ConfigError: No classification config, a network that is not known, or `all_folds` of another split.
        LeakageError: A run that the weights come from was trained on patients or pictures of val or test.
        CheckpointError, ZooError, DataError: As `load_embedder` and the data sets.
    """
    setup()
    cfg = load_config(config, options)
    own, mean, std = network_of(cfg)
    if not (network or own):
        raise ConfigError(f"{cfg.filename}: model.backbone names no network of timm's; give --network")
    chosen = device or _default_device()
    embedder = load_embedder(source, network or str(own), mean, std, device=chosen, seed=seed, partial=partial)
    given = dict(options or {})
    cfgs = [load_config(config, given | {"fold": fold}) for fold in range(_folds(cfg))] if all_folds else [cfg]
    vectors = _Vectors(embedder, batch_size, chosen, num_workers)
    judged = [_judge(vectors, one, k, temperature, seed) for one in cfgs]
    first, classes = judged[0], judged[0].classes
    test = _pooled([part.subsets["test"] for part in judged])
    report = _report_arguments(cfg, test, classes) | {"n_bootstrap": n_bootstrap, "seed": seed}
    near, linear = (np.concatenate([getattr(part, name) for part in judged]) for name in ("near", "linear"))
    record = {
        "source": embedder.record,
        "config": Path(cfg.filename).name,
        "classes": list(classes),
        "dimensions": int(test.vectors.shape[1]),
        "counts": {"test": _counts(test)} if all_folds else first.counts,
        "knn": {"k": first.k, "temperature": temperature, "rows": _rows(near, report)},
        "linear": {
            "C": [part.strength for part in judged] if all_folds else first.strength,
            "chosen_by": first.chosen_by,
            "rows": _rows(linear, report),
        },
        "caveats": sorted({text for part in judged for text in part.caveats}),
    }
    if all_folds:
        record["folds"] = len(judged)
    return Probe(record, {"test": test} if all_folds else first.subsets, classes)


@dataclass(frozen=True)
class _Judged:
    """One split's vectors, and the probabilities (N, C) of its test subset."""

    subsets: dict[str, Embedded]
    counts: dict[str, Any]
    classes: tuple[str, ...]
    near: np.ndarray
    linear: np.ndarray
    k: int
    strength: float
    chosen_by: str
    caveats: list[str]


class _Vectors:
    """Embeds data sets, each picture once: folds share them."""

    def __init__(self, embedder: Embedder, batch_size: int, device: str, num_workers: int) -> None:
        self.embedder, self._how = embedder, (batch_size, device, num_workers)
        self._known: dict[str, np.ndarray] = {}

    def of(self, dataset: Any) -> Embedded:
        """The vectors of a data set through its own pipeline."""
        infos = [dataset.get_data_info(index) for index in range(len(dataset))]
        if not all(info["item"] in self._known for info in infos):
            found, infos = embed_dataset(self.embedder, dataset, *self._how)
            self._known.update((info["item"], vector) for info, vector in zip(infos, found, strict=True))
        return Embedded(np.stack([self._known[info["item"]] for info in infos]), infos)


def _judge(vectors: _Vectors, cfg: Config, k: int, temperature: float, seed: int) -> _Judged:
    datasets = _datasets(cfg)
    caveats = _refuse_leaks(vectors.embedder, datasets)
    subsets = {name: vectors.of(dataset) for name, dataset in datasets.items()}
    classes = tuple(datasets["train"].metainfo["classes"])
    train, test = subsets["train"], subsets["test"]
    near = knn_probs(train.vectors, train.labels, test.vectors, len(classes), k, temperature)
    plane = linear_probe(
        train.vectors,
        train.labels,
        test.vectors,
        len(classes),
        validation=(subsets["val"].vectors, subsets["val"].labels) if "val" in subsets else None,
        patients=train.column("patient"),
        seed=seed,
    )
    counts = {name: datasets[name].describe() for name in subsets}
    return _Judged(
        subsets, counts, classes, near, plane.probs, min(k, len(train.labels)), plane.strength, plane.chosen_by, caveats
    )


def _folds(cfg: Config) -> int:
    """How many folds the config's split has."""
    split = ((cfg.get("test_dataloader") or {}).get("dataset") or {}).get("split")
    if not isinstance(split, Mapping) or split.get("scheme") != "patient_kfold":
        found = split.get("scheme") if isinstance(split, Mapping) else split
        raise ConfigError(f"{cfg.filename}: all folds need a split by patient_kfold, this one is {found!r}")
    return int(split.get("k", SCHEMES["patient_kfold"]["k"]))


def _pooled(parts: Sequence[Embedded]) -> Embedded:
    infos = [info for part in parts for info in part.infos]
    items = [info["item"] for info in infos]
    if len(set(items)) < len(items):
        raise DataError(f"{len(items) - len(set(items))} pictures are tested in two folds; the folds overlap")
    return Embedded(np.concatenate([part.vectors for part in parts]), infos)


def _counts(test: Embedded) -> dict[str, int]:
    return {"n_images": len(test.infos), "n_patients": len(set(test.column("patient")) - {None})}


def _default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _datasets(cfg: Config) -> dict[str, Any]:
    """The config's subsets, all through its test pipeline; `val` is left out where the config has none."""
    from pathzoo.registry import DATASETS

    test = (cfg.get("test_dataloader") or {}).get("dataset")
    if not test:
        raise ConfigError(f"{cfg.filename}: has no test_dataloader, so there is nothing to judge on")
    datasets = {}
    for name in _SUBSETS:
        given = (cfg.get(f"{name}_dataloader") or {}).get("dataset")
        if given is None:
            continue
        given = copy.deepcopy(given)
        given.pipeline = copy.deepcopy(test.pipeline)
        with errors_of_the_config(cfg):
            datasets[name] = DATASETS.build(given)
    for name, dataset in datasets.items():
        classes = (getattr(dataset, "metainfo", None) or {}).get("classes")
        if not classes or not len(dataset) or "gt_label" not in dataset.get_data_info(0):
            raise ConfigError(
                f"{cfg.filename}: {name}_dataloader gives {len(dataset)} pictures of {len(classes or ())} classes; a "
                "probe needs labelled pictures: give a classification config"
            )
    return datasets


def _refuse_leaks(embedder: Embedder, datasets: Mapping[str, Any]) -> list[str]:
    """Raises where the weights have seen who is judged on; returns what could not be compared."""
    if embedder.folder is None:
        return []
    place = embedder.folder / "probe"  # as a run beside the weights would see them
    ancestors = ancestors_of(start_from(embedder.record, embedder.folder, place), place)
    judged = [datasets[name] for name in ("val", "test") if name in datasets]
    return [text for dataset in judged for text in ancestors.refuse(dataset)]


def _report_arguments(cfg: Config, test: Embedded, classes: tuple[str, ...]) -> dict[str, Any]:
    """What `classification_report` takes beside probabilities: as the config's own test does it."""
    evaluators = cfg.get("test_evaluator") or {}
    evaluator = evaluators[0] if isinstance(evaluators, list) else evaluators
    positive = evaluator.get("positive", 1)
    if isinstance(positive, str):
        if positive not in classes:
            raise ConfigError(f"{cfg.filename}: test_evaluator.positive={positive!r} is none of {list(classes)}")
        positive = classes.index(positive)
    return {
        "labels": test.labels,
        "patients": test.column("patient"),
        "slides": test.column("slide"),
        "classes": classes,
        "positive": positive,
        "level": evaluator.get("level", "image"),
    }


def _rows(probs: np.ndarray, arguments: Mapping[str, Any]) -> list[Row]:
    return classification_report(probs, **arguments)
