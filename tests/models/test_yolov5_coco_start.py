"""The study's start: weights of YOLOv5 with 80 classes, converted, under a head of one class."""

import torch
from box_files import tiny_detection, write_squares

from pathzoo.apis.config import load_config
from pathzoo.apis.setup import setup
from pathzoo.apis.train import train
from pathzoo.engine.checkpoint import load_checkpoint_safely, state_dict_of
from pathzoo.models.yolov5_weights import from_release, to_release
from pathzoo.registry import MODELS

CONFIG = "glomerulus_yolov5/yolov5n_1xb8_40e_glomeruli_small.py"
HEAD = [f"bbox_head.convs.{level}.{part}" for level in range(3) for part in ("weight", "bias")]


def test_all_but_the_head_is_loaded_and_the_log_names_what_is_not(tmp_path):
    setup()
    torch.manual_seed(0)
    state = MODELS.build(load_config(CONFIG, {"model.bbox_head.num_classes": 80}).model).state_dict()
    converted, network = from_release(to_release(state)[0])
    assert network.num_classes == 80
    torch.save({"state_dict": converted}, tmp_path / "coco.pth")
    options = tiny_detection(write_squares(tmp_path / "tiles")) | {"load_from": str(tmp_path / "coco.pth")}
    folder = train(CONFIG, tmp_path / "run", options=options | {"optim_wrapper.optimizer.lr": 0.0})
    [told] = [line for line in next(folder.glob("*/*.log")).read_text().splitlines() if "are left out" in line]
    assert told.partition("coco.pth: 6 tensors")[2].partition(": ")[2].split(", ") == HEAD
    ended = state_dict_of(load_checkpoint_safely(folder / "epoch_1.pth"))
    for name, value in state.items():
        if name in HEAD:
            assert ended[name].shape[0] == 3 * 6 and ended[name].shape[1:] == value.shape[1:]
        elif name.endswith(
            ("conv.weight", "anchors")
        ):  # at a rate of 0; normalisation counts its pictures all the same
            torch.testing.assert_close(ended[name], value, rtol=0, atol=0)
