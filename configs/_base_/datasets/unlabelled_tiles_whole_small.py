"""The tiles of `unlabelled_tiles_small`, whole: the model makes the views, of batches, by `BatchedViews`.

A batch is of one size: larger pictures and slides give windows of 64 px, smaller ones are refused.
"""

from mmengine.config import read_base
from mmpretrain.datasets.transforms import PackInputs

with read_base():
    from .unlabelled_tiles_small import (
        parameters,
        test_dataloader,
        test_evaluator,
        train_dataloader,
        val_dataloader,
        val_evaluator,
    )

# With `sample_seed` neither the number of processes nor an interruption changes what is drawn.
_meta_keys = ("item", "img_path", "patient", "slide", "sample_idx", "sample_seed", "ori_shape", "img_shape")
for _loader in (train_dataloader, val_dataloader):
    _loader["dataset"].update(size=64, window=64, pipeline=[dict(type=PackInputs, meta_keys=_meta_keys)])
parameters.update(
    window=[f"{_part}_dataloader.dataset.{_key}" for _part in ("train", "val") for _key in ("size", "window")]
)
