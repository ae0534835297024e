"""Study 2: self-supervision, from another tissue to a few labels. Its arms, at three scales, and its table.

An arm is a chain: pretext tasks, each from the weights of the one before, then the classifier with 5, 25, 50 or 100 %
of the labels of training and validation. Breast tiles of a pretext task are the fraction's own (as in the study) or all
of the training part (as one would do); kidney and noise tiles have no label and never share a patient with breast. Arms
of one seed share the pretext runs that they have in common. At the small scale every pretext run takes the same number
of steps, and so does every classifier, whatever the fraction; a chain of two pretext runs takes twice the pretext steps
of one, for which breast twice, and noise in the place of the other tissue, are the controls.
The epoch with the lowest validation loss is kept throughout, at the small scale the better of two learning rates too.
Tested is the classifier, fine-tuned in every layer, on patients that no run of the chain has seen; beside it stand a
linear probe and nearest neighbours on the vectors of the last pretext run, with the same labels.

At the paper's scale every chain begins with ImageNet weights, as the study's do: a file from `--weights resnet50=FILE`,
without which an arm reads "not run".

Phantoms are drawn anew for each seed. On real data `--data-root` is a folder with `breast/tiles.csv` and `kidney` (a
folder of tiles, slides or a table; see `UnlabelledTiles`), and a seed is another split.
"""

import hashlib
import json
import shutil
from argparse import Namespace
from functools import cache, partial
from pathlib import Path
from typing import Any

from pathzoo._version import __version__
from pathzoo.apis.config import load_config
from pathzoo.apis.options import parse_options
from pathzoo.apis.probe import probe
from pathzoo.apis.setup import setup
from pathzoo.apis.test import test
from pathzoo.apis.train import train
from pathzoo.engine.checkpoint import chosen_checkpoint
from pathzoo.fileio import canonical_json, sha256_bytes, sha256_file
from pathzoo.registry import DATASETS
from studies.initial_weights import digest_of, network_of, not_run, refuse_unused, weights_files
from studies.results import Results, chosen_arms, chosen_seeds, metric_columns
from studies.simclr_arms import ARMS, SMOKE, Arm, Link
from studies.simclr_table import table

__all__ = ["ARMS", "METRICS", "Arm", "Link", "run", "table"]

#: (metric, level) of the columns in results.csv. `linear_` and `knn_`: of the last pretext run's vectors.
METRICS = (
    ("accuracy", "tile"),
    ("nll", "tile"),
    ("balanced_accuracy", "tile"),
    ("roc_auc", "tile"),
    ("accuracy", "patient"),
    ("linear_accuracy", "tile"),
    ("linear_nll", "tile"),
    ("knn_accuracy", "tile"),
)
_PROBED = ("linear", "knn")
#: 48 patients of 120 train, 12 validate, 60 test: of 20 tiles each, so that 5 % to train on are 16 of each class.
_PATIENTS = {"breast": 120, "kidney": 96, "noise": 96}
#: Of difficulties 0, 0.1 and 0.35 the one with the widest gap from all to 5 % of the labels (0.69 and 0.36; seed 0).
_PHANTOM: dict[str, Any] = {"tiles_per_patient": 20, "size": 64, "mpp": 1.0, "difficulty": 0.0}
#: 3 patients validate, one of each class.
_SMOKE_PHANTOM = {"patients": 30, "tiles_per_patient": 6}
_PHANTOM_SPLIT = {"scheme": "patient_ratio", "ratios": {"train": 0.4, "val": 0.1, "test": 0.5}}
#: The small scale trains timm's thinnest ResNet (0.37 million parameters), 60 epochs of 10 steps for a pretext task and
#: of 5 for a classifier. A step of a pretext task shows the network 96 pictures: two views of 48 tiles, or four turns
#: of 24. 48 tiles are the least fraction, so that no batch holds one twice, which NT-Xent would push from itself.
#: Its thin convolutions are half as fast again in channels_last on a CPU.
_NETWORK = {"model.backbone.name": "test_resnet", "model.backbone.channels_last": True}
_CHANNELS = 96
_LR = "optim_wrapper.optimizer.lr"
_PRETEXT_LR = {_LR: 3e-3}
_PRETEXT_EPOCHS = {"train_cfg.val_interval": 3, "default_hooks.checkpoint.interval": 3}
_TRANSFER_EPOCHS = {"train_cfg.val_interval": 2, "default_hooks.checkpoint.interval": 2}
#: Every classifier is trained with each of these, and validation takes one: what suits random weights ruins others.
_TRANSFER_LRS = (1e-3, 3e-4)
_PRETEXT_BATCH = {"simclr": 48, "rotation": 24, "rotationjitter": 24}
_PRETEXT_STEPS, _TRANSFER_STEPS, _TRANSFER_BATCH = 10, 5, 32


def run(arguments: Namespace, results: Results, folder: Path) -> None:
    """Runs every arm and seed that has no row yet.

    Raises:
        ConfigError, DataError: An unknown arm, a weights file that is missing or that no arm takes, a data folder that
            cannot be read.
    """
    setup()
    phantom = arguments.data_root == "phantom"
    weights = weights_files(arguments.weights)
    chosen = chosen_arms(arguments, ARMS, SMOKE if arguments.scale == "smoke" else ARMS)
    for seed in chosen_seeds(arguments, phantom):
        tissues = tuple(dict.fromkeys(tissue for arm in chosen for tissue in arm.tissues))
        root = _draw(folder, seed, tissues, arguments.scale) if phantom else Path(arguments.data_root)
        runs = _Runs(root, seed, weights, arguments, folder)
        refuse_unused(weights, {runs.network(arm) for arm in chosen} - {None})
        for arm in chosen:
            runs.row(arm, results)


class _Runs:
    """The trainings of one seed: their options, their folders, which a rerun and other arms find again."""

    def __init__(self, root: Path, seed: int, weights: dict[str, Path], arguments: Namespace, folder: Path) -> None:
        self.root, self.seed, self.weights, self.folder = root, seed, weights, folder
        self.scale, self.keep = arguments.scale, arguments.keep
        self.data = arguments.data_name or ("phantom" if arguments.data_root == "phantom" else "real")
        self.given = parse_options(arguments.cfg_options)
        if arguments.data_root == "phantom":
            self.given = {"split": _PHANTOM_SPLIT} | self.given
        if isinstance(self.given.get("split"), dict):  # keys that arms and seeds set
            keys = {"label_fraction": 1.0, "val_label_fraction": 1.0, "seed": 0}
            self.given["split"] = keys | self.given["split"]
        self._digests: dict[str, str] = {}  # of tissues
        self._resolved: dict[bytes, tuple[str, str | None]] = {}  # configs, which take long to write out

    def row(self, arm: Arm, results: Results) -> None:
        """Appends the arm's row, where it has none."""
        network = self.network(arm)
        missing = [tissue for tissue in arm.tissues if not (self.root / tissue).exists()]
        row: dict[str, Any] = {
            "scale": self.scale,
            "data": self.data,
            "arm": arm.name,
            "seed": self.seed,
            "config_digest": self._config_digest(arm),
            "data_digest": "" if missing else self._data_digest(arm),
            "pathzoo": __version__,
        }
        if missing or (network and network not in self.weights):
            row |= not_run(str(network))
            row |= {"note": f"no tiles of {missing[0]} at hand"} if missing else {}
            if not results.has(row):
                results.append(row)
            return
        if results.has(row | {"status": "done"}):
            print(f"{arm.name}, seed {self.seed}: has its row")
            return
        print(f"{arm.name}, seed {self.seed}", flush=True)
        results.append(row | {"status": "done"} | self._measure(arm))

    def _measure(self, arm: Arm) -> dict[str, Any]:
        """Trains what of the chain is not there yet, tests the classifier and probes what it began with."""
        parent = self.weights.get(self.network(arm) or "")
        for link in arm.chain:
            parent = chosen_checkpoint(self._train(*self._pretext(link, arm), parent))
        file, options = self._classifier(arm)
        tried = [options | rate for rate in self._rates()]
        runs = [(self._train(file, options, parent), options) for options in tried]
        work, options = min(runs, key=lambda run: _validation_loss(run[0]))
        note = f"learning rate {options[_LR]:g}" if _LR in options else ""
        options = self._placed(file, options, parent)
        if not (work / "test" / "metrics.json").exists():
            test(file, work_dir=work, options=options)
        found = json.loads((work / "metrics.json").read_text(encoding="utf-8"))
        judged = probe(parent, file, options, n_bootstrap=0, seed=self.seed)
        probed = [
            {**row, "metric": f"{kind}_{row['metric']}"} for kind in _PROBED for row in judged.record[kind]["rows"]
        ]
        counts = judged.record["counts"]["test"]
        if not self.keep:
            for folder, _ in runs:  # a classifier is no arm's parent
                shutil.rmtree(folder, ignore_errors=True)
        return {
            "n_images": counts["n_images"],
            "n_patients": counts["n_patients"],
            "note": note,
            **metric_columns([*found["rows"], *probed], METRICS),
        }

    def _train(self, file: str, options: dict[str, Any], parent: Path | None) -> Path:
        """The folder of a finished run; trains where it is not one yet."""
        # Whatever changes the weights is in the name, so that no run is taken for one of other settings or other tiles.
        made_from = [
            self._resolve(file, options)[0],
            self._digests[_tissue(options)],
            self._name_of(parent),
            self.seed,
        ]
        work = self.folder / sha256_bytes(canonical_json(made_from))[:12]
        if not (work / "finished").exists():
            print(f"  {Path(file).stem} in {work}", flush=True)
            train(file, work, resume=True, options=self._placed(file, options, parent), seed=self.seed)
            (work / "finished").touch()
        return work

    def network(self, arm: Arm) -> str | None:
        """Whose ImageNet weights the arm's first run begins with; None where it begins with none."""
        return self._resolve(*(self._pretext(arm.chain[0], arm) if arm.chain else self._classifier(arm)))[1]

    def _name_of(self, parent: Path | None) -> str | None:
        """What tells the weights of a parent from others': the folder of a run, the bytes of a file of `--weights`."""
        if parent is None or parent not in self.weights.values():
            return parent and parent.parent.name
        return sha256_file(parent)

    def _pretext(self, link: Link, arm: Arm) -> tuple[str, dict[str, Any]]:
        """A pretext run's config, and its options that do not depend on where the data is."""
        folder = "simclr" if link.task == "simclr" else "rotation_pred"
        data = "breasttiles" if link.tissue == "breast" else "unlabelled"
        if self.scale == "paper":
            batch = 64 if link.task == "simclr" else 32
            file = f"{folder}/{link.task}_resnet50_1xb{batch}_100e_{data}_224.py"
            options: dict[str, Any] = {}
        else:
            file = _small(data, link.task, folder)
            batch, at = _PRETEXT_BATCH[link.task], "neck" if link.task == "simclr" else "head"
            options = _steps(batch, _PRETEXT_STEPS) | _PRETEXT_EPOCHS | _PRETEXT_LR
            options[f"model.{at}.in_channels"] = _CHANNELS
        options |= self._given_to(file)
        options |= (
            {"label_fraction": 1.0 if arm.everything else arm.fraction}
            if data == "breasttiles"
            else {"tissue": link.tissue}
        )
        return file, options | self._short()

    def _classifier(self, arm: Arm) -> tuple[str, dict[str, Any]]:
        if self.scale == "paper":
            file, options = "simclr/full_resnet50_1xb32_100e_breasttiles_224.py", {}
        else:
            file = "simclr/full_resnet10t_1xb32_60e_breasttiles_small.py"
            options = _steps(_TRANSFER_BATCH, _TRANSFER_STEPS) | _TRANSFER_EPOCHS
            options["model.head.in_channels"] = _CHANNELS
        return file, options | self._given_to(file) | {"label_fraction": arm.fraction} | self._short()

    def _rates(self) -> list[dict[str, Any]]:
        """Learning rates of the classifier, of which validation takes one; the config's own elsewhere."""
        return [{_LR: rate} for rate in _TRANSFER_LRS] if self.scale == "small" else [{}]

    def _given_to(self, file: str) -> dict[str, Any]:
        """The user's options without those that only other configs of the study have a place for."""
        own = _parameters(file)
        others = {name for part in ("breasttiles", "unlabelled") for name in _parameters(_small(part))}
        return {key: value for key, value in self.given.items() if key in own or key not in others}

    def _short(self) -> dict[str, Any]:
        if self.scale != "smoke":
            return {}
        once = dict.fromkeys(("train_cfg.max_epochs", *_PRETEXT_EPOCHS), 1)
        return once | {"samples_per_epoch": 96}

    def _placed(self, file: str, options: dict[str, Any], parent: Path | None) -> dict[str, Any]:
        """The options with the data's place, the seed's split and the parent's file."""
        options = dict(options)
        tissue = options.pop("tissue", "breast")
        place = self.root / tissue
        options |= {"split_seed": self.seed, "source" if "unlabelled" in file else "data_root": str(place)}
        return options | ({"parent": str(parent)} if parent else {})

    def _config_digest(self, arm: Arm) -> str:
        """Of every resolved config of the chain without the data's place: the same on every machine."""
        text = f"{self._rates()}\n"
        for file, options in (*map(partial(self._pretext, arm=arm), arm.chain), self._classifier(arm)):
            text += f"{_tissue(options)}\n{self._resolve(file, options)[0]}\n"
        text += digest_of(self.network(arm), self.weights)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _resolve(self, file: str, options: dict[str, Any]) -> tuple[str, str | None]:
        """A resolved config, written out, and the network whose ImageNet weights it begins with."""
        options = {key: value for key, value in options.items() if key != "tissue"}
        key = canonical_json([file, _plain(options)])
        if key not in self._resolved:
            config = load_config(file, options)
            self._resolved[key] = str(config.pretty_text), network_of(config)
        return self._resolved[key]

    def _data_digest(self, arm: Arm) -> str:
        """Of every tile that the arm may see."""
        for link in (*arm.chain, None):
            file, options = self._pretext(link, arm) if link else self._classifier(arm)
            tissue = _tissue(options)
            if tissue not in self._digests:
                loaders = load_config(file, self._placed(file, options, None)).to_dict()
                kept = {
                    key: value for key, value in loaders["train_dataloader"]["dataset"].items() if key != "pipeline"
                }
                whole = {"split": None} if tissue == "breast" else {"val_share": 0.0}
                self._digests[tissue] = str(DATASETS.build(kept | whole | {"subset": "all"}).data_digest)
        return sha256_bytes(canonical_json({tissue: self._digests[tissue] for tissue in arm.tissues}))[:16]


@cache
def _parameters(file: str) -> frozenset[str]:
    """The names that `--cfg-options` may set in a config without a dot."""
    return frozenset(load_config(file).parameters)


def _validation_loss(work: Path) -> float:
    """Of the epoch that a classifier's run keeps."""
    rows = json.loads((work / "metrics_best.json").read_text(encoding="utf-8"))["rows"]
    return next(float(row["value"]) for row in rows if (row["metric"], row["level"]) == ("nll", "tile"))


def _steps(batch: int, steps: int) -> dict[str, Any]:
    return {**_NETWORK, "train_dataloader.batch_size": batch, "samples_per_epoch": batch * steps}


def _small(data: str, task: str = "simclr", folder: str = "simclr") -> str:
    return f"{folder}/{task}_resnet10t_1xb64_60e_{data}_small.py"


def _tissue(options: dict[str, Any]) -> str:
    """What a run learns from."""
    return str(options.get("tissue", "breast"))


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(options, default=str))


def _draw(folder: Path, seed: int, tissues: tuple[str, ...], scale: str) -> Path:
    """The folder of a seed's phantom, with these tissues drawn."""
    from pathzoo.datasets.phantom import write_tiles

    sizes = {tissue: {"patients": count, **_PHANTOM} for tissue, count in _PATIENTS.items()}
    if scale == "smoke":
        sizes = {tissue: size | _SMOKE_PHANTOM for tissue, size in sizes.items()}
    root = folder / "data" / f"phantom{seed}-{sha256_bytes(canonical_json(sizes))[:8]}"
    for tissue in tissues:
        if not (root / tissue / "whole").exists():
            write_tiles(root / tissue, seed=seed, tissue=tissue, **sizes[tissue])
            (root / tissue / "whole").touch()
    return root
