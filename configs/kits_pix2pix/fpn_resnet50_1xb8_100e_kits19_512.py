"""Kidney and tumour in CT slices: FPN with an encoder from ImageNet.

Choe et al., "Generative Adversarial Networks Based Data Augmentation to Address Medical Data Imbalances". The encoder
is not stated; ResNet-50 is ours. Its first convolution is added up over red, green and blue: a slice is grey.

Scenarios 1 to 4: nothing, `augment=1.0`, `synthetic=FOLDER`, both.
Command: python tools/train.py configs/kits_pix2pix/fpn_resnet50_1xb8_100e_kits19_512.py --cfg-options data_root=STORE
Result: README.md here.
"""

from mmengine.config import read_base
from mmseg.models import FPN, EncoderDecoder, FPNHead, SegDataPreProcessor
from torch.nn import BatchNorm2d

from pathzoo.models import DiceLoss, PixelCrossEntropy, TimmBackbone

with read_base():
    from .._base_.datasets.ct_slices import (
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
    from .._base_.schedules.ct_100e import (
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
        size=(512, 512),
        pad_val=0,
        seg_pad_val=255,
    ),  # (N, 1, 512, 512) float of 0..255 in the window -> -1..1
    backbone=dict(
        type=TimmBackbone,
        name="resnet50",
        in_channels=1,
        pretrained="imagenet",  # or a file with timm's key names: --cfg-options parent=FILE
        out_indices=(1, 2, 3, 4),
    ),  # -> (N, 256, 128, 128), (N, 512, 64, 64), (N, 1024, 32, 32), (N, 2048, 16, 16)
    neck=dict(
        type=FPN,
        in_channels=[256, 512, 1024, 2048],
        out_channels=256,
        num_outs=4,
    ),  # -> (N, 256, 128, 128), (N, 256, 64, 64), (N, 256, 32, 32), (N, 256, 16, 16)
    decode_head=dict(
        type=FPNHead,
        in_channels=[256, 256, 256, 256],
        in_index=[0, 1, 2, 3],
        feature_strides=[4, 8, 16, 32],
        channels=128,
        dropout_ratio=0.0,
        num_classes=3,
        norm_cfg=dict(type=BatchNorm2d),
        align_corners=False,
        loss_decode=[
            dict(type=PixelCrossEntropy, loss_name="loss_ce", loss_weight=1.0),
            dict(type=DiceLoss, loss_name="loss_dice", loss_weight=0.0),  # dice_weight=1.0 adds it
        ],
    ),  # -> (N, 3, 128, 128), which mmseg enlarges to (N, 3, 512, 512)
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
# Its HU window is that of the test pipeline.
model_input = dict(
    tile_size=(512, 512), mpp=None, channels="grey", resize=dict(kind="short_side", size=512, pad_value=0)
)
default_hooks.update(checkpoint=dict(**default_hooks["checkpoint"], save_best="slice_iou", rule="greater"))
parameters.update(dice_weight=["model.decode_head.loss_decode.1.loss_weight"], parent=["model.backbone.pretrained"])
study = "kits_pix2pix"
task = "segmentation"
