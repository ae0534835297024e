"""Kidney and tumour in CT slices: FPN for two cores.

Choe et al., "Generative Adversarial Networks Based Data Augmentation to Address Medical Data Imbalances". Small: slices
of 128 px, EfficientNet-Lite0 from scratch, or from weights of ImageNet where a file of them is at hand.

Scenarios 1 to 4: nothing, `augment=1.0`, `synthetic=FOLDER`, both.
Command: python tools/train.py configs/kits_pix2pix/fpn_efficientnet-lite0_1xb8_30e_ctslices_small.py \
    --cfg-options data_root=STORE
Result: README.md here.
"""

from mmengine.config import read_base
from mmseg.models import FPN, EncoderDecoder, FPNHead, SegDataPreProcessor
from torch.nn import BatchNorm2d

from pathzoo.models import DiceLoss, PixelCrossEntropy, TimmBackbone

with read_base():
    from .._base_.datasets.ct_slices_small import (
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
        load_from,
        log_level,
        log_processor,
        randomness,
        resume,
        runner_type,
    )
    from .._base_.schedules.ct_small_30e import (
        auto_scale_lr,
        optim_wrapper,
        param_scheduler,
        test_cfg,
        train_cfg,
        val_cfg,
    )

model = dict(
    type=EncoderDecoder,
    data_preprocessor=dict(
        type=SegDataPreProcessor,
        mean=[127.5],
        std=[127.5],
        bgr_to_rgb=False,
        size=(128, 128),
        pad_val=0,
        seg_pad_val=255,
    ),  # (N, 1, 128, 128) float of 0..255 in the window -> -1..1
    backbone=dict(
        type=TimmBackbone,
        name="efficientnet_lite0",
        in_channels=1,
        pretrained=None,  # a file with timm's key names: --cfg-options parent=FILE
        out_indices=(1, 2, 3, 4),
    ),  # -> (N, 24, 32, 32), (N, 40, 16, 16), (N, 112, 8, 8), (N, 320, 4, 4)
    neck=dict(
        type=FPN,
        in_channels=[24, 40, 112, 320],
        out_channels=64,
        num_outs=4,
    ),  # -> (N, 64, 32, 32), (N, 64, 16, 16), (N, 64, 8, 8), (N, 64, 4, 4)
    decode_head=dict(
        type=FPNHead,
        in_channels=[64, 64, 64, 64],
        in_index=[0, 1, 2, 3],
        feature_strides=[4, 8, 16, 32],
        channels=64,
        dropout_ratio=0.0,
        num_classes=3,
        norm_cfg=dict(type=BatchNorm2d),
        align_corners=False,
        loss_decode=[
            dict(type=PixelCrossEntropy, loss_name="loss_ce", loss_weight=1.0),
            # Of a phantom's pixels 1.6 % are kidney and 0.2 % tumour: Dice weighs classes alike; dice_weight sets it.
            dict(type=DiceLoss, loss_name="loss_dice", loss_weight=1.0),
        ],
    ),  # -> (N, 3, 32, 32), which mmseg enlarges to (N, 3, 128, 128)
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
# Its HU window is that of the test pipeline.
model_input = dict(
    tile_size=(128, 128), mpp=None, channels="grey", resize=dict(kind="short_side", size=128, pad_value=0)
)
default_hooks.update(checkpoint=dict(**default_hooks["checkpoint"], save_best="slice_iou", rule="greater"))
parameters.update(dice_weight=["model.decode_head.loss_decode.1.loss_weight"], parent=["model.backbone.pretrained"])
study = "kits_pix2pix"
task = "segmentation"
