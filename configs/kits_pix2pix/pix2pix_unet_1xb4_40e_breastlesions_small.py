"""Breast lesions from label maps: a narrow Pix2Pix for two cores, 64 px of H&E.

So that a rare class of breast lesions is augmented as the tumours of study 5 are; networks of Isola et al. with a
quarter of the channels.

Command: python tools/train.py configs/kits_pix2pix/pix2pix_unet_1xb4_40e_breastlesions_small.py \\
    --cfg-options data_root=REGIONS
Then: python tools/synthesize.py CONFIG CHECKPOINT --out DRAWN --classes malignant --cfg-options data_root=REGIONS
Result: README.md here.
"""

from mmengine.config import read_base

from pathzoo.engine.distributed import AveragedGradients
from pathzoo.models import LabelToImage, PairPreprocessor, PatchDiscriminator, UnetGenerator

with read_base():
    from .._base_.datasets.breast_pairs_small import (
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
    from .._base_.schedules.pix2pix_small_40e import optim_wrapper, param_scheduler, test_cfg, train_cfg, val_cfg

model = dict(
    type=LabelToImage,
    data_preprocessor=dict(type=PairPreprocessor, n_classes=3, mean=[127.5] * 3, std=[127.5] * 3),
    # (N, 3, 64, 64) RGB of 0..255 and labels -> one-hot (N, 3, 64, 64) and picture (N, 3, 64, 64) in -1..1
    generator=dict(
        type=UnetGenerator,
        in_channels=3,  # classes
        out_channels=3,
        num_down=5,  # to (N, 128, 2, 2) and back
        base_channels=16,
        norm_cfg=dict(type="IN"),
        use_dropout=True,
    ),  # -> (N, 3, 64, 64)
    discriminator=dict(
        type=PatchDiscriminator, in_channels=6, base_channels=16, num_conv=3, norm_cfg=dict(type="IN")
    ),  # (N, 6, 64, 64) -> (N, 1, 6, 6)
    pixel_loss_weight=100.0,
)
model_wrapper_cfg = dict(type=AveragedGradients)  # where several processes train
model_input = dict(tile_size=(64, 64), mpp=2.0, mpp_tolerance=0.1, channels="RGB", resize=dict(kind="mpp"))
study = "kits_pix2pix"
task = "translation"
