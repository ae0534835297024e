"""What every run of pathzoo shares: hooks, logging, seed. `default_scope` is None, since configs name classes.

Batch normalisation in training mode takes its statistics per process, so several processes differ from one; frozen
layers (`trainable=`) and `TimmBackbone(norm_eval=True)` do not: there several processes compute what one does, to 1e-5
(tests/engine/test_distributed.py).
"""

from mmengine.hooks import DistSamplerSeedHook, IterTimerHook, LoggerHook, ParamSchedulerHook, RuntimeInfoHook
from mmengine.runner import LogProcessor

from pathzoo.engine import Runner
from pathzoo.engine.hooks import CheckpointHook, EpochSeedHook, PreemptionHook

default_scope = None
runner_type = Runner
default_hooks = dict(
    runtime_info=dict(type=RuntimeInfoHook),
    timer=dict(type=IterTimerHook),
    sampler_seed=dict(type=DistSamplerSeedHook),
    logger=dict(type=LoggerHook, interval=10),
    param_scheduler=dict(type=ParamSchedulerHook),
    checkpoint=dict(type=CheckpointHook, interval=1, max_keep_ckpts=1),
)
custom_hooks = [dict(type=EpochSeedHook), dict(type=PreemptionHook)]
# Fork is the fastest way to start workers, and OpenCV's own threads would only compete with them.
env_cfg = dict(cudnn_benchmark=True, mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0))
log_processor = dict(type=LogProcessor, window_size=10, by_epoch=True)
log_level = "INFO"
randomness = dict(seed=0, deterministic=False)
load_from = None
resume = False
