"""The slices of `ct_slices_small` that show kidney or tumour, as pairs of label map and picture for a translator."""

from mmengine.config import read_base

from pathzoo.evaluation.metrics import ImageQuality

with read_base():
    from .ct_slices_small import parameters, test_dataloader, train_dataloader, val_dataloader

train_dataloader.update(batch_size=4)
for _loader in (train_dataloader, val_dataloader, test_dataloader):
    _loader["dataset"].update(only_labelled=True)
val_evaluator = dict(type=ImageQuality, n_bootstrap=0)
test_evaluator = dict(type=ImageQuality, n_bootstrap=1000)
