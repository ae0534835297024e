"""Names of YOLOv5's tensors: those of a state dict of release 7.0 (`model.0.conv.weight` on) and ours, both ways.

The release numbers its layers: 0 to 9 are the backbone, 10 to 23 the neck (11, 12, 15, 16, 19 and 22 have no tensors),
24 the head. Tensors are the same, byte by byte, apart from the anchors, which the release keeps in cells and we in
pixels; strides are powers of two, so that nothing is lost either way. Releases 6.0 to 6.2 have the same network.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pathzoo.errors import CheckpointError
from pathzoo.models.backbones.yolov5_backbone import YOLOV5_SIZES, YOLOv5Backbone
from pathzoo.models.layers import scaled_channels, scaled_depth
from pathzoo.models.necks import YOLOv5PAFPN

_STRIDES = (8, 16, 32)
_STAGE = {"main": "cv1", "past": "cv2", "join": "cv3", "blocks": "m", "reduce": "cv1", "spread": "cv2"}
#: Part of ours -> (number of the release's layer, words of ours -> the release's).
_LAYERS: dict[str, tuple[int, dict[str, str]]] = {
    "backbone.stem": (0, {}),
    **{f"backbone.stages.{k}.0": (2 * k + 1, {}) for k in range(4)},
    **{f"backbone.stages.{k}.1": (2 * k + 2, _STAGE) for k in range(4)},
    "backbone.pooling": (9, {"reduce": "cv1", "join": "cv2"}),
    "neck.reduce_coarse": (10, {}),
    "neck.down_middle": (13, _STAGE),
    "neck.reduce_middle": (14, {}),
    "neck.down_fine": (17, _STAGE),
    "neck.shrink_fine": (18, {}),
    "neck.up_middle": (20, _STAGE),
    "neck.shrink_middle": (21, {}),
    "neck.up_coarse": (23, _STAGE),
    "bbox_head": (24, {"convs": "m"}),
}
_HEAD = "model.24"
#: Pattern of a name -> what has such names. The first that is found is named.
_OTHERS = {
    r"(backbone|neck|bbox_head)\..*": "a state dict with pathzoo's names already",
    r"(module|ema|model\.model)\..*": "a state dict of a wrapped model: dump the model itself",
    r"\d+\..*": "a state dict of the model's list of layers: dump the model itself, whose names begin with model.",
    r"model\.0\.conv\.conv\..*": "YOLOv5 of release 5.0 or before (Focus stem)",
    r"model\.\d+\.(dfl|cv[234]\.\d+\.\d+)\..*": "YOLOv8 or later, or YOLOv5u: a head without anchors and objectness",
    r"model\.\d+\.(proto)\..*": "YOLOv5's segmentation (-seg)",
    r"model\.\d+\.linear\..*": "YOLOv5's classification (-cls)",
    r"model\.\d+\.(ia|im)\..*": "YOLOR or YOLOv7: a head with implicit knowledge",
    r"model\.0\.conv\.bias": "a fused model (its normalisation is folded): dump it before fuse()",
    r"model\.33\.anchors": "a P6 model of YOLOv5 (n6, s6, m6, l6, x6: four levels)",
    r"model\.(?!24\.)\d+\.anchors": "another network of that family: its head does not stand at model.24",
}
#: How many names a message lists.
_NAMED = 3


class Network(NamedTuple):
    """What a state dict is of.

    Attributes:
        size: "n", "s", "m", "l" or "x".
        num_classes: C.
        anchors: (3, A, 2), width and height in pixels.
    """

    size: str
    num_classes: int
    anchors: Tensor


def from_release(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Network]:
    """The tensors under our names, as of mmdet's SingleStageDetector with our backbone, neck and head.

    Raises:
        CheckpointError: Not a detection model n, s, m, l or x of releases 6.0 to 7.0; the message says what it is, as
            far as names and shapes tell.
    """
    _refuse_others(state)
    anchors = state[f"{_HEAD}.anchors"]
    size, classes = _network(state, "model.0.conv", r"model\.2\.m\.(\d+)\.", f"{_HEAD}.m.0.bias", anchors.shape[1])
    wanted = shapes(size, classes, anchors.shape[1])
    names = {release_name(name): name for name in wanted}
    _check(state, {name: wanted[ours] for name, ours in names.items()}, f"YOLOv5{size} of release 7.0")
    found = {names[name]: value for name, value in state.items()}
    found["bbox_head.anchors"] = anchors * _strides(anchors)
    return found, Network(size, classes, found["bbox_head.anchors"])


def to_release(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Network]:
    """The opposite of `from_release`, tensor by tensor.

    Raises:
        CheckpointError: Not the tensors of a YOLOv5 n, s, m, l or x of ours.
    """
    for name in ("backbone.stem.conv.weight", "bbox_head.convs.0.bias", "bbox_head.anchors"):
        if name not in state:
            raise CheckpointError(f"{name} is not there: these are not the tensors of a YOLOv5 of ours")
    anchors, blocks = state["bbox_head.anchors"], r"backbone\.stages\.0\.1\.blocks\.(\d+)\."
    size, classes = _network(state, "backbone.stem.conv", blocks, "bbox_head.convs.0.bias", anchors.shape[1])
    _check(state, shapes(size, classes, anchors.shape[1]), f"pathzoo's YOLOv5{size}")
    found = {release_name(name): value for name, value in state.items()}
    found[f"{_HEAD}.anchors"] = anchors / _strides(anchors)
    return found, Network(size, classes, anchors)


def release_name(name: str) -> str:
    """The release's name of one of our tensors, e.g. model.2.m.0.cv1.conv.weight."""
    part = next(part for part in _LAYERS if name.startswith(part + "."))
    number, words = _LAYERS[part]
    rest = name.removeprefix(part + ".").split(".")
    return ".".join([f"model.{number}", *(words.get(word, word) for word in rest)])


def shapes(size: str, num_classes: int, anchors: int = 3) -> dict[str, tuple[int, ...]]:
    """Our names -> shapes, of the network of a size with `anchors` anchors in a cell."""
    deepen, widen = YOLOV5_SIZES[size]
    with torch.device("meta"):
        backbone = YOLOv5Backbone(deepen, widen)
        neck = YOLOv5PAFPN(backbone.channels, deepen)
        convs = nn.ModuleList(nn.Conv2d(channels, anchors * (5 + num_classes), 1) for channels in backbone.channels)
    parts = {"backbone": backbone, "neck": neck, "bbox_head.convs": convs}
    found = {
        f"{part}.{name}": tuple(value.shape)
        for part, module in parts.items()
        for name, value in module.state_dict().items()
    }
    return {**found, "bbox_head.anchors": (3, anchors, 2)}


def _strides(like: Tensor) -> Tensor:
    return torch.tensor(_STRIDES, dtype=like.dtype, device=like.device)[:, None, None]


def _refuse_others(state: Mapping[str, Tensor]) -> None:
    for pattern, what in _OTHERS.items():
        name = next((name for name in state if re.fullmatch(pattern, name)), None)
        if name is not None:
            raise CheckpointError(f"{name}: this is {what}; taken are YOLOv5 n, s, m, l and x of release 7.0")
    for name in ("model.0.conv.weight", "model.2.cv1.conv.weight", f"{_HEAD}.anchors", f"{_HEAD}.m.0.bias"):
        if name not in state:
            raise CheckpointError(
                f"{name} is not there: these are not the tensors of a detection model of YOLOv5, release 7.0"
            )
    stem = tuple(state["model.0.conv.weight"].shape)
    if stem[1:] != (3, 6, 6):
        raise CheckpointError(
            f"model.0.conv.weight is {stem}, not (width, 3, 6, 6): this is another version than release 7.0"
        )
    anchors = tuple(state[f"{_HEAD}.anchors"].shape)
    if len(anchors) != 3 or anchors[::2] != (3, 2):
        raise CheckpointError(f"{_HEAD}.anchors is {anchors}, not (3, anchors, 2): this is no model of three levels")


def _network(state: Mapping[str, Tensor], stem: str, blocks: str, bias: str, anchors: int) -> tuple[str, int]:
    """Size and number of classes by the stem's width, the first stage's bottlenecks and the head's outputs."""
    width = len(state[f"{stem}.weight"])
    depth = len({found[1] for name in state if (found := re.match(blocks, name))})
    known = {(scaled_channels(64, wide), scaled_depth(3, deep)): size for size, (deep, wide) in YOLOV5_SIZES.items()}
    if (width, depth) not in known:
        raise CheckpointError(
            f"{stem}: a stem of {width} channels with a first stage of {depth} bottlenecks is none of "
            f"{', '.join(f'{size} ({w}, {d})' for (w, d), size in known.items())}"
        )
    outputs = len(state[bias])
    if outputs % anchors or outputs // anchors < 6:
        raise CheckpointError(f"{bias}: {outputs} outputs are not 5 + classes for each of {anchors} anchors")
    return known[width, depth], outputs // anchors - 5


def _check(state: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], what: str) -> None:
    missing = [name for name in wanted if name not in state]
    others = [name for name in state if name not in wanted]
    if missing or others:
        raise CheckpointError(
            f"not the tensors of {what}: {len(missing)} missing{_first(missing)}, "
            f"{len(others)} too many{_first(others)}"
        )
    for name, shape in wanted.items():
        value = state[name]
        if tuple(value.shape) != shape:
            raise CheckpointError(f"{name} is {tuple(value.shape)}, not {shape} as in {what}")
        if value.dtype == torch.bfloat16:  # 373 pixels would be 372
            raise CheckpointError(f"{name} is of bfloat16, which rounds anchors; dump the model as .float()")


def _first(names: list[str]) -> str:
    return f" ({', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''})" if names else ""
