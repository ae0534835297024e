"""The package yolov5 (release 7.0) at work, for yolov5_speed.py: run by an interpreter that has the package.

Needs arms.py, which needs torch alone. The package is a black box that is called: its networks, its loss, its
suppression; fused for inference, as its own detection does. With --make it writes what both sides are given.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from arms import serve, training

#: Of both sides: boxes of a higher score are answered, of those that overlap by more the best stays, so many at most.
SCORE, OVERLAP, MOST = 0.25, 0.45, 300
CLASSES, OBJECTS, CANDIDATES = 2, 3, 300
_RATE, _MOMENTUM = 1e-5, 0.937


def main() -> None:
    """Writes the file of both sides, or serves the measurements until its input ends."""
    arguments = parse()
    import yolov5
    from yolov5.models.yolo import DetectionModel

    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.benchmark = True
    root = Path(yolov5.__file__).parent
    network = DetectionModel(str(root / "models" / f"yolov5{arguments.size}.yaml"), nc=CLASSES)
    if arguments.make:
        torch.save(make(network, arguments), arguments.root / "given.pth")
        return
    given = torch.load(arguments.root / "given.pth", weights_only=True)
    network.load_state_dict(given["state"])
    network = network.to(arguments.device)
    pictures = given["pictures"]
    infer = inference(network, arguments.device)
    boxes = [found.tolist() for found in infer(pictures)]
    step = training_step(given, root, arguments)
    about = {"version": f"yolov5 {yolov5.__version__}", "boxes": boxes, "loss": step(pictures)}
    counted = rounds([pictures] * arguments.iterations, infer, step, arguments.device)
    serve(about, counted)


def make(network: Any, arguments: argparse.Namespace) -> dict[str, torch.Tensor]:
    """Weights by chance, pictures uint8 (N, 3, H, W), objects (T, 6): image, class, centre and size as shares.

    Normalisation is given the statistics of the pictures, and objectness such a bias that CANDIDATES cells of a picture
    have a score above SCORE: the network then answers as a trained one does on a picture with much to be found.
    """
    width, height = arguments.side
    coarse = torch.rand(arguments.batch_size, 3, height // 8, width // 8)
    pictures = torch.nn.functional.interpolate(coarse, scale_factor=8, mode="bilinear").mul(255).byte()
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.reset_running_stats()
            part.momentum = None  # the statistics are those of this one batch
            part.weight.data.uniform_(0.5, 1.5)
    with torch.no_grad():
        network.train()(pictures.float() / 255)
        maps = network.eval()(pictures.float() / 255)[1]
    state, least = network.state_dict(), torch.logit(torch.tensor(2 * SCORE))  # a class of two takes away a half
    heads = [
        [state[f"model.24.m.{k}.{name}"].view(3, 5 + CLASSES, -1) for name in ("weight", "bias")] for k in range(3)
    ]
    raised = [raw[..., 4] - bias[:, 4, :, None] for raw, (_, bias) in zip(maps, heads, strict=True)]
    objectness = torch.cat([values.flatten() for values in raised])
    gain = 1 / objectness.std()
    shift = least - gain * objectness.sort(descending=True).values[CANDIDATES * len(pictures)]
    for weight, bias in heads:
        weight[:, 4] *= gain
        bias[:, 4], bias[:, 5:] = shift, 0.0
    rows = [
        [image, (image + k) % CLASSES, x, y, 0.15 + 0.05 * k, 0.2]
        for image in range(len(pictures))
        for k, (x, y) in enumerate(((0.21, 0.23), (0.73, 0.31), (0.43, 0.74))[:OBJECTS])
    ]
    return {"state": dict(state), "pictures": pictures, "targets": torch.tensor(rows)}


def inference(network: Any, device: str) -> Any:
    """The package's way: a fused network in eval mode, then its own suppression."""
    import copy

    from yolov5.utils.general import non_max_suppression

    fused = copy.deepcopy(network).eval().fuse()

    def infer(pictures: torch.Tensor) -> list[torch.Tensor]:
        with torch.inference_mode():
            answers = fused(pictures.to(device).float() / 255)
            found = non_max_suppression(answers, conf_thres=SCORE, iou_thres=OVERLAP, max_det=MOST)
            return [boxes.cpu() for boxes in found]

    return infer


def training_step(given: dict[str, torch.Tensor], root: Path, arguments: argparse.Namespace) -> Any:
    """A step on the same batch each time; gains scaled to picture, classes and levels as its documentation says."""
    import yaml
    from yolov5.models.yolo import DetectionModel
    from yolov5.utils.loss import ComputeLoss

    network = DetectionModel(str(root / "models" / f"yolov5{arguments.size}.yaml"), nc=CLASSES)
    network.load_state_dict(given["state"])
    network = network.to(arguments.device).train()
    network.hyp = yaml.safe_load((root / "data" / "hyps" / "hyp.scratch-low.yaml").read_text())
    network.hyp["cls"] *= CLASSES / 80
    network.hyp["obj"] *= (max(arguments.side) / 640) ** 2
    criterion, targets = ComputeLoss(network), given["targets"].to(arguments.device)
    step = stepping(network, arguments.device, arguments.amp)

    def once(pictures: torch.Tensor) -> float:
        return step(lambda: criterion(network(pictures.to(arguments.device).float() / 255), targets)[0].sum())

    return once


def stepping(network: torch.nn.Module, device: str, amp: int) -> Any:
    """Forward by the function given, backward, SGD: what both sides do with their own loss. Returns the loss."""
    optimizer = torch.optim.SGD(network.parameters(), lr=_RATE, momentum=_MOMENTUM, nesterov=True)
    kind = "cuda" if device.startswith("cuda") else "cpu"
    scaler = torch.amp.GradScaler(kind, enabled=bool(amp) and kind == "cuda")

    def step(loss_of: Any) -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(kind, dtype=torch.float16 if kind == "cuda" else torch.bfloat16, enabled=bool(amp)):
            loss = loss_of()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return float(loss.detach())

    return step


def rounds(batches: Sequence[Any], infer: Any, step: Any, device: str) -> dict[str, Any]:
    """What is measured: pictures per second of inference and of training."""

    def counted(call: Any) -> Any:
        def once(batch: Any) -> int:
            call(batch)
            return len(batch)

        return once

    kind = "cuda" if device.startswith("cuda") else "cpu"
    return {"infer": training(batches, counted(infer), kind), "train": training(batches, counted(step), kind)}


def parse() -> argparse.Namespace:
    """The arguments that both sides take."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--make", action="store_true")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--size", required=True)
    parser.add_argument("--side", type=int, nargs=2, required=True)
    parser.add_argument("--device", required=True)
    for name in ("batch-size", "iterations", "threads", "amp"):
        parser.add_argument(f"--{name}", type=int, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
