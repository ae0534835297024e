"""Glomeruli by RTMDet M from COCO weights: a peer of the study's models, on their tiles.

The study has no such arm. Tiles, augmentation and steps are those of YOLOv5 L here; optimizer, its course and the loss
are RTMDet's own (Lyu et al., arXiv:2212.07784).

Its weights (mmdet's rtmdet_m_8xb32-300e_coco, Apache-2.0) are yours to bring, and learnt blue before red. This brings
them to RGB and leaves the pickled rest behind, where you trust the file, as it unpickles:

    python -c "import torch; s = torch.load('rtmdet_m.pth', map_location='cpu', weights_only=False)['state_dict'];
    k = 'backbone.stem.0.conv.weight'; s[k] = s[k].flip(1); torch.save({'state_dict': s}, 'data/rtmdet-m_coco.pth')"

Of their head the scores of 80 classes are left out, and the log names them.

8 tiles keep 30 GiB of maps for the gradient in float32, about half with --amp: counted, not measured. With less memory:
train_dataloader.batch_size=2, and half the rate.

Command: python tools/train.py configs/glomerulus_yolov5/rtmdet-m_1xb8_300e_glomeruli_1600x1200.py --amp
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
    from .._base_.models.rtmdet_m import model
    from .._base_.schedules.detection_adamw_300e import (
        auto_scale_lr,
        optim_wrapper,
        param_scheduler,
        test_cfg,
        train_cfg,
        val_cfg,
    )

# (N, 3, 1216, 1600) -> maps (N, 192, 152, 200), (N, 192, 76, 100), (N, 192, 38, 50) -> a score and 4 distances
load_from = "data/rtmdet-m_coco.pth"  # None trains from scratch
model_input = dict(tile_size=(1600, 1216), mpp=0.5, mpp_tolerance=0.1, resize=dict(kind="mpp"))
default_hooks.update(checkpoint=dict(**default_hooks["checkpoint"], save_best="ap", rule="greater"))
custom_hooks = [
    *custom_hooks,
    dict(type=EMAHook, ema_type=ExpMomentumEMA, momentum=2e-4, gamma=2000, update_buffers=True),
]
study = "glomerulus_yolov5"
task = "detection"
