"""Axial CT slices with kidney and tumour labels out of a store (tools/dataset_converters/ct_to_slices.py), by patient.

KiTS19 as in the study: 512 x 512 px, 70 % of 6400 slices to train on.
A window of HU centre 0, width 400. `augment=1.0` rotates, shifts and scales image and label alike; `synthetic=FOLDER`
adds the slices of a synthetic store to training. An epoch has a number of samples of its own: every arm takes equally
many steps, whatever it trains on.
"""

from albumentations import Affine
from mmengine.dataset import DefaultSampler, pseudo_collate
from mmseg.datasets.transforms import PackSegInputs

from pathzoo.datasets.sampling import SeededSampler
from pathzoo.datasets.slices import SliceSegmentation
from pathzoo.datasets.transforms import Albumentations, HUWindow
from pathzoo.evaluation.metrics import SliceMetric

_dataset = dict(type=SliceSegmentation, data_root="data/kits19_slices")
# As pathzoo.datasets.slices.SLICE_META_KEYS; spelled out, so that the copy of the config in a work folder holds it too.
_meta_keys = (
    "item",
    "patient",
    "slide",
    "case",
    "store",
    "subset",
    "slice_index",
    "hu_window",
    "spacing",
    "synthetic",
    "mpp",
    "region_index",
    "patch_x",
    "patch_y",
    "sample_idx",
    "loss_weight",
    "unlabelled",
    "img_path",
    "ori_shape",
    "img_shape",
)
_train_pipeline = [
    dict(type=HUWindow, centre=0.0, width=400.0),
    dict(
        type=Albumentations,
        transforms=[
            dict(
                type=Affine,  # the study states no extents; these are ours
                p=0.0,
                rotate=(-15, 15),  # degrees
                translate_percent=(-0.0625, 0.0625),
                scale=(0.9, 1.1),
                keep_ratio=True,
                fill=0,  # the lower end of the window: air
                fill_mask=0,  # background
                mask_interpolation=0,  # nearest neighbour
            ),
        ],
    ),
    dict(type=PackSegInputs, meta_keys=_meta_keys),
]
_test_pipeline = [
    dict(type=HUWindow, centre=0.0, width=400.0),
    dict(type=PackSegInputs, meta_keys=_meta_keys),
]
_loader = dict(num_workers=4, persistent_workers=True, pin_memory=True, collate_fn=dict(type=pseudo_collate))

train_dataloader = dict(
    **_loader,
    batch_size=8,
    sampler=dict(type=SeededSampler, shuffle=True, samples_per_epoch=4480),  # 70 % of 6400
    dataset=dict(
        **_dataset,
        subset="train",
        synthetic=None,
        synthetic_count=None,
        seed=0,
        pipeline=_train_pipeline,
    ),
)
val_dataloader = dict(
    **_loader,
    batch_size=8,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(**_dataset, subset="val", pipeline=_test_pipeline, test_mode=True),
)
test_dataloader = dict(
    **_loader,
    batch_size=8,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(**_dataset, subset="test", pipeline=_test_pipeline, test_mode=True),
)
val_evaluator = dict(type=SliceMetric, n_bootstrap=0)
test_evaluator = dict(type=SliceMetric, n_bootstrap=1000)
# `--cfg-options window_centre=40` reaches every place that stands here.
_sets = tuple(f"{_part}_dataloader.dataset" for _part in ("train", "val", "test"))
parameters = dict(
    data_root=[f"{_set}.data_root" for _set in _sets],
    window_centre=[f"{_set}.pipeline.0.centre" for _set in _sets],
    window_width=[f"{_set}.pipeline.0.width" for _set in _sets],
    augment=["train_dataloader.dataset.pipeline.1.transforms.0.p"],
    synthetic=["train_dataloader.dataset.synthetic"],
    synthetic_count=["train_dataloader.dataset.synthetic_count"],
    samples_per_epoch=["train_dataloader.sampler.samples_per_epoch"],
    seed=["randomness.seed", "train_dataloader.dataset.seed"],
)
