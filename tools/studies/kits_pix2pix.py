"""Study 5: slices drawn from label maps against class imbalance. Its arms, at three scales.

For each seed a translator is trained on the training patients' labelled slices and draws synthetic ones from their
label maps. Segmenters are then trained in four scenarios, all with the same number of steps: 1 on what there is, 2 with
geometric augmentation, 3 with the drawn slices, 4 with both. Tested is on real slices of other patients. Controls of
scenario 3, for the small U-Net: slices of a generator that was not trained, and slices that stand beside the label map
of another one.

Phantoms are drawn anew for each seed. On real data `--data-root` is a folder of KiTS19 cases, which each seed deals
anew, or a store of tools/dataset_converters/ct_to_slices.py; `{seed}` in it stands for the seed. Of `--cfg-options`,
`generator.KEY=VALUE` is for the translator alone, a window for both, the rest for the segmenters.
"""

import hashlib
import json
import shutil
from argparse import Namespace
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pathzoo._version import __version__
from pathzoo.apis.config import load_config
from pathzoo.apis.generators import load_generator
from pathzoo.apis.options import parse_options
from pathzoo.apis.setup import setup
from pathzoo.apis.synthesis_report import report_synthesis
from pathzoo.apis.synthesize import Drawing, synthesize
from pathzoo.apis.test import test
from pathzoo.apis.train import train
from pathzoo.ct.build import BuildOptions, build_store
from pathzoo.ct.cases import find_kits19
from pathzoo.ct.store import SliceStore, is_store
from pathzoo.ct.volume import LabelMap, ReadOptions
from pathzoo.datasets.label_augmentation import LabelAugmentation
from pathzoo.engine.checkpoint import chosen_checkpoint
from pathzoo.errors import ConfigError, DataError
from pathzoo.fileio import canonical_json, sha256_bytes
from studies.initial_weights import digest_of, network_of, not_run, refuse_unused, weights_files
from studies.kits_pix2pix_table import table
from studies.results import KEYS, Results, chosen_arms, chosen_seeds, metric_columns

__all__ = ["ARMS", "METRICS", "Arm", "run", "table"]

#: (metric, level) of the columns in results.csv.
METRICS = (
    ("slice_iou", "slice"),
    ("slice_iou_absent_1", "slice"),
    ("slice_iou_foreground", "slice"),
    ("slice_iou_kidney", "slice"),
    ("slice_iou_tumour", "slice"),
    ("patient_dice_kidney", "patient"),
    ("patient_dice_tumour", "patient"),
    ("patient_false_tumour", "patient"),
)
_MODELS = ("U-Net1", "U-Net2", "FPN")
_SCENARIOS = ("1 nothing", "2 geometric", "3 drawn", "4 geometric and drawn")
_SMALL = {
    "U-Net1": "unet1_1xb8_30e_ctslices_small.py",
    "U-Net2": "unet2_1xb8_30e_ctslices_small.py",
    "FPN": "fpn_efficientnet-lite0_1xb8_30e_ctslices_small.py",
    "generator": "pix2pix_unet_1xb4_40e_kits19_small.py",
}
_PAPER = {
    "U-Net1": "unet1_1xb8_100e_kits19_512.py",
    "U-Net2": "unet2_1xb8_100e_kits19_512.py",
    "FPN": "fpn_resnet50_1xb8_100e_kits19_512.py",
    "generator": "pix2pix_unet_1xb1_200e_kits19_512.py",
}
#: As in KiTS19, every patient has a tumour.
_PHANTOM: dict[str, Any] = {"patients": 32, "size": (128, 128), "slices": 24, "tumour_rate": 1.0}
#: A quarter of the patients trains, an eighth chooses, the rest is tested on.
_PHANTOM_RATIOS = (1 / 4, 1 / 8, 5 / 8)
#: How slices are drawn; the study's number, and changes to the label maps for the small scale's few of them.
_DRAWING = {
    "paper": Drawing(),
    "small": Drawing(
        count=400,
        augmentation=LabelAugmentation(shift=8, scale=(0.9, 1.1), rotation=10, tumour_scale=(0.7, 1.4), tumour_shift=6),
    ),
    "smoke": Drawing(count=6),
}


@dataclass(frozen=True)
class Arm:
    """One line of the table: a segmenter in a scenario, or in a control of the third."""

    model: str
    scenario: str
    geometric: bool = False
    drawn: bool = False
    control: str | None = None

    @property
    def name(self) -> str:
        """As rows and `--arms` call it."""
        return f"{self.model}, {self.scenario}"


ARMS = tuple(
    Arm(model, scenario, geometric=scenario[0] in "24", drawn=scenario[0] in "34")
    for model in _MODELS
    for scenario in _SCENARIOS
) + tuple(
    Arm("U-Net1", f"3 drawn, control: {text}", drawn=True, control=control)
    for control, text in (("untrained", "untrained generator"), ("shuffled", "shuffled pairs"))
)
#: One arm with everything, and a control.
_SMOKE = tuple(arm for arm in ARMS if arm.name in ("U-Net1, 4 geometric and drawn", ARMS[-2].name))


def run(arguments: Namespace, results: Results, folder: Path) -> None:
    """Runs every arm and seed that has no row yet.

    Raises:
        ConfigError, DataError: An unknown arm, a weights file that is missing or that no arm takes, a data folder that
            cannot be read.
    """
    setup()
    weights = weights_files(arguments.weights)
    chosen = chosen_arms(arguments, ARMS, _SMOKE if arguments.scale == "smoke" else ARMS)
    networks = {network_of(load_config(_file(arm.model, arguments.scale))) for arm in chosen}
    refuse_unused(weights, networks - {None})
    for seed in chosen_seeds(arguments, arguments.data_root == "phantom"):
        store = _store(arguments, folder, seed)
        for arm in chosen:
            _run_arm(arm, seed, store, weights, arguments, results, folder)


def _run_arm(
    arm: Arm, seed: int, store: Path, weights: dict[str, Path], arguments: Namespace, results: Results, folder: Path
) -> None:
    file = _file(arm.model, arguments.scale)
    ours, theirs = _options(arguments)
    ours["augment"] = 1.0 if arm.geometric else 0.0
    config = load_config(file, ours)
    network = network_of(config)
    made_by = config.pretty_text + digest_of(network, weights)
    drawing = _drawing(arguments.scale, seed, arm.control)
    if arm.drawn:
        generator = load_config(_file("generator", arguments.scale), theirs).pretty_text
        made_by += generator + canonical_json({**asdict(drawing), "seed": None}).decode()
    opened = SliceStore(store)
    made_by += canonical_json(None if opened.split is None else opened.split.parameters).decode()  # its ratios
    row: dict[str, Any] = {
        "scale": arguments.scale,
        "data": arguments.data_name or ("phantom" if opened.phantom else "real"),
        "arm": arm.name,
        "seed": seed,
        "config_digest": hashlib.sha256(made_by.encode()).hexdigest()[:16],
        "data_digest": _data_digest(opened),
        "pathzoo": __version__,
    }
    if network and network not in weights:
        row |= not_run(network)
        if not results.has(row):
            results.append(row)
        return
    if results.has(row | {"status": "done"}):
        print(f"{arm.name}, seed {seed}: has its row")
        return
    options = ours | {"data_root": str(store)}
    if network:
        options["model.backbone.pretrained"] = str(weights[network])
    if arm.drawn:
        options["synthetic"] = str(_drawn(drawing, store, seed, theirs, arguments.scale, folder))
    work = folder / sha256_bytes(canonical_json([row[key] for key in KEYS]))[:12]
    print(f"{arm.name}, seed {seed}: in {work}", flush=True)
    train(file, work, resume=True, options=options, seed=seed)
    rows = test(file, work_dir=work, options=options)
    tested = opened.records("test")
    row |= {"status": "done", "n_images": len(tested), "n_patients": len({record.patient for record in tested})}
    if config.model.backbone.get("pretrained", "") is None:
        row["note"] = "encoder from scratch"  # the study's begins with weights of ImageNet
    results.append(row | metric_columns(rows, METRICS))
    if not arguments.keep:
        shutil.rmtree(work, ignore_errors=True)


def _data_digest(store: SliceStore) -> str:
    """Of the slices, whoever stands where, and after a dash of the store: seeds deal the same slices differently."""
    slices = sorted((r.item, r.sha256) for subset in store.subsets for r in store.records(subset))
    return f"{_short(canonical_json(slices).decode())}-{store.digest[:16]}"


def _drawn(drawing: Drawing, store: Path, seed: int, options: dict[str, Any], scale: str, folder: Path) -> Path:
    """The drawn slices of a seed: the translator is trained once, and each kind of drawing made once."""
    file, options = _file("generator", scale), options | {"data_root": str(store)}
    text = load_config(file, options).pretty_text + SliceStore(store).digest
    work = folder / "generators" / f"{seed}-{_short(text)}"
    out = work / f"drawn-{_short(canonical_json(asdict(drawing)).decode())}"
    if (out / "report.json").exists():
        return out
    untrained = drawing.control == "untrained"
    if not untrained and not (work / "finished").exists():
        train(file, work, resume=True, options=options, seed=seed)
        (work / "finished").touch()
    checkpoint = None if untrained else chosen_checkpoint(work)
    synthesize(file, checkpoint, out, drawing, options=options, overwrite=out.exists())
    cfg = load_config(file, options)
    report = report_synthesis(cfg, load_generator(cfg, checkpoint, drawing.seed, None), out)
    kept = {key: report[key] for key in ("quality", "kid")} | {"flagged": report["memorised"]["flagged"]}
    print(f"drawn: {json.dumps(kept)}; real slice, label map and drawn slice: {out / 'pictures.png'}", flush=True)
    return out


def _drawing(scale: str, seed: int, control: str | None) -> Drawing:
    usual = _DRAWING[scale]
    return Drawing(usual.count, seed, usual.augmentation, usual.noise, control)


def _options(arguments: Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """The segmenters' options and the translator's; neither depends on where the data is."""
    given = parse_options(arguments.cfg_options)
    for key in ("augment", "synthetic", "data_root"):
        if key in given:
            raise ConfigError(
                f"--cfg-options {key}={given[key]}: the arms set it; choose them by --arms, data by --data-root"
            )
    theirs = {key.removeprefix("generator."): value for key, value in given.items() if key.startswith("generator.")}
    ours = {key: value for key, value in given.items() if not key.startswith("generator.")}
    theirs |= {key: value for key, value in ours.items() if key in ("window_centre", "window_width")}
    if arguments.scale == "smoke":
        ours |= {"train_cfg.max_epochs": 1, "train_cfg.val_interval": 1, "samples_per_epoch": 16}
        ours |= {"param_scheduler.0.end": 1, "param_scheduler.0.T_max": 1}
        theirs |= {"train_cfg.max_epochs": 2, "train_cfg.val_interval": 1, "samples_per_epoch": 8}
        theirs |= {"param_scheduler.0.begin": 1, "param_scheduler.0.end": 2}
    return ours, theirs


def _store(arguments: Namespace, folder: Path, seed: int) -> Path:
    """The slices of a seed: a store that is there, or one that is built of cases, drawn or given."""
    given = arguments.data_root.replace("{seed}", str(seed))
    root = _draw(folder, seed, arguments.scale) if given == "phantom" else Path(given)
    if is_store(root):
        return root
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give one of KiTS19 cases, or a store of ct_to_slices.py")
    phantom = (root / "phantom.json").exists()
    ratios = _PHANTOM_RATIOS if given == "phantom" else (0.7, 0.2, 0.1)
    out = folder / "stores" / f"{seed}-{_short(_contents(root) + str(ratios))}"
    if not is_store(out):
        # KiTS19's own test cases came without labels.
        cases, notes = find_kits19(root, ReadOptions(label_map=LabelMap.parse(()), skip_incomplete=True))
        built = build_store(cases, out, BuildOptions("kits19", ratios, seed, phantom=phantom, overwrite=out.exists()))
        print("\n".join([*notes, *built.notes]), flush=True)
    return out


def _contents(root: Path) -> str:
    """What tells a folder of cases from itself with other files in it: names, sizes and times."""
    files = ((path.relative_to(root), path.stat()) for path in sorted(root.rglob("*")) if path.is_file())
    return str(root.resolve()) + "".join(f"\n{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in files)


def _draw(folder: Path, seed: int, scale: str) -> Path:
    from pathzoo.datasets.phantom import write_ct

    what = _PHANTOM | {"smoke": {"patients": 10, "slices": 12}, "paper": {"size": (512, 512)}}.get(scale, {})
    root = folder / "data" / f"phantom{seed}-{sha256_bytes(canonical_json(what))[:8]}"
    write_ct(root, seed=seed, **what)
    return root


def _file(name: str, scale: str) -> str:
    return f"kits_pix2pix/{(_PAPER if scale == 'paper' else _SMALL)[name]}"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
