"""Glomeruli by YOLOv5 XL from COCO weights: the study's own second model.

Jung et al., "Glomerular Detection for Diagnosis of Lupus Nephritis using Deep Learning", states: YOLOv5 Large and
XLarge, pretrained weights, tiles of 1600 x 1200 px that share a third, 4:1 by slide, nobody to validate on. Chosen
here, since not stated: weights of COCO, 0.5 um per pixel (a glomerulus of 200 um is 400 px), epochs, rates, decay and
average of release 7.0 (see the schedule), 8 tiles a step, augmentation; 4:1 by patient, with a fifth of the larger
part to validate on.

The weights are yours to bring, under their own licence (AGPL-3.0): tools/analysis_tools/convert_yolov5.py --how, then
convert_yolov5.py yolov5x_state.pth data/yolov5x_coco.pth. What of their head is for 80 classes is left out, and the
log names it; the boxes' anchors stay.

8 tiles keep 48 GiB of maps for the gradient in float32, about half with --amp: counted, not measured. With less memory,
at the same rate:

    train_dataloader.batch_size=2 optim_wrapper.optimizer.weight_decay=1.5625e-5 optim_wrapper.clip_grad.max_norm=2.5
    custom_hooks.2.momentum=3.125e-6 custom_hooks.2.gamma=64000

Command: python tools/train.py configs/glomerulus_yolov5/yolov5x_1xb8_300e_glomeruli_1600x1200.py --amp
Result: README.md here.
"""

from mmdet.models.layers import ExpMomentumEMA
from mmengine.config import read_base
from mmengine.hooks import EMAHook

with read_base():
    from .._base_.datasets.glomeruli import (
        parameters,
        test_dataloader,
        test_evaluator,
        train_dataloader,
        val_dataloader,
        val_evaluator,
    )
    from .._base_.default_runtime import (
        custom_hooks,
        default_hooks,
        default_scope,
        env_cfg,
        log_level,
        log_processor,
        randomness,
        resume,
        runner_type,
    )
    from .._base_.models.yolov5_x import model
    from .._base_.schedules.detection_300e import (
        optim_wrapper,
        param_scheduler,
        test_cfg,
        train_cfg,
        val_cfg,
    )

# (N, 3, 1216, 1600) -> maps (N, 320, 152, 200), (N, 640, 76, 100), (N, 1280, 38, 50)
# -> 3 anchors a cell, 6 numbers each
load_from = "data/yolov5x_coco.pth"  # None trains from scratch, which is no arm of the study
model_input = dict(tile_size=(1600, 1216), mpp=0.5, mpp_tolerance=0.1, resize=dict(kind="mpp"))
default_hooks.update(checkpoint=dict(**default_hooks["checkpoint"], save_best="ap", rule="greater"))
custom_hooks = [
    *custom_hooks,
    # The release's 1e-4 and 2000 are for steps of 64 tiles.
    dict(type=EMAHook, ema_type=ExpMomentumEMA, momentum=1.25e-5, gamma=16000, update_buffers=True),
]
study = "glomerulus_yolov5"
task = "detection"
