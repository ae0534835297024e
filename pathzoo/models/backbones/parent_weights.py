"""The weights that a backbone starts from: who made them, and whether they fit. Nothing here unpickles."""

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from mmengine.logging import print_log
from torch import nn

from pathzoo.engine.checkpoint import chosen_checkpoint, load_checkpoint_safely, state_dict_of
from pathzoo.errors import CheckpointError, ConfigError
from pathzoo.fileio import canonical_json, sha256_file

#: What stands before timm's own key names: in models that hold a `TimmBackbone`, and in a `TimmBackbone` alone.
PREFIXES = ("backbone.timm_model.", "timm_model.")
#: Key of a .safetensors file's metadata: where its tensors come from.
EXPORTED = "pathzoo.exported"
_MODEL_NAME = re.compile(r"[a-z0-9]+(?:[-_][a-z0-9]+)*(?:@[0-9A-Za-z.+-]+)?")
_FILE_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
_GIVE = "give 'imagenet', None, or a .safetensors or .pth file, a run's or published folder, or NAME[@VERSION]"


@dataclass(frozen=True)
class ParentWeights:
    """A backbone's tensors under timm's own key names, and where they come from.

    `record` is what `train_run.json` says of them: `source` ("run", "published" or "file"), `sha256` of the file, and

    - of a run's checkpoint: `file`, and `backbone`, digests of its tensors by the type that they may be published in
      (`backbone_digest`), by which its published form is known again;
    - of a published model: `name`, `version`, `digest`, `licence`;
    - of any other file: `file`;
    - of the first two `input`: mean and std (0..255) and mpp (microns per pixel) that it was trained with.

    Of a file that tools/analysis_tools/export_backbone.py wrote it is the record of what was exported, and `exported`,
    the file's own name and SHA-256.
    """

    where: str
    tensors: dict[str, torch.Tensor]
    record: dict[str, Any]
    #: The published folder, or the folder that holds the file.
    folder: Path
    #: timm's name of the network and the mean and std (0..255) that it was trained with, where the source tells.
    network: str | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None


def read_parent(pretrained: str | Path) -> ParentWeights:
    """Reads what `TimmBackbone(pretrained=...)` may name, but for None and "imagenet".

    Args:
        pretrained: A file of tensors (.safetensors or .pth) with timm's own key names; a training run's checkpoint,
            whose `backbone.timm_model.*` are taken (the average, where an EMAHook averaged weights); a run's folder,
            for its best checkpoint by validation, or its newest where none was kept; a published model's folder; or a
            model of the zoo, as NAME or NAME@VERSION.

    Raises:
        ConfigError: No such file or folder.
        CheckpointError: A damaged file, one that only unpickling could open, or a run without any.
        ZooError: An unknown name, or a folder that does not pass verification.
    """
    path = Path(pretrained)
    if path.name == "model.safetensors" and (path.parent / "model.json").is_file():
        path = path.parent  # what a published folder says of itself is not to be lost
    if path.is_file():
        return _of_file(path)
    if path.is_dir():
        if (path / "train_run.json").is_file():
            return _of_file(chosen_checkpoint(path))
        return _of_published(path)
    text = str(pretrained)
    if _MODEL_NAME.fullmatch(text) and path.suffix not in _FILE_ENDINGS:
        return _of_published(text)
    raise ConfigError(f"pretrained: {text}: no such file; {_GIVE}")


def backbone_digest(tensors: Mapping[str, torch.Tensor], dtype: str) -> str:
    """SHA-256 of tensors by name, shape and value, floating-point ones rounded to `dtype` ("float32" or "float16")."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        if tensor.is_floating_point():
            tensor = tensor.to(getattr(torch, dtype))
        digest.update(canonical_json([name, str(tensor.dtype), list(tensor.shape)]))
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def timm_keys(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The backbone's tensors of a model's state under timm's own names; all tensors where none stands below one."""
    for prefix in PREFIXES:
        own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if own:
            return own
    return dict(state)


@dataclass(frozen=True)
class Fit:
    """How a state fits a network, by key; `misshapen` tells both shapes."""

    mapped: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether every tensor has its place."""
        return not (self.missing or self.unexpected or self.misshapen)

    def __str__(self) -> str:
        parts = (f"{len(keys)} {name}{_first(keys)}" for name, keys in self._lists())
        return ", ".join(parts)

    def listing(self) -> str:
        """Every key that has no place, a line for each."""
        wrong = self._lists()[1:]
        return "\n".join(f"  {name}: {key}" for name, keys in wrong for key in keys)

    def _lists(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return (
            ("tensors mapped", self.mapped),
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("misshapen", self.misshapen),
        )


def compare(tensors: Mapping[str, torch.Tensor], network: nn.Module, name: str) -> Fit:
    """Holds tensors against a timm network.

    Args:
        tensors: By timm's key names.
        network: The network as built, perhaps without its last stages.
        name: timm's name. What the whole network has and this one left out (its classifier, stages above the last map
            that is asked for) is not unexpected.
    """
    wanted = network.state_dict()
    shared = [key for key in wanted if key in tensors]
    wrong = [key for key in shared if tensors[key].shape != wanted[key].shape]
    extra = [key for key in tensors if key not in wanted]
    if extra:
        whole = _whole_network_keys(name)
        extra = [key for key in extra if key not in whole]
    return Fit(
        mapped=tuple(key for key in shared if key not in set(wrong)),
        missing=tuple(key for key in wanted if key not in tensors),
        unexpected=tuple(extra),
        misshapen=tuple(f"{k} is {list(tensors[k].shape)}, not {list(wanted[k].shape)}" for k in wrong),
    )


def load_parent(parent: ParentWeights, network: nn.Module, name: str, partial: bool = False) -> Fit:
    """Fills a timm network.

    Args:
        parent: What to fill it from.
        network: Filled in place, in its own floating-point type.
        name: timm's name of it.
        partial: Load what fits and leave the rest as it is; else all has to fit, or nothing is loaded.

    Returns:
        What was loaded and what was not.

    Raises:
        CheckpointError: Not all fits, or with `partial` nothing; the message tells how much, and the first of each. The
            log has all of their names.
    """
    fit = compare(parent.tensors, network, name)
    if not fit.whole:
        print_log(f"{parent.where} and timm's {name}:\n{fit.listing()}", logger="current", level=logging.WARNING)
    if not fit.mapped or not (fit.whole or partial):
        remedy = "give weights of the same network"
        if fit.mapped:
            remedy += ", or load what fits by model.backbone.partial=True"
        raise CheckpointError(f"{parent.where}: does not fit timm's {name}, nothing was loaded: {fit}; {remedy}")
    network.load_state_dict({key: parent.tensors[key] for key in fit.mapped}, strict=False)
    return fit


def _of_file(path: Path) -> ParentWeights:
    state, about = _file_state(path)
    tensors = timm_keys(state)
    record: dict[str, Any] = {"source": "file", "file": path.name, "sha256": sha256_file(path)}
    if EXPORTED in about:
        origin = _exported_from(about[EXPORTED], tensors, path)
        mean, std = origin["mean"], origin["std"]
        record = origin["record"] | {"exported": {"file": path.name, "sha256": record["sha256"]}}
        return ParentWeights(str(path), tensors, record, path.parent, about.get("network"), mean, std)
    if any(key.startswith(PREFIXES[0]) for key in state) or (path.parent / "train_run.json").is_file():
        # A model's tensors, not a bare network's: some training made them, and what comes of it has to tell so.
        record["source"] = "run"
        record["backbone"] = {dtype: backbone_digest(tensors, dtype) for dtype in ("float32", "float16")}
        network, given = _of_run(path.parent)
        record["input"] = {key: given.get(key) for key in ("mean", "std", "mpp")}
        mean, std = given.get("mean") or None, given.get("std") or None
        return ParentWeights(str(path), tensors, record, path.parent, network, mean, std)
    return ParentWeights(str(path), tensors, record, path.parent)


def _of_run(folder: Path) -> tuple[str | None, dict[str, Any]]:
    """timm's name of a run's network, and how it was fed (`model_input`), as far as its record tells."""
    try:
        run = json.loads((folder / "train_run.json").read_text(encoding="utf-8"))
        name = (run["model"].get("backbone") or {}).get("name")
        return name, dict(run.get("model_input") or {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None, {}


def exported_record(parent: ParentWeights, tensors: Mapping[str, torch.Tensor]) -> str:
    """What an exported file keeps of where its tensors come from, as the JSON under `EXPORTED` of its metadata."""
    own = {"record": parent.record, "mean": parent.mean, "std": parent.std}
    return canonical_json(own | {"tensors": backbone_digest(tensors, "float32")}).decode()


def _exported_from(text: str, tensors: Mapping[str, torch.Tensor], path: Path) -> dict[str, Any]:
    try:
        origin = json.loads(text)
        whole = isinstance(origin["record"]["source"], str) and {"mean", "std", "tensors"} <= set(origin)
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole or origin["tensors"] != backbone_digest(tensors, "float32"):
        raise CheckpointError(
            f"{path}: its metadata says that other tensors were exported; export the backbone again, or save the "
            "tensors without metadata"
        )
    return dict(origin)


def _file_state(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """A file's tensors, and the metadata that a .safetensors file has beside them."""
    if path.suffix != ".safetensors":
        return state_dict_of(load_checkpoint_safely(path)), {}
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
        return load_file(path), about
    except SafetensorError as error:
        raise CheckpointError(f"{path}: no whole safetensors file ({error}); fetch it again") from error


def _of_published(model: str | Path) -> ParentWeights:
    from pathzoo import plugins
    from pathzoo.zoo.find import find_model
    from pathzoo.zoo.load import read_tensors
    from pathzoo.zoo.manifest import WEIGHTS_FILE
    from pathzoo.zoo.verify import require_verified

    plugins.load_plugins()  # a model of a plug-in is verified with its components known
    folder = find_model(model)
    manifest = require_verified(folder)
    record = {
        "source": "published",
        "name": manifest.name,
        "version": manifest.version,
        "sha256": manifest.files[WEIGHTS_FILE].sha256,
        "digest": manifest.digest,
        "licence": manifest.licence,
        "input": {"mean": list(manifest.input.mean), "std": list(manifest.input.std), "mpp": manifest.input.mpp},
    }
    backbone = manifest.model.get("backbone")
    network = backbone.get("name") if isinstance(backbone, dict) else None
    tensors = timm_keys(read_tensors(folder / WEIGHTS_FILE, manifest))
    where = f"{manifest.name} {manifest.version} ({folder})"
    return ParentWeights(where, tensors, record, folder, network, manifest.input.mean, manifest.input.std)


def _whole_network_keys(name: str) -> set[str]:
    """Keys of the network with its classifier; its random numbers are drawn aside, so that no later draw changes."""
    with torch.random.fork_rng(devices=[]):
        return set(timm.create_model(name, pretrained=False).state_dict())


def _first(keys: Sequence[str]) -> str:
    return f" ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})" if keys else ""
