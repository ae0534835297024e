"""Turns a foreign weight file into one with timm's key names, which `TimmBackbone(pretrained=FILE)` reads.

    python tools/analysis_tools/convert_weights.py FILE.pth OUT.safetensors --name efficientnet_lite0 --by-order

Some networks are published with other names for the same tensors. Where the order is the same, `--by-order` pairs them
one by one; every pair must agree in shape, dtype and the last part of the name (`weight`, `bias`, `running_var`, ...),
since shape alone cannot tell a normalisation's scale from its shift. `--by-name` takes a file that has timm's names
already, `module.` and the like apart. No tensor is left out or made up in either case.

A network's shapes do not say how it pads, normalises or is fed (timm's `efficientnet_lite0` and `tf_efficientnet_lite0`
differ in nothing else): choose `--name` by the source's own description.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from pathzoo.errors import CheckpointError, ConfigError, PathzooError
from pathzoo.fileio import atomic_path, sha256_file
from pathzoo.nearest import did_you_mean

#: How many of the wrong names a message lists.
_NAMED = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status (0, or 2 for bad input, with nothing written)."""
    arguments = _parser().parse_args(argv)
    try:
        count = convert(arguments.file, arguments.out, arguments.name, by_order=arguments.by_order)
    except PathzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{arguments.out}: {count} tensors with the names of timm's {arguments.name}")
    return 0


def convert(source: Path, out: Path, name: str, by_order: bool) -> int:
    """Writes `source`'s tensors under timm's names.

    Args:
        source: A .safetensors file, or a .pth file that holds tensors only (alone, or under `state_dict`). Order is
            the file's own, which .safetensors does not keep.
        out: The .safetensors file to write; its metadata are `network` and `source_sha256`.
        name: timm's name of the network, as `efficientnet_lite0`.
        by_order: Pair tensors by position instead of by name.

    Returns:
        How many tensors were written: all of the file and all of the network.

    Raises:
        ConfigError: Unknown network, or an `out` that does not end in .safetensors.
        CheckpointError: `source` cannot be loaded safely, or its tensors are not the network's.
    """
    from safetensors.torch import save_file

    if out.suffix != ".safetensors":
        raise ConfigError(f"{out}: name a file that ends in .safetensors, the only form that is written")
    if by_order and source.suffix == ".safetensors":
        raise ConfigError(f"{source}: .safetensors files do not keep the order of tensors; use --by-name")
    wanted = network_tensors(name)
    found = _read(source)
    pairs = pair_by_order(found, wanted) if by_order else pair_by_name(found, wanted)
    try:
        check_pairs(found, wanted, pairs)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: not the tensors of timm's {name}: {error}") from None
    # A clone each: safetensors refuses tensors that share memory, as views of one buffer do.
    tensors = {new: found[old].detach().clone().contiguous() for new, old in pairs.items()}
    with atomic_path(out) as temporary:
        save_file(tensors, temporary, metadata={"network": name, "source_sha256": sha256_file(source)})
    return len(tensors)


def network_tensors(name: str) -> dict[str, torch.Tensor]:
    """Names -> tensors (without memory) of timm's network `name`, its classifier included, in timm's order.

    Raises:
        ConfigError: timm has no such network.
    """
    import timm

    if not timm.is_model(name):
        raise ConfigError(f"--name {name}: timm has no such network{did_you_mean(name, timm.list_models())}")
    with torch.device("meta"):
        return timm.create_model(name, pretrained=False).state_dict()


def pair_by_order(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """timm's name -> the file's name, position by position, as far as the shorter of both goes."""
    return dict(zip(wanted, found, strict=False))


def pair_by_name(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """timm's name -> the file's name where both are the same, apart from a prefix that all the file's names share."""
    prefix = _common_prefix(found)
    return {key: prefix + key for key in wanted if prefix + key in found}


def check_pairs(
    found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], pairs: Mapping[str, str]
) -> None:
    """Refuses pairs that leave a tensor of either side over, or that differ in shape, dtype or last part of the name.

    Args:
        found: The file's names -> tensors.
        wanted: timm's names -> tensors.
        pairs: timm's name -> the file's name.

    Raises:
        CheckpointError: With the counts, or the first pair at fault.
    """
    for number, (new, old) in enumerate(pairs.items(), 1):
        have, want = found[old], wanted[new]
        at = f"tensor {number}, {old} for {new}"
        if have.shape != want.shape:
            raise CheckpointError(f"{at}: shape {tuple(have.shape)}, not {tuple(want.shape)}")
        if have.dtype != want.dtype:
            raise CheckpointError(f"{at}: {have.dtype}, not {want.dtype}")
        if old.rpartition(".")[2] != new.rpartition(".")[2]:
            raise CheckpointError(f"{at}: the same shape, but another kind of tensor")
    missing = [key for key in wanted if key not in pairs]
    unused = [key for key in found if key not in set(pairs.values())]
    if missing or unused:
        raise CheckpointError(
            f"{len(found)} tensors for {len(wanted)}, {len(missing)} missing{_first(missing)}, "
            f"{len(unused)} left over{_first(unused)}"
        )


def _read(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, in its order; anything else under `state_dict` is refused, not dropped."""
    from pathzoo.engine.checkpoint import load_checkpoint_safely

    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if not path.is_file():
            raise CheckpointError(f"{path}: no such file")
        try:
            return load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path}: no whole safetensors file ({error}); fetch it again") from error
    checkpoint = load_checkpoint_safely(path)
    state = checkpoint.get("state_dict", checkpoint)
    others = [str(key) for key, value in state.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise CheckpointError(
            f"{path}: {len(others)} entries are no tensors{_first(others)}; save its state_dict alone"
        )
    return dict(state)


def _common_prefix(names: Mapping[str, torch.Tensor]) -> str:
    """What wrappers put before every name, as `module.` or `backbone.`: whole parts that all names share."""
    parts = [name.split(".")[:-1] for name in names]
    shared = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0] + ".")
    return "".join(shared)


def _first(names: Sequence[str]) -> str:
    return f" ({', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''})" if names else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="the foreign weight file: .pth that holds tensors only, .safetensors")
    parser.add_argument("out", type=Path, help="the .safetensors file to write")
    parser.add_argument("--name", required=True, help="timm's name of the network, as efficientnet_lite0")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--by-order", action="store_true", help="pair the tensors one by one in the order they stand in")
    how.add_argument("--by-name", action="store_true", help="the file has timm's names already; check each")
    return parser


if __name__ == "__main__":
    sys.exit(main())
