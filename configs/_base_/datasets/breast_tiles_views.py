"""Breast tiles as pretext data, two views of each: the training part of what is classified later.

`label_fraction` below 1 takes only what keeps its label, as in the study; 1.0 is what one would do.
"""

from mmengine.dataset import DefaultSampler, default_collate
from mmpretrain.datasets.transforms import PackInputs

from pathzoo.datasets.breast_tiles import BreastTiles
from pathzoo.datasets.sampling import SeededSampler
from pathzoo.datasets.transforms import HistologyViews, LoadTile, ResizeToMpp
from pathzoo.evaluation.metrics import PretextMetric

_meta_keys = ("item", "img_path", "patient", "slide", "sample_idx", "ori_shape", "img_shape")
_dataset = dict(
    type=BreastTiles,
    data_root="data/breast_tiles",
    ann_file="tiles.csv",
    split=dict(
        scheme="patient_ratio",
        ratios=dict(train=0.64, val=0.16, test=0.2),  # what is not tested is split 8:2, as in the study
        seed=0,
        label_fraction=1.0,
        val_label_fraction=1.0,
        label_balance="equal",
        label_grouping="image",
    ),
    on_bad_image="error",
)
_pipeline = [
    dict(type=LoadTile),
    dict(type=ResizeToMpp, mpp=0.5, tolerance=0.0),
    dict(type=HistologyViews, size=176, n_views=2, zoom=(0.8, 1.25)),
    dict(type=PackInputs, meta_keys=_meta_keys),
]
_loader = dict(num_workers=4, persistent_workers=True, collate_fn=dict(type=default_collate))

train_dataloader = dict(
    **_loader,
    batch_size=64,
    drop_last=True,  # NT-Xent of a smaller batch would be another task
    sampler=dict(type=SeededSampler, shuffle=True, samples_per_epoch=None),
    dataset=dict(**_dataset, subset="train", seed=0, pipeline=_pipeline),
)
val_dataloader = dict(
    **_loader,
    batch_size=64,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(**_dataset, subset="val", pipeline=_pipeline),
)
test_dataloader = None
val_evaluator = dict(type=PretextMetric)
test_evaluator = None
# `--cfg-options split_seed=3` reaches every place that stands here.
parameters = dict(
    mpp=["model_input.mpp", *(f"{_part}_dataloader.dataset.pipeline.1.mpp" for _part in ("train", "val"))],
    ann_file=[f"{_part}_dataloader.dataset.ann_file" for _part in ("train", "val")],
    data_root=[f"{_part}_dataloader.dataset.data_root" for _part in ("train", "val")],
    # Of validation too: who has few labels has few to choose an epoch by.
    label_fraction=[
        f"{_part}_dataloader.dataset.split.{_key}"
        for _part in ("train", "val")
        for _key in ("label_fraction", "val_label_fraction")
    ],
    split_seed=[f"{_part}_dataloader.dataset.split.seed" for _part in ("train", "val")],
    split=[f"{_part}_dataloader.dataset.split" for _part in ("train", "val")],
    on_bad_image=[f"{_part}_dataloader.dataset.on_bad_image" for _part in ("train", "val")],
    samples_per_epoch=["train_dataloader.sampler.samples_per_epoch"],
    parent=["model.backbone.pretrained"],
    seed=["randomness.seed", "train_dataloader.dataset.seed"],
)
