"""Breast lesion regions, a part of them labelled, the rest as it is: for `ConsistencySegmentor`.

Small: patches of 64 px for two cores; the main process cuts them, which takes next to no time.
Equal numbers of steps: `patches_per_epoch` counts both parts together.
"""

from albumentations import D4, ColorJitter
from mmengine.dataset import DefaultSampler, pseudo_collate
from mmseg.datasets.transforms import PackSegInputs

from pathzoo.datasets.breast_lesions import BreastLesions
from pathzoo.datasets.pseudo_labelled import PseudoLabelled
from pathzoo.datasets.sampling import SeededSampler
from pathzoo.datasets.transforms import Albumentations, StainJitter
from pathzoo.evaluation.metrics import SegmentationMetric

_dataset = dict(
    type=BreastLesions,
    data_root="work_dirs/phantom_regions",
    ann_file="regions.csv",
    patch_size=64,
    split=dict(
        scheme="patient_kfold",
        k=5,
        fold=0,
        seed=0,
        label_fraction=0.35,
        label_balance="proportional",
        label_grouping="image",
    ),
    cache="memory",
    on_bad_image="error",
)
# As pathzoo.datasets.regions.SEG_META_KEYS; spelled out, so that the copy of the config in a work folder holds it too.
_meta_keys = (
    "item",
    "patient",
    "slide",
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
    dict(
        type=Albumentations,
        transforms=[
            dict(type=D4, p=1.0),  # rotations by 90 degrees and flips: tissue has no upright
            dict(type=StainJitter, p=0.8),
            dict(type=ColorJitter, brightness=0.1, contrast=0.1, saturation=0.0, hue=0.0, p=0.5),
        ],
    ),
    dict(type=PackSegInputs, meta_keys=_meta_keys),
]
_test_pipeline = [dict(type=PackSegInputs, meta_keys=_meta_keys)]
_loader = dict(num_workers=0, collate_fn=dict(type=pseudo_collate))

train_dataloader = dict(
    **_loader,
    batch_size=8,
    sampler=dict(type=SeededSampler, shuffle=True),
    dataset=dict(
        type=PseudoLabelled,
        patches_per_epoch=128,  # as many steps as without the unlabelled part
        share=0.25,  # at one half the few labels are seen too seldom to tell the classes apart
        pseudo=False,
        labelled=dict(**_dataset, subset="train", balance=0.9, seed=0, pipeline=_train_pipeline),
        unlabelled=dict(**_dataset, subset="unlabelled", seed=1, pipeline=_train_pipeline),
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
val_evaluator = dict(type=SegmentationMetric, n_bootstrap=0)
test_evaluator = dict(type=SegmentationMetric, n_bootstrap=1000)
# `--cfg-options fold=3` reaches every place that stands here.
_sets = (
    "train_dataloader.dataset.labelled",
    "train_dataloader.dataset.unlabelled",
    "val_dataloader.dataset",
    "test_dataloader.dataset",
)
parameters = dict(
    data_root=[f"{_set}.data_root" for _set in _sets],
    ann_file=[f"{_set}.ann_file" for _set in _sets],
    value_map=[f"{_set}.value_map" for _set in _sets],
    classes=[f"{_set}.classes" for _set in _sets],
    palette=[f"{_set}.palette" for _set in _sets],
    fold=[f"{_set}.split.fold" for _set in _sets],
    split_seed=[f"{_set}.split.seed" for _set in _sets],
    label_fraction=[f"{_set}.split.label_fraction" for _set in _sets],
    label_grouping=[f"{_set}.split.label_grouping" for _set in _sets],
    split=[f"{_set}.split" for _set in _sets],
    patches_per_epoch=["train_dataloader.dataset.patches_per_epoch"],
    label_noise=["train_dataloader.dataset.labelled.label_noise"],
    share=["train_dataloader.dataset.share"],
    on_bad_image=[f"{_set}.on_bad_image" for _set in _sets],
    seed=["randomness.seed", "train_dataloader.dataset.labelled.seed"],
)
