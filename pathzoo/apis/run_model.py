"""The model of a training run, as its work folder describes it."""

import json
from pathlib import Path

import torch
from mmengine.config import Config
from torch import nn

from pathzoo.apis.setup import setup
from pathzoo.engine.checkpoint import chosen_checkpoint, load_checkpoint_safely, state_dict_of
from pathzoo.errors import CheckpointError, ConfigError


def load_run_model(folder: str | Path, checkpoint: str | Path | None = None) -> nn.Module:
    """Builds a run's model by the config in its `train_run.json`, with its weights, in evaluation mode.

    The config is Python and is executed: load only what was trained here, and what others made from a zoo.

    Args:
        folder: A work folder as `train` leaves it.
        checkpoint: A .pth file of it; where not given, `best_*.pth`, else the newest.

    Returns:
        The model, on the GPU where there is one. Where an EMAHook averaged the weights, they are the average.

    Raises:
        CheckpointError: No checkpoint, or one that is another model's.
        ConfigError: No `train_run.json`, or no config in it that can be read.
    """
    from pathzoo.registry import MODELS

    setup()
    path = Path(folder) / "train_run.json"
    try:
        text = json.loads(path.read_text(encoding="utf-8"))["config"]["text"]
        model_config = Config.fromstring(text, ".py").model
    except FileNotFoundError:
        raise ConfigError(f"{path}: not there; {folder} is no work folder of a training run") from None
    except Exception as error:  # a config is Python: anything may be raised in it
        raise ConfigError(f"{path}: holds no config that can be read ({type(error).__name__}: {error})") from error
    file = Path(checkpoint) if checkpoint else chosen_checkpoint(Path(folder))
    model = MODELS.build(model_config)
    try:
        model.load_state_dict(state_dict_of(load_checkpoint_safely(file)))
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise CheckpointError(f"{file}: is not of the model in {path} ({reason})") from error
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
