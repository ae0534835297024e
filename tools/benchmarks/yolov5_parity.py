"""Whether our YOLOv5 answers as the package yolov5 (release 7.0) does: the same weights, the same pictures.

    python tools/benchmarks/yolov5_parity.py --peer-python PEERS/bin/python [--sizes n s] [--markdown FILE]

Compared are the maps before the sigmoid, decoded boxes and scores, also with normalisation folded into the convolutions
as a published model has it; a state dict there and back; and the loss with its gradient. The package is called, never
read. It runs where `--peer-python` names an interpreter that has it:

    uv venv peers && uv pip install --python peers/bin/python yolov5==7.0.14 "setuptools<81" torch torchvision
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from measuring import Table, publish
from torch import Tensor, nn

from pathzoo.errors import ConfigError, PathzooError
from pathzoo.models.backbones.yolov5_backbone import YOLOV5_SIZES, YOLOv5Backbone
from pathzoo.models.dense_heads.yolov5_boxes import COCO_ANCHORS, decode
from pathzoo.models.dense_heads.yolov5_loss import Objects, yolov5_loss
from pathzoo.models.layers import fuse_conv_bn
from pathzoo.models.necks import YOLOv5PAFPN
from pathzoo.models.yolov5_weights import Network, from_release, to_release

#: Numbers before the sigmoid may differ by this; decoded boxes, in pixels, by as much of the largest.
_TOLERANCE = 1e-4
_STRIDES, _BALANCE = (8, 16, 32), (4.0, 1.0, 0.4)


def main(argv: Sequence[str] | None = None) -> int:
    """Compares and prints; returns 0, 1 where they differ, or 2 for bad input."""
    arguments = _parser().parse_args(argv)
    try:
        peer = ask(arguments.peer_python, arguments.sizes)
    except PathzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    rows: list[tuple[str, str, float]] = []
    for size, found in peer["networks"].items():
        rows += [(f"YOLOv5{size}", what, value) for what, value in compare_network(found).items()]
    rows += [("loss", what, value) for what, value in compare_loss(peer["loss"]).items()]
    cells = [(of, what, f"{value:.3g}") for of, what, value in rows]
    table = Table(f"Ours against {peer['versions']}", ("", "compared", "largest difference"), cells)
    publish([table], f"Aim: {_TOLERANCE:g} at most. torch {torch.__version__}, one thread.", arguments.markdown)
    return int(not all(value <= _TOLERANCE for _, _, value in rows))


def ask(interpreter: str, sizes: Sequence[str]) -> dict[str, Any]:
    """What peer_yolov5_parity.py writes.

    Raises:
        ConfigError: The interpreter is not there, or lacks the package.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "peer.pth"
        script = str(Path(__file__).with_name("peer_yolov5_parity.py"))
        environment = {**os.environ, "YOLO_CONFIG_DIR": folder, "OMP_NUM_THREADS": "1"}
        command = [interpreter, script, "--out", str(out), "--sizes", *sizes]
        try:
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        except OSError as error:
            raise ConfigError(f"--peer-python {interpreter}: cannot be run ({error.strerror})") from error
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ConfigError(f"--peer-python {interpreter}: {last}; it has to have yolov5==7.0.14 and setuptools<81")
        found: dict[str, Any] = torch.load(out, weights_only=True)
    return found


class Net(nn.Module):
    """Backbone, neck and the head's convolutions, without mmdet: what is compared is the network alone."""

    def __init__(self, state: Mapping[str, Tensor], network: Network) -> None:
        super().__init__()
        deepen, widen = YOLOV5_SIZES[network.size]
        self.backbone = YOLOv5Backbone(deepen, widen)
        self.neck = YOLOv5PAFPN(self.backbone.channels, deepen)
        self.bbox_head = nn.Module()
        self.bbox_head.register_buffer("anchors", network.anchors.clone())
        outputs = network.anchors.shape[1] * (5 + network.num_classes)
        self.bbox_head.convs = nn.ModuleList(nn.Conv2d(c, outputs, 1) for c in self.backbone.channels)
        self.load_state_dict(dict(state))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Maps (N, A, H, W, 5 + C)."""
        levels = zip(self.bbox_head.convs, self.neck(self.backbone(image)), strict=True)
        count = self.bbox_head.anchors.shape[1]
        return [conv(level).unflatten(1, (count, -1)).permute(0, 1, 3, 4, 2) for conv, level in levels]


def compare_network(peer: Mapping[str, Any]) -> dict[str, float]:
    """What is compared -> the largest difference."""
    ours, network = from_release(peer["state"])
    again, _ = to_release(ours)
    net = Net(ours, network).eval()
    found: dict[str, float] = {"state dict, there and back": _largest(again.values(), map(peer["state"].get, again))}
    for words in ("", ", folded"):
        if words:
            fuse_conv_bn(net)
        with torch.no_grad():
            maps = net(peer["image"])
        levels = zip(maps, network.anchors, _STRIDES, strict=True)
        boxes = torch.cat([decode(raw, sides, stride).flatten(1, 3) for raw, sides, stride in levels], dim=1)
        scores = torch.cat([raw[..., 4:].sigmoid().flatten(1, 3) for raw in maps], dim=1)
        answers = peer["answers"]
        found[f"maps{words}"] = _largest(maps, peer["maps"])
        found[f"boxes, of the largest side{words}"] = _largest([boxes], [answers[..., :4]]) / float(answers.max())
        found[f"objectness and classes{words}"] = _largest([scores], [answers[..., 4:]])
    return found


def compare_loss(peer: Mapping[str, Any]) -> dict[str, float]:
    """The three parts with the peer's gains, the total of a batch, and the gradient by the maps."""
    maps = [raw.clone().requires_grad_() for raw in peer["maps"]]
    targets, size = peer["targets"], torch.tensor(peer["size"]).repeat(2)
    objects = Objects(targets[:, 0].long(), targets[:, 1].long(), targets[:, 2:] * size)
    none = Objects(*(values[:0] for values in objects))
    found = yolov5_loss(maps, objects, none, torch.tensor(COCO_ANCHORS).float(), _STRIDES, _BALANCE)
    parts = torch.stack([gain * part for gain, part in zip(peer["gains"], found, strict=True)])
    total = parts.sum() * len(maps[0])
    total.backward()
    return {
        "box, objectness, class": _largest([parts.detach()], [peer["parts"]]),
        "total": _largest([total.detach()], [peer["total"]]),
        "gradient by the maps": _largest([raw.grad for raw in maps], peer["grads"]),
    }


def _largest(ones: Any, others: Any) -> float:
    return max(float((one.double() - other.double()).abs().max()) for one, other in zip(ones, others, strict=True))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", required=True, help="an interpreter that has the package yolov5 7.0.14")
    parser.add_argument("--sizes", nargs="+", choices=list(YOLOV5_SIZES), default=["n", "s"])
    parser.add_argument("--markdown", type=Path, help="also write the table to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
