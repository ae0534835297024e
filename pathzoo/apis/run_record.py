"""What a training run leaves behind beside its weights: `train_run.json`, enough to repeat it and publish from it."""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process

from pathzoo._version import __version__
from pathzoo.datasets.file_search import any_phantom
from pathzoo.errors import PathzooError
from pathzoo.fileio import sha256_file

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
    """Where the backbone's weights came from before training, as `train_run.json` names it.

    Returns:
        `source`, and what tells that one from others:

        - random: nothing;
        - imagenet: `network`, timm's;
        - file: `file` (name only) and `sha256`, of tensors that no training here made;
        - run: of a training run's checkpoint `file`, `sha256`, `backbone` (see
          `pathzoo.models.backbones.parent_weights.ParentWeights`) and `folder`, its run's, as seen from this run's;
        - published: `name`, `version`, `sha256` (of the weights), `digest` (of the manifest), `licence`.

        A run that goes on keeps what it said when it began: its weights are not asked for again.

    Raises:
        ConfigError, CheckpointError, ZooError: The weights are not there, or not whole.
    """
    folder = Path(config.get("work_dir") or ".")
    if config.get("resume"):
        begun = Path(config.get("load_from") or folder / "epoch_0.pth").parent
        return _as_seen_from(folder, recorded_start(begun), begun)
    backbone = (config.get("model") or {}).get("backbone") or {}
    pretrained = backbone.get("pretrained")
    if pretrained is None:
        return {"source": "random"}
    if pretrained == "imagenet":
        return {"source": "imagenet", "network": f"timm {backbone.get('name')}"}
    if getattr(backbone.get("type"), "__name__", str(backbone.get("type"))).rpartition(".")[2] != "TimmBackbone":
        path = Path(pretrained)  # a host's own network takes what its host takes
        return {"source": "file", "file": path.name, "sha256": sha256_file(path) if path.is_file() else None}
    from pathzoo.models.backbones.parent_weights import read_parent

    parent = read_parent(pretrained)
    start = parent.record | ({"folder": "."} if parent.record["source"] == "run" else {})
    return _as_seen_from(folder, start, parent.folder)


def _as_seen_from(folder: Path, start: dict[str, Any], other: Path) -> dict[str, Any]:
    """A record whose `folder` is told from `other`, told from `folder`: runs moved together still find each other."""
    if "folder" not in start:
        return start
    return start | {"folder": os.path.relpath((other / start["folder"]).resolve(), folder.resolve())}


def recorded_start(folder: Path) -> dict[str, Any]:
    """`initial_weights` as the train_run.json in `folder` has it; `source` is "unknown" where there is none."""
    try:
        start = json.loads((folder / "train_run.json").read_text(encoding="utf-8"))["initial_weights"]
    except (OSError, ValueError, KeyError, TypeError):
        start = None
    return start if isinstance(start, dict) else {"source": "unknown"}


def data_record(dataset: Any, config: Config) -> dict[str, Any]:
    """What the run was trained on: counts, digests and the split; no patient, slide or file is named here."""
    split = getattr(dataset, "split", None)
    counts = dataset.describe() if hasattr(dataset, "describe") else {}
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
