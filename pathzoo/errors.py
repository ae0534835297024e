"""Errors that a user can act on: one line that names the file, the value and the remedy.

The command line prints such an error without a traceback and ends with its `exit_code`; everything else that is raised
is a defect of pathzoo and keeps its traceback.
"""


class PathzooError(Exception):
    """Bad usage or bad input. `exit_code` 2: nothing was written."""

    exit_code = 2


class ConfigError(PathzooError):
    """A config that cannot be run: unknown key, missing value, a component that is not registered."""


class DataError(PathzooError):
    """Data that cannot be used as it is: damaged image, unknown label, malformed table."""


class LeakageError(DataError):
    """One patient, or one image's bytes, on both sides of a split."""


class SlideError(PathzooError):
    """A slide that cannot be read, or that does not fit the model (resolution unknown or too coarse)."""


class OutputError(SlideError):
    """An output that cannot be written (disk full, no permission): whatever else is to be written there fails too."""


class ZooError(PathzooError):
    """A model folder that cannot be trusted or found: wrong digest, forbidden config, unknown name."""


class CheckpointError(PathzooError):
    """A training checkpoint that cannot be loaded safely."""
