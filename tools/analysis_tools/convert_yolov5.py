"""Turns a state dict of YOLOv5 (release 7.0: n, s, m, l, x) into one for our configs (`load_from`), or back.

    python tools/analysis_tools/convert_yolov5.py --how
    python tools/analysis_tools/convert_yolov5.py yolov5s_state.pth yolov5s.pth
    python tools/analysis_tools/convert_yolov5.py --back work_dirs/RUN/best.pth yolov5s_state.pth

The release's own .pt files hold pickled code, which is never loaded here: `--how` prints the command that dumps the
tensors alone in an environment that has the release. Nothing is left out or made up: back and forth gives the same
tensors. Weights of that release, and models trained on from them, are under its own licence (AGPL-3.0).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from pathzoo.engine.checkpoint import load_checkpoint_safely
from pathzoo.errors import CheckpointError, ConfigError, PathzooError
from pathzoo.fileio import atomic_path
from pathzoo.models.yolov5_weights import Network, from_release, to_release

#: To be run where the release can be imported: unpickling a .pt file needs its code, and runs it.
HOW = (
    "python -c \"import torch; f = torch.load('yolov5s.pt', map_location='cpu', weights_only=False); "
    "torch.save((f.get('ema') or f['model']).float().state_dict(), 'yolov5s_state.pth')\""
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status (0, or 2 for bad input, with nothing written)."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.how:
        print(f"In the folder of release 7.0 (or where the package yolov5 is installed), with a file you trust:\n{HOW}")
        return 0
    if arguments.out is None:
        parser.error("name the file to read and the file to write, or --how")
    try:
        count, network = convert(arguments.file, arguments.out, arguments.back)
    except PathzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{arguments.out}: {count} tensors of YOLOv5{network.size}, {network.num_classes} classes")
    if not arguments.back:
        print(config_text(network))
    return 0


def convert(source: Path, out: Path, back: bool = False) -> tuple[int, Network]:
    """Writes `source`'s tensors under our names, or `back` under the release's.

    Args:
        source: A .pth file of tensors, alone or under `state_dict` (a checkpoint of a run).
        out: The .pth file to write: `state_dict` under that key for our configs, the bare dict for the release.
        back: From ours to the release's.

    Returns:
        How many tensors were written, and what they are of.

    Raises:
        ConfigError: `out` does not end in .pth.
        CheckpointError: `source` cannot be loaded safely, holds other things than tensors, or is of another version.
    """
    if out.suffix != ".pth":
        raise ConfigError(f"{out}: name a file that ends in .pth")
    checkpoint = load_checkpoint_safely(source)
    state = checkpoint.get("state_dict", checkpoint)
    inside = next((key for key, value in state.items() if isinstance(value, dict)), None)
    if inside is not None:
        raise CheckpointError(f"{source}: holds the tensors under {inside}, as it seems; save that entry alone")
    other = next((key for key, value in state.items() if not isinstance(value, torch.Tensor)), None)
    if other is not None:
        raise CheckpointError(f"{source}: {other} is no tensor; dump the state dict alone (--how prints the command)")
    wrong = next((name for name, value in state.items() if not torch.isfinite(value).all()), None)
    if wrong is not None:
        raise CheckpointError(f"{source}: {wrong} holds NaN or infinity: the training diverged; take another epoch")
    try:
        found, network = to_release(state) if back else from_release(state)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None
    with atomic_path(out) as temporary:
        torch.save(found if back else {"state_dict": found}, temporary)
    return len(found), network


def config_text(network: Network) -> str:
    """What a config has to say for these weights to fit."""
    anchors = [[[float(f"{side:g}") for side in pair] for pair in level] for level in network.anchors.tolist()]
    return (
        f"In the config: from .._base_.models.yolov5_{network.size} import model; "
        f"model.bbox_head.update(num_classes={network.num_classes}, anchors={anchors})"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, nargs="?", help="a .pth file that holds tensors only")
    parser.add_argument("out", type=Path, nargs="?", help="the .pth file to write")
    parser.add_argument("--back", action="store_true", help="from our names to the release's")
    parser.add_argument("--how", action="store_true", help="print the command that dumps a release's tensors")
    return parser


if __name__ == "__main__":
    sys.exit(main())
