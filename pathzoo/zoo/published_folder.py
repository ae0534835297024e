"""The files of a published model: weights, card and manifest."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathzoo.errors import ZooError
from pathzoo.fileio import atomic_path, sha256_file, write_text
from pathzoo.zoo import verify
from pathzoo.zoo.allowlist import build_from_data
from pathzoo.zoo.card import render_card
from pathzoo.zoo.golden import QUANTITIES, TOLERANCES
from pathzoo.zoo.manifest import CARD_FILE, MANIFEST_FILE, WEIGHTS_FILE
from pathzoo.zoo.manifest_file import seal, to_text

if TYPE_CHECKING:
    import torch

#: The largest finite float16.
_HALF_MAX = 65504.0
_GOLDEN = {"seed": 0, "n": 4}


def write_folder(folder: Path, fields: dict[str, Any], state: "dict[str, torch.Tensor]", half: bool) -> None:
    """Writes weights first, then golden outputs from the weights as written, then card and manifest.

    Args:
        folder: It exists.
        fields: All of the manifest but weights, files and golden, which are added.
        state: The model's tensors by name.
        half: Store floating-point tensors as float16.

    Raises:
        ZooError: A tensor that cannot be stored, or fields that do not go together.
    """
    from safetensors.torch import load_file, save_file

    from pathzoo.zoo.load import LoadedModel, fill_module, golden_outputs

    module = build_from_data(fields["model"])
    tensors = _tensors(state, half)
    with atomic_path(folder / WEIGHTS_FILE) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    fill_module(module, load_file(folder / WEIGHTS_FILE), "the checkpoint")
    fields["weights"] = {
        "dtype": "float16" if half else "float32",
        "n_tensors": len(tensors),
        "n_parameters": sum(parameter.numel() for parameter in module.parameters()),
    }
    # The card does not depend on its own record, so a stand-in serves until it is written.
    fields["files"] = {WEIGHTS_FILE: _record(folder / WEIGHTS_FILE), CARD_FILE: {"sha256": "0" * 64, "size": 1}}
    draft = seal(fields)
    for problem in verify.find_inconsistent(draft):  # before the network's outputs trip over it
        raise ZooError(f"not published, and nothing is left behind: {problem}")
    outputs = golden_outputs(LoadedModel(draft, module), _GOLDEN["seed"], _GOLDEN["n"])
    quantity = QUANTITIES[draft.task]
    about = {"generator": "noise_tiles", "quantity": quantity, "atol": TOLERANCES[quantity]}
    fields["golden"] = {**about, "outputs": outputs, **_GOLDEN}
    write_text(folder / CARD_FILE, render_card(seal(fields)))
    fields["files"][CARD_FILE] = _record(folder / CARD_FILE)
    write_text(folder / MANIFEST_FILE, to_text(seal(fields)))


def _tensors(state: "dict[str, torch.Tensor]", half: bool) -> "dict[str, torch.Tensor]":
    """Contiguous copies on the CPU, floating-point ones as float32 or float16; counters keep their type."""
    import torch

    tensors = {}
    for name, tensor in state.items():
        tensor = tensor.detach().cpu()
        if tensor.is_floating_point():
            if not torch.isfinite(tensor).all():
                raise ZooError(f"the checkpoint's tensor {name} holds NaN or infinity: the training diverged")
            if half and tensor.abs().max() > _HALF_MAX:
                raise ZooError(f"the checkpoint's tensor {name} exceeds the range of float16: publish without --half")
            tensor = tensor.to(torch.float16 if half else torch.float32)
        tensors[name] = tensor.clone().contiguous()
    return tensors


def _record(path: Path) -> dict[str, Any]:
    return {"sha256": sha256_file(path), "size": path.stat().st_size}
