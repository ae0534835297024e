"""Self-training by rounds of pseudo-labels.

Hooks choose when (`pathzoo.engine.hooks.SelfTrainingHook`); here is what a round is:

    teacher.py      whose predictions count
    labeller.py     region -> class and confidence of every pixel, by tiles
    policies.py     which of them are trusted
    rounds.py       all regions, shared among processes, resumable
    folder.py       what training reads: `PseudoLabelFolder`
    audit.py        how far it may be trusted
"""

from pathzoo.engine.self_training.audit import Alarm
from pathzoo.engine.self_training.folder import PseudoLabelFolder, round_folder
from pathzoo.engine.self_training.labeller import Tiling, predict_region
from pathzoo.engine.self_training.policies import checked_policy, keep, lowest_levels
from pathzoo.engine.self_training.rounds import Round, make_round

__all__ = [
    "Alarm",
    "PseudoLabelFolder",
    "Round",
    "Tiling",
    "checked_policy",
    "keep",
    "lowest_levels",
    "make_round",
    "predict_region",
    "round_folder",
]
