"""Tiles without labels, two views of each. Small: views of 48 px at 1 um per pixel for two cores.

Slides need `tiles_per_epoch=N`. `held_out=splits.json` refuses what the later task keeps for validation and testing.
"""

from mmengine.dataset import DefaultSampler, default_collate
from mmpretrain.datasets.transforms import PackInputs

from pathzoo.datasets.sampling import SeededSampler
from pathzoo.datasets.transforms import HistologyViews
from pathzoo.datasets.unlabelled import UnlabelledTiles
from pathzoo.evaluation.metrics import PretextMetric

_meta_keys = ("item", "img_path", "patient", "slide", "sample_idx", "ori_shape", "img_shape")
_dataset = dict(
    type=UnlabelledTiles,
    source="work_dirs/phantom_tiles/kidney",
    size=60,  # the longest crop of the views below
    mpp=1.0,
    tiles_per_epoch=None,
    val_share=0.1,
    split_seed=0,
    held_out=None,
    on_bad_image="error",
)
_pipeline = [
    dict(type=HistologyViews, size=48, n_views=2, zoom=(0.8, 1.25)),
    dict(type=PackInputs, meta_keys=_meta_keys),
]
_loader = dict(num_workers=0, collate_fn=dict(type=default_collate))

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
# `--cfg-options source=DIR` reaches every place that stands here.
parameters = dict(
    source=[f"{_part}_dataloader.dataset.source" for _part in ("train", "val")],
    mpp=["model_input.mpp", *(f"{_part}_dataloader.dataset.mpp" for _part in ("train", "val"))],
    tiles_per_epoch=[f"{_part}_dataloader.dataset.tiles_per_epoch" for _part in ("train", "val")],
    held_out=[f"{_part}_dataloader.dataset.held_out" for _part in ("train", "val")],
    split_seed=[f"{_part}_dataloader.dataset.split_seed" for _part in ("train", "val")],
    on_bad_image=[f"{_part}_dataloader.dataset.on_bad_image" for _part in ("train", "val")],
    samples_per_epoch=["train_dataloader.sampler.samples_per_epoch"],
    parent=["model.backbone.pretrained"],
    seed=["randomness.seed", "train_dataloader.dataset.seed"],
)
