"""A published model back in memory: verified every time, built from the allow-list, never unpickled.

torch is imported inside the functions that need it: listing models costs none.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pathzoo.ct.window import hounsfield_between
from pathzoo.errors import DataError, ZooError
from pathzoo.fileio import sha256_bytes
from pathzoo.wsi.predictor import InputSpec, Pictures, Prediction
from pathzoo.wsi.stain import StainFit, normalize_picture
from pathzoo.zoo.allowlist import build_from_data
from pathzoo.zoo.find import find_model, list_models
from pathzoo.zoo.golden import golden_values
from pathzoo.zoo.inputs import WORDS, batch_of, blank, form_of, noise
from pathzoo.zoo.manifest import WEIGHTS_FILE, Manifest
from pathzoo.zoo.predictors import PREDICTORS, first
from pathzoo.zoo.prepare import check_pictures, prepare_image
from pathzoo.zoo.verify import require_verified

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["LoadedModel", "find_model", "get_model", "golden_outputs", "list_models", "load_folder"]

_DEVICE = re.compile(r"cpu|cuda(?::(?P<index>[0-9]{1,3}))?")


class LoadedModel:
    """A model ready to be called; a `pathzoo.wsi.predictor.Predictor`.

    Args:
        manifest: What the model says about itself.
        module: The network, float32; it is put into eval mode, and YOLOv5's normalisation folded into its
            convolutions, in place.
        device: Where it computes, e.g. `cpu` or `cuda:0`.
    """

    def __init__(self, manifest: Manifest, module: "nn.Module", device: str = "cpu") -> None:
        import torch

        from pathzoo.models.layers import fuse_conv_bn

        _require_supported(manifest)
        self.manifest = manifest
        self.device = torch.device(device)
        self.module = module.to(self.device).eval()
        fuse_conv_bn(self.module)
        self.name, self.version, self.digest = manifest.name, manifest.version, manifest.digest
        self.task: str = manifest.task
        self.classes = manifest.classes
        self.score_threshold = manifest.score_threshold
        self.takes = form_of(manifest)
        spec = manifest.input
        self.input = InputSpec(spec.tile_size, spec.mpp, spec.mpp_tolerance, _stain(manifest))

    def __call__(self, tiles: np.ndarray, /) -> Prediction:
        """Predicts tiles of exactly `input.tile_size`.

        Args:
            tiles: RGB uint8 (N, H, W, 3), stained as `input.stain` says; CT slices, grey pictures and label maps for
                models that take those (`pathzoo.zoo.inputs`).

        Returns:
            By task: `ClassProbs` (N, C) and `SegProbs` (N, C, H, W), float32, a softmax over C; `Boxes`, one (n, 6) per
            tile, inside the tile; `Embeddings` (N, D); `Pictures` (N, K, H, W), of translation.

        Raises:
            DataError: Not what the model takes, or of another size.
            ZooError: The network's answer is not of its task.
        """
        import torch

        batch = batch_of(tiles, self.manifest)
        if len(batch) == 0:  # the sizes of an empty answer are those of another one
            return first(self(blank(self.manifest)), 0)
        with torch.inference_mode():
            answer = PREDICTORS[self.task](self.module, torch.from_numpy(batch).to(self.device), len(self.classes))
        window = self.manifest.input.hu_window
        if isinstance(answer, Pictures) and window is not None:
            return Pictures(hounsfield_between(answer.values, *window).astype(np.float32))
        return answer

    def prepare(self, image: np.ndarray, mpp: float | None = None) -> np.ndarray:
        """The tile (H, W, 3) that stands for a whole RGB uint8 image; see `pathzoo.zoo.prepare.prepare_image`.

        Where the model asks for a stain, the image is first normalised to it by a fit of its own.

        Raises:
            DataError: The model takes no pictures, or `prepare_image` says what.
        """
        if self.takes != "pictures":
            raise DataError(
                f"{self.name} takes {WORDS[self.takes]}, neither pictures nor slides: give it such an array "
                f"(pathzoo.get_model({self.name!r}))"
            )
        if self.input.stain is not None:
            check_pictures(image, 3)
            image, _ = normalize_picture(image, self.input.stain)
        return prepare_image(image, self.manifest.input, mpp)


def get_model(model: str | os.PathLike[str], device: str = "cpu") -> LoadedModel:
    """Finds, verifies and loads a published model.

    Args:
        model: A name, `name@version`, or a folder; see `pathzoo.zoo.find.find_model` for the look-up order.
        device: `cpu`, `cuda`, `cuda:1`, ...

    Raises:
        ZooError: Unknown name; any reason that `pathzoo.zoo.verify` finds; weights that do not fit the config; a
            device that is not there.
    """
    from pathzoo import plugins

    plugins.load_plugins()  # all that the user installed, whatever the model asks for
    folder = find_model(model)
    loaded = load_folder(folder, device)
    found_by_name = folder != Path(model)
    if found_by_name and (folder.parent.name, folder.name) != (loaded.name, loaded.version):
        raise ZooError(f"{folder}: holds {loaded.name} {loaded.version}: the folder was renamed or exchanged")
    return loaded


def load_folder(folder: str | os.PathLike[str], device: str = "cpu") -> LoadedModel:
    """`get_model` for a folder, without any look-up."""
    folder = Path(folder)
    _check_device(device)
    manifest = require_verified(folder)
    _require_supported(manifest)
    module = build_from_data(manifest.model)
    load_weights(module, folder / WEIGHTS_FILE, manifest)
    return LoadedModel(manifest, module, device)


def load_weights(module: "nn.Module", path: Path, manifest: Manifest) -> None:
    """Fills `module` from a safetensors file, every tensor of both, as float32.

    Raises:
        ZooError: Other bytes than the manifest's, or tensors that are missing, left over or of another shape.
    """
    fill_module(module, read_tensors(path, manifest), str(path))
    n_parameters = sum(parameter.numel() for parameter in module.parameters())
    if n_parameters != manifest.weights.n_parameters:
        raise ZooError(
            f"{path}: the model has {n_parameters} parameters, model.json says {manifest.weights.n_parameters}"
        )


def read_tensors(path: Path, manifest: Manifest) -> "dict[str, torch.Tensor]":
    """The tensors of a published weights file, in the type they are kept in.

    The bytes are read once and hashed as read: nothing can be exchanged between the check and the use.

    Raises:
        ZooError: Other bytes than the manifest's.
    """
    from safetensors.torch import load

    data = path.read_bytes()
    if sha256_bytes(data) != manifest.files[WEIGHTS_FILE].sha256:
        raise ZooError(f"{path}: changed while it was read")
    tensors: dict[str, torch.Tensor] = load(data)
    return tensors


def fill_module(module: "nn.Module", tensors: "dict[str, torch.Tensor]", source: str) -> None:
    """Strict `load_state_dict` in float32 with a one-line ZooError."""
    tensors = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    wanted = module.state_dict()
    for what, names in (("lacks", wanted.keys() - tensors.keys()), ("has too many:", tensors.keys() - wanted.keys())):
        if names:
            raise ZooError(f"{source}: {what} {', '.join(sorted(names)[:3])} ({len(names)} tensors) for this config")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise ZooError(f"{source}: {name} is {list(tensor.shape)}, the config wants {list(wanted[name].shape)}")
    module.load_state_dict(tensors, strict=True)


def golden_outputs(model: LoadedModel, seed: int, n: int) -> list[list[float]]:
    """What is kept of the model's outputs on `n` synthetic tiles, see `pathzoo.zoo.golden.golden_values`."""
    size = model.input.tile_size
    return golden_values(model(noise(seed, n, model.manifest)), size, len(model.classes))


def _require_supported(manifest: Manifest) -> None:
    """Refuses what this version would leave out, and so give wrong outputs without a word."""
    if manifest.task not in PREDICTORS:
        raise ZooError(f"{manifest.name}: this version of pathzoo runs {', '.join(PREDICTORS)}, not {manifest.task}")
    _stain(manifest)
    spec = manifest.input
    applied: dict[str, tuple[Any, Any]] = {"value_range": (spec.value_range, (0.0, 255.0))}
    if spec.channels != "grey":
        applied["hu_window"] = (spec.hu_window, None)
    for field, (value, only) in applied.items():
        if value != only:
            raise ZooError(
                f"{manifest.name}: input.{field} is {value!r}, which this version of pathzoo does not apply "
                f"(only {only!r})"
            )


def _stain(manifest: Manifest) -> StainFit | None:
    """The stain that the model's input has to have."""
    block = manifest.input.stain_fit
    if block is None:
        return None
    try:
        return StainFit(block.method, block.parameters)
    except ValueError as error:
        raise ZooError(
            f"{manifest.name}: input.stain_fit is {block.method!r}, which this version of pathzoo does not apply: "
            f"{error}"
        ) from error


def _check_device(device: str) -> None:
    import torch

    match = _DEVICE.fullmatch(str(device))
    if match is None:
        raise ZooError(f"no device {str(device)!r}: use cpu, cuda or cuda:N")
    count: int = torch.cuda.device_count() if str(device) != "cpu" else 1
    if int(match["index"] or 0) >= count:
        raise ZooError(f"device {device!r} is not there ({count} GPUs found); use cpu, or see `pathzoo doctor`")
