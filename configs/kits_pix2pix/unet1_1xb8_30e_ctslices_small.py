"""Kidney and tumour in CT slices: U-Net1 for two cores (0.45 M parameters).

Choe et al., "Generative Adversarial Networks Based Data Augmentation to Address Medical Data Imbalances". Small: slices
of 128 px, 8 channels at first.

Scenarios 1 to 4: nothing, `augment=1.0`, `synthetic=FOLDER`, both.
Command: python tools/train.py configs/kits_pix2pix/unet1_1xb8_30e_ctslices_small.py --cfg-options data_root=STORE
Result: README.md here.
"""

from mmengine.config import read_base
from mmseg.models import EncoderDecoder, FCNHead, SegDataPreProcessor, UNet
from mmseg.models.backbones.unet import InterpConv
from torch.nn import BatchNorm2d

from pathzoo.models import DiceLoss, PixelCrossEntropy

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
        type=UNet,
        in_channels=1,
        base_channels=8,
        num_stages=5,
        norm_cfg=dict(type=BatchNorm2d),
        upsample_cfg=dict(type=InterpConv),
    ),  # -> (N, 128, 8, 8), (N, 64, 16, 16), (N, 32, 32, 32), (N, 16, 64, 64), (N, 8, 128, 128)
    decode_head=dict(
        type=FCNHead,
        in_channels=8,
        in_index=4,
        channels=8,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.0,
        num_classes=3,
        norm_cfg=dict(type=BatchNorm2d),
        align_corners=False,
        init_cfg=None,  # torch's own; by mmseg's, a deviation of 0.01, 8 channels made background alone for 320 steps
        loss_decode=[
            dict(type=PixelCrossEntropy, loss_name="loss_ce", loss_weight=1.0),
            # Of a phantom's pixels 1.6 % are kidney and 0.2 % tumour: Dice weighs classes alike; dice_weight sets it.
            dict(type=DiceLoss, loss_name="loss_dice", loss_weight=1.0),
        ],
    ),  # -> (N, 3, 128, 128)
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
# Its HU window is that of the test pipeline.
model_input = dict(
    tile_size=(128, 128), mpp=None, channels="grey", resize=dict(kind="short_side", size=128, pad_value=0)
)
default_hooks.update(checkpoint=dict(**default_hooks["checkpoint"], save_best="slice_iou", rule="greater"))
parameters.update(dice_weight=["model.decode_head.loss_decode.1.loss_weight"])
study = "kits_pix2pix"
task = "segmentation"
