"""Hooks: they choose when; the what stands in functions and models."""

from pathzoo.engine.hooks.checkpoint import CheckpointHook
from pathzoo.engine.hooks.collapse_monitor import CollapseMonitor
from pathzoo.engine.hooks.epoch_seed import EpochSeedHook
from pathzoo.engine.hooks.preemption import PreemptionHook
from pathzoo.engine.hooks.self_training import SelfTrainingHook

__all__ = ["CheckpointHook", "CollapseMonitor", "EpochSeedHook", "PreemptionHook", "SelfTrainingHook"]
