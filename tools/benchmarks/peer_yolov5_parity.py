"""What the package yolov5 (release 7.0) answers, for yolov5_parity.py: run by an interpreter that has the package.

The package is a black box that is called: its networks with random weights, and its loss on random maps.
"""

import argparse
from pathlib import Path

import torch
import yaml

_STRIDES, _CLASSES = (8, 16, 32), 3


def main() -> None:
    """Writes a file of tensors and plain data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sizes", nargs="+", required=True)
    arguments = parser.parse_args()
    import yolov5

    torch.set_num_threads(1)
    root = Path(yolov5.__file__).parent
    networks = {size: network(root / "models" / f"yolov5{size}.yaml") for size in arguments.sizes}
    versions = f"yolov5 {yolov5.__version__}, torch {torch.__version__}"
    torch.save({"versions": versions, "networks": networks, "loss": loss(root)}, arguments.out)


def network(description: Path) -> dict:
    """State dict, pictures (2, 3, 96, 128), maps before the sigmoid and decoded answers of a network by chance."""
    from yolov5.models.yolo import DetectionModel

    torch.manual_seed(0)
    model = DetectionModel(str(description))
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            for value in (part.weight.data, part.running_var):
                value.uniform_(0.5, 1.5)
            for value in (part.bias.data, part.running_mean):
                value.uniform_(-0.5, 0.5)
    image = torch.rand(2, 3, 96, 128)
    with torch.no_grad():
        answers, maps = model.eval()(image)[:2]
    return {"state": dict(model.state_dict()), "image": image, "maps": list(maps), "answers": answers}


def loss(root: Path) -> dict:
    """The loss of maps by chance of pictures of 224 x 160 px with three objects each, and its gradient by the maps.

    Objects lie apart, so that none meet in one cell: there the release and ours choose by different rules.
    """
    from yolov5.models.yolo import DetectionModel
    from yolov5.utils.loss import ComputeLoss

    torch.manual_seed(1)
    model = DetectionModel(str(root / "models" / "yolov5n.yaml"), nc=_CLASSES).train()
    model.hyp = yaml.safe_load((root / "data" / "hyps" / "hyp.scratch-low.yaml").read_text())
    gains = [float(model.hyp[name]) for name in ("box", "obj", "cls")]
    maps = [torch.randn(4, 3, 160 // s, 224 // s, 5 + _CLASSES, requires_grad=True) for s in _STRIDES]
    rows = []
    for image in range(4):
        for k, (x, y) in enumerate(((0.2, 0.25), (0.75, 0.3), (0.45, 0.75))):
            shift, sides = (torch.rand(2) - 0.5) * 0.1, torch.rand(2) * 0.25 + 0.06
            rows.append([image, (image + k) % _CLASSES, x + float(shift[0]), y + float(shift[1]), *sides.tolist()])
    targets = torch.tensor(rows)
    total, parts = ComputeLoss(model)(maps, targets)
    total.sum().backward()
    grads = [raw.grad for raw in maps]
    found = {"total": total.detach().sum(), "parts": parts, "grads": grads, "gains": gains}
    return {**found, "maps": [raw.detach() for raw in maps], "targets": targets, "size": (224, 160)}


if __name__ == "__main__":
    main()
