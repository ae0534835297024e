"""Pretext tasks: what a network learns from pictures without labels.

`pathzoo.models` gives the models and heads by name; their modules import mmpretrain, this package does not.
"""

from pathzoo.models.selfsup.nt_xent import nt_xent, nt_xent_of_pairs

__all__ = ["nt_xent", "nt_xent_of_pairs"]
