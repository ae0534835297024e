"""What stands between the loader and the network. Importing this package imports mmpretrain's models."""

from pathzoo.models.data_preprocessors.batched_views import BatchedViews

__all__ = ["BatchedViews"]
