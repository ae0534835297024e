"""A backbone's weights under timm's own key names, for whoever works without pathzoo.

    python tools/analysis_tools/export_backbone.py SOURCE OUT.safetensors [--network NAME]

SOURCE is a training run's checkpoint, a published model's folder or NAME[@VERSION], or a file with timm's key names.
OUT holds float32 tensors that `timm.create_model(NETWORK, num_classes=0)` loads strictly, and in its metadata the
network, mean and std (0..1, as timm has them) that it was trained with, and where it comes from: a model that begins
with the file still knows its parent.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pathzoo.errors import CheckpointError, ConfigError, PathzooError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    try:
        network = export(args.source, args.out, args.network, args.overwrite)
    except PathzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(
        f"{args.out}: timm.create_model({network!r}, num_classes=0).load_state_dict("
        f"safetensors.torch.load_file({args.out.name!r}))"
    )
    return 0


def export(source: str, out: Path, network: str | None = None, overwrite: bool = False) -> str:
    """Writes the file, whole or not at all.

    Args:
        source: See `pathzoo.models.backbones.parent_weights.read_parent`.
        out: A .safetensors file.
        network: timm's name, where the source does not tell.
        overwrite: Replace `out`.

    Returns:
        timm's name of the network.

    Raises:
        ConfigError: The network is not known, or `out` exists or has another ending.
        CheckpointError: The tensors are not all that this network has: a segmenter's encoder may lack its last stages.
    """
    import timm
    from safetensors.torch import save_file

    from pathzoo.fileio import atomic_path
    from pathzoo.models.backbones.parent_weights import EXPORTED, compare, exported_record, read_parent

    if out.suffix != ".safetensors":
        raise ConfigError(f"{out}: give a file name that ends in .safetensors")
    if out.exists() and not overwrite:
        raise ConfigError(f"{out}: exists already; give another name, or --overwrite")
    parent = read_parent(source)
    name = network or parent.network
    if name is None or not timm.is_model(name):
        raise ConfigError(f"{source}: timm's name of its network is {name!r}; give a known one by --network")
    model = timm.create_model(name, pretrained=False, num_classes=0)
    fit = compare(parent.tensors, model, name)
    if not fit.whole:
        raise CheckpointError(f"{parent.where}: does not fill timm's {name}: {fit}; nothing was written")
    wanted = model.state_dict()
    tensors = {
        key: tensor.detach().cpu().to(wanted[key].dtype).clone().contiguous()
        for key, tensor in parent.tensors.items()
        if key in wanted
    }
    about = {"format": "pt", "network": name, EXPORTED: exported_record(parent, tensors)}
    for key, values in (("mean", parent.mean), ("std", parent.std)):
        if values is not None:
            about[key] = ", ".join(f"{value / 255:.6g}" for value in values)
    with atomic_path(out) as temporary:
        save_file(tensors, temporary, metadata=about)
    return name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="checkpoint, published model, or file with timm's key names")
    parser.add_argument("out", type=Path, help="the .safetensors file to write")
    parser.add_argument("--network", help="timm's name, where the source does not tell it")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT")
    return parser


if __name__ == "__main__":
    sys.exit(main())
