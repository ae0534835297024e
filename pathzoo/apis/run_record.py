"""What a training run leaves behind beside its weights: `train_run.json`, enough to repeat it and publish from it."""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.model import PretrainedInit

from pathzoo._version import __version__
from pathzoo.errors import PathzooError
from pathzoo.phantom_mark import any_phantom

_RECORDED = (
    "torch",
    "torchvision",
    "onedl-mmengine",
    "onedl-mmcv",
    "onedl-mmpretrain",
    "onedl-mmdetection",
    "onedl-mmsegmentation",
    "timm",
    "albumentations",
    "opencv-python-headless",
    "numpy",
)


@contextmanager
def nothing_left_behind(folder: Path) -> Iterator[Callable[[], None]]:
    """Removes what was added to `folder`, or the folder where it is new, if the input turns out to be refused.

    mmengine's Runner makes a folder for logs on construction, long before all of the input has been looked at.

    Args:
        folder: The work folder. What stands in it before is not touched.

    Yields:
        A function to call when the input has been accepted: from then on everything stays.
    """
    top = folder  # the uppermost folder that is new
    while not top.exists() and not top.parent.exists():
        top = top.parent
    before = set(folder.iterdir()) if folder.is_dir() else None
    accepted = []
    try:
        yield lambda: accepted.append(True)
    except (PathzooError, KeyboardInterrupt):
        if is_main_process() and not accepted and top.is_dir():
            for path in [top] if before is None else filter(_made_by_runner, set(folder.iterdir()) - before):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


def _made_by_runner(path: Path) -> bool:
    """Logs and the copy of the config; what else is new in the folder may be another process's, a checkpoint say."""
    return bool(re.fullmatch(r"\d{8}_\d{6}", path.name)) or path.suffix == ".py"


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape a result, where installed."""
    versions = {"python": platform.python_version()}
    for name in _RECORDED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def git_state(folder: Path) -> dict[str, Any]:
    """{"commit": hash or None, "dirty": bool or None} of the checkout that holds `folder`."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    status = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def config_record(config: Config) -> dict[str, str]:
    """The resolved config as text, the name of its file (no folder) and the SHA-256 of the text."""
    text = config.pretty_text
    name = Path(config.filename).name if config.filename else "config.py"
    return {"file": name, "text": text, "digest": hashlib.sha256(text.encode()).hexdigest()}


def initial_weights(config: Config) -> dict[str, Any]:
    """Where the weights came from before training, as `train_run.json` names it.

    They come from `load_from` (the whole model), else from `model.backbone.pretrained`, else from the first
    `init_cfg=dict(type="Pretrained", checkpoint=...)` in the model.

    Returns:
        `source`, and what tells that one from others:

        - random: nothing;
        - imagenet: `network`, timm's;
        - file: `file` (name only) and `sha256` (None of an address), of tensors that no training here made;
        - run: of a training run's checkpoint `file`, `sha256`, `backbone` (see
          `pathzoo.models.backbones.parent_weights.ParentWeights`) and `folder`, its run's, as seen from this run's; no
          `folder` where the backbone was exported from it;
        - published: `name`, `version`, `sha256` (of the weights), `digest` (of the manifest), `licence`.

        Of the last two also `input`, the mean, std and mpp of what the parent was trained on. And `partial` where the
        config takes weights that fit in part, `whole` where the whole model was loaded.

        A run that goes on keeps what it said when it began: its weights are not asked for again.

    Raises:
        ConfigError, CheckpointError, ZooError: The weights are not there, or not whole.
    """
    folder = Path(config.get("work_dir") or ".")
    if config.get("resume"):
        begun = Path(config.get("load_from") or folder / "epoch_0.pth").parent
        return _as_seen_from(folder, recorded_start(begun), begun)
    if config.get("load_from"):
        return _start_of_file(str(config.load_from), folder) | {"whole": True}
    model = config.get("model") or {}
    backbone = model.get("backbone") or {}
    pretrained = backbone.get("pretrained")
    if pretrained is None:
        named = next(_named_by_init_cfg(model), None)
        return {"source": "random"} if named is None else _start_of_file(named, folder)
    if pretrained == "imagenet":
        return {"source": "imagenet", "network": f"timm {backbone.get('name')}"}
    if getattr(backbone.get("type"), "__name__", str(backbone.get("type"))).rpartition(".")[2] != "TimmBackbone":
        return _start_of_file(str(pretrained), folder)  # a host's own network takes what its host takes
    from pathzoo.models.backbones.parent_weights import read_parent

    parent = read_parent(pretrained)
    partial = {"partial": True} if backbone.get("partial") else {}
    return start_from(parent.record, parent.folder, folder) | partial


def start_from(record: dict[str, Any], parents: Path, folder: Path) -> dict[str, Any]:
    """A parent's record as a run in `folder` keeps it: of a run's checkpoint with the way to its folder, `parents`."""
    if record["source"] != "run" or "exported" in record:
        return dict(record)
    return _as_seen_from(folder, record | {"folder": "."}, parents)


def _start_of_file(name: str, folder: Path) -> dict[str, Any]:
    """Of a checkpoint that a host loads, whatever network it is of: a path, or an address."""
    from pathzoo.models.backbones.parent_weights import read_parent

    path = Path(name)
    if not path.is_file():
        return {"source": "file", "file": path.name, "sha256": None}
    parent = read_parent(path)
    return start_from(parent.record, parent.folder, folder)


def _named_by_init_cfg(model: Any) -> Iterator[str]:
    """Checkpoints that `init_cfg` anywhere in a model's config lets mmengine load."""
    if isinstance(model, dict):
        given = model.get("init_cfg")
        for one in given if isinstance(given, list | tuple) else [given]:
            if isinstance(one, dict) and one.get("type") in ("Pretrained", PretrainedInit) and one.get("checkpoint"):
                yield str(one["checkpoint"])
        for key, value in model.items():
            if key != "init_cfg":
                yield from _named_by_init_cfg(value)
    elif isinstance(model, list | tuple):
        for value in model:
            yield from _named_by_init_cfg(value)


def _as_seen_from(folder: Path, start: dict[str, Any], other: Path) -> dict[str, Any]:
    """A record whose `folder` is told from `other`, told from `folder`: runs moved together still find each other."""
    if "folder" not in start:
        return start
    return start | {"folder": os.path.relpath((other / start["folder"]).resolve(), folder.resolve())}


def recorded_start(folder: Path) -> dict[str, Any]:
    """`initial_weights` as the train_run.json in `folder` has it; `source` is "unknown" where there is none."""
    start = recorded(folder, "initial_weights")
    return start if isinstance(start, dict) else {"source": "unknown"}


def recorded(folder: Path, *keys: str) -> Any:
    """What the train_run.json in `folder` has under these keys, one in the other; None where it does not say."""
    try:
        found = json.loads((folder / "train_run.json").read_text(encoding="utf-8"))
        for key in keys:
            found = found[key]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found


def data_record(dataset: Any, caveats: Sequence[str] = ()) -> dict[str, Any]:
    """What the run was trained on: counts, digests and the split; no patient, slide or file is named here.

    `caveats` of the run join those of the data set's own counts; a host's data set, which counts nothing, has neither.
    """
    split = getattr(dataset, "split", None)
    counts = dataset.describe() if hasattr(dataset, "describe") else {}
    if counts:
        counts = counts | {"caveats": [*counts.get("caveats", ()), *caveats]}
    return {
        "dataset": type(dataset).__name__,
        "digest": getattr(dataset, "data_digest", None),
        "split": None
        if split is None
        else {"scheme": split.scheme, "digest": split.digest, "file": "splits.json", "parameters": split.parameters},
        "counts": counts,
        "synthetic": _is_synthetic(dataset),
    }


def _is_synthetic(dataset: Any) -> bool:
    """Whether any image is a phantom's."""
    if hasattr(dataset, "synthetic"):  # stores of packed tiles carry it along
        return bool(dataset.synthetic)
    if not hasattr(dataset, "get_data_info"):
        return False
    return any_phantom(dataset.get_data_info(index)["img_path"] for index in range(len(dataset)))


def process_record(command: list[str]) -> dict[str, Any]:
    """The command line, package versions, the commit, and how many processes ran."""
    return {
        "pathzoo": {"version": __version__},
        "command": command,
        "git": git_state(Path(__file__).parent),
        "versions": package_versions(),
        "world_size": int(os.environ.get("WORLD_SIZE", 1)),
    }
