"""Our YOLOv5 at work, for yolov5_speed.py: a process that measures when it is asked to.

Inference is what `pathzoo predict` does with a batch of tiles: a folded network, asked by `pathzoo.zoo.predictors`.
Training is mmdet's detector with its preprocessor, as a config has it, without the Runner.
"""

import argparse
import copy
from pathlib import Path
from typing import Any

import torch
from arms import serve
from peer_yolov5_speed import CLASSES, MOST, OVERLAP, SCORE, parse, rounds, stepping

from pathzoo.apis.setup import setup

_MODELS = Path(__file__).parents[2] / "configs" / "_base_" / "models"


def main() -> None:
    """Serves the measurements until its input ends."""
    arguments = parse()
    setup()
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.benchmark = True
    given = torch.load(arguments.root / "given.pth", weights_only=True)
    network = make_network(given["state"], arguments.size).to(arguments.device)
    folded = copy.deepcopy(network)
    infer = inference(folded, arguments.device)
    tiles = given["pictures"].permute(0, 2, 3, 1).contiguous().numpy()  # (N, H, W, 3), as they come from a slide
    about = {"boxes": uncut(folded, given["pictures"].to(arguments.device)), "count": sum(map(len, infer(tiles)))}
    step = training_step(network, given, arguments)
    measured = rounds([tiles] * arguments.iterations, infer, step, arguments.device)
    serve(about | {"loss": step(tiles)}, measured)


def make_network(state: dict[str, torch.Tensor], size: str) -> Any:
    """Our config's network with the package's weights."""
    from mmengine.config import Config

    from pathzoo.models.yolov5_weights import from_release
    from pathzoo.registry import MODELS

    ours, found = from_release(state)
    config = Config.fromfile(_MODELS / f"yolov5_{size}.py").model
    config.bbox_head.update(num_classes=CLASSES, anchors=found.anchors.tolist())
    config.test_cfg.update(score_thr=SCORE, nms={"iou_threshold": OVERLAP}, max_per_img=MOST)
    network = MODELS.build(config)
    network.load_state_dict(ours)
    return network


def inference(network: Any, device: str) -> Any:
    """As `pathzoo.zoo.load.LoadedModel` asks a detector: uint8 (N, H, W, 3) -> boxes of each tile."""
    from pathzoo.models.layers import fuse_conv_bn
    from pathzoo.zoo.predictors import PREDICTORS

    fuse_conv_bn(network.eval())

    def infer(tiles: Any) -> Any:
        with torch.inference_mode():
            batch = torch.from_numpy(tiles).to(device).permute(0, 3, 1, 2)
            return PREDICTORS["detection"](network, batch, CLASSES).boxes

    return infer


@torch.inference_mode()
def uncut(network: Any, pictures: torch.Tensor) -> list[list[list[float]]]:
    """Boxes, score and class of each picture in the package's order of steps: suppressed first, cut at no edge.

    Ours are cut at the picture's edges before they are suppressed, so that of an object at the edge fewer stay.
    """
    from pathzoo.models.dense_heads.yolov5_candidates import candidates, suppress

    head = network.bbox_head
    [maps] = head(network.extract_feat(pictures.float() / 255))
    found = candidates(maps, head.anchors, head.strides, SCORE)
    table = torch.cat((found.box, found.score[:, None], found.label[:, None].float()), dim=1)
    answers = []
    for number in range(len(pictures)):
        own = table[found.image == number]
        answers.append(own[suppress(own[:, :4], own[:, 4], own[:, 5], OVERLAP, MOST)].tolist())
    return answers


def training_step(network: Any, given: dict[str, torch.Tensor], arguments: argparse.Namespace) -> Any:
    """A step on the same batch each time, as the Runner has it: a list of pictures, samples with objects."""
    samples = _samples(given["targets"], *arguments.side, arguments.batch_size)
    network.train()
    step = stepping(network, arguments.device, arguments.amp)

    def once(tiles: Any) -> float:
        def loss() -> torch.Tensor:
            pictures = [torch.from_numpy(tile).permute(2, 0, 1) for tile in tiles]
            data = network.data_preprocessor({"inputs": pictures, "data_samples": samples}, True)
            return network.parse_losses(network(**data, mode="loss"))[0]

        return step(loss)

    return once


def _samples(targets: torch.Tensor, width: int, height: int, count: int) -> list[Any]:
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData
    from torchvision.ops import box_convert

    samples = []
    for number in range(count):
        rows = targets[targets[:, 0] == number]
        boxes = box_convert(rows[:, 2:], "cxcywh", "xyxy") * torch.tensor([width, height, width, height])
        sample = DetDataSample(metainfo={"img_shape": (height, width), "ori_shape": (height, width)})
        sample.gt_instances = InstanceData(bboxes=boxes, labels=rows[:, 1].long())
        samples.append(sample)
    return samples


if __name__ == "__main__":
    main()
