"""Kidney CT from label maps: Pix2Pix, 512 px.

Choe et al., "Generative Adversarial Networks Based Data Augmentation to Address Medical Data Imbalances", name Pix2Pix
and 1333 drawn slices; networks and settings are those of Isola et al., with instance normalisation, which is what
batches of one make of theirs.

Command: python tools/train.py configs/kits_pix2pix/pix2pix_unet_1xb1_200e_kits19_512.py
Then: python tools/synthesize.py CONFIG CHECKPOINT --out data/kits19_drawn
Result: README.md here.
"""

from mmengine.config import read_base

from pathzoo.engine.distributed import AveragedGradients
from pathzoo.models import LabelToImage, PairPreprocessor, PatchDiscriminator, UnetGenerator

with read_base():
    from .._base_.datasets.ct_pairs import (
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
    from .._base_.schedules.pix2pix_200e import optim_wrapper, param_scheduler, test_cfg, train_cfg, val_cfg

model = dict(
    type=LabelToImage,
    data_preprocessor=dict(type=PairPreprocessor, n_classes=3, mean=[127.5], std=[127.5]),
    # (N, 1, 512, 512) of 0..255 and labels -> one-hot (N, 3, 512, 512) and picture (N, 1, 512, 512) in -1..1
    generator=dict(
        type=UnetGenerator,
        in_channels=3,
        out_channels=1,
        num_down=8,  # to (N, 512, 2, 2) and back
        base_channels=64,
        norm_cfg=dict(type="IN"),
        use_dropout=True,
    ),  # -> (N, 1, 512, 512)
    discriminator=dict(
        type=PatchDiscriminator, in_channels=4, base_channels=64, num_conv=3, norm_cfg=dict(type="IN")
    ),  # (N, 4, 512, 512) -> (N, 1, 62, 62): a verdict on each patch of 70 px
    pixel_loss_weight=100.0,
)
model_wrapper_cfg = dict(type=AveragedGradients)  # where several processes train
model_input = dict(tile_size=(512, 512), mpp=None, channels="grey", resize=dict(kind="short_side", size=512))
study = "kits_pix2pix"
task = "translation"
