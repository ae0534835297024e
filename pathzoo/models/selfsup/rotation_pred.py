"""RotNet: by which of four quarter turns was the picture turned?"""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from mmpretrain.structures import DataSample
from torch import nn
from torch.nn import functional

from pathzoo.datasets.sampling import mix_seed
from pathzoo.errors import ConfigError
from pathzoo.models.selfsup.base import PretextModel, with_fields
from pathzoo.registry import MODELS

#: Quarter turns, counter-clockwise: the class is their number.
N_TURNS = 4


def turn(images: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Each picture turned counter-clockwise by its own number of quarter turns: its pixels, at other places.

    Args:
        images: (N, C, S, S).
        turns: (N,), integers in 0..3, on the same device.

    Returns:
        (N, C, S, S).
    """
    turned = images
    for k in range(1, N_TURNS):
        turned = torch.where((turns == k).view(-1, 1, 1, 1), torch.rot90(images, k, (2, 3)), turned)
    return turned


def turn_all(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(4N, C, S, S) and the turns (4N,): all pictures (N, C, S, S) as they are, then all turned once, and so on."""
    turned = torch.cat([torch.rot90(images, k, (2, 3)) for k in range(N_TURNS)])
    return turned, torch.arange(N_TURNS, device=images.device).repeat_interleave(len(images))


@MODELS.register_module()
class RotationHead(BaseModule):
    """A linear layer on pooled features that tells the quarter turns.

    Args:
        in_channels: D of the features.
        init_cfg: mmengine's; by default weights are drawn with a standard deviation of 0.01, biases are 0.
    """

    def __init__(self, in_channels: int, init_cfg: dict | list | None = None) -> None:
        super().__init__(init_cfg or {"type": "Normal", "layer": "Linear", "std": 0.01})
        self.fc = nn.Linear(in_channels, N_TURNS)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (N, 4) of features (N, D)."""
        return self.fc(features)


@MODELS.register_module()
class RotationPred(PretextModel):
    """RotNet (Gidaris, Singh and Komodakis, ICLR 2018), with colour jitter by choice.

    A network takes any way to the answer, so what could give it away without looking at tissue matters more than
    elsewhere. Against it here: turns are exact, pixels change places and no value changes (a turn by interpolation
    would blur the turned ones); pictures must be square; the turn comes after all else but the jitter, so that nothing
    done before (a resize, whose filter may differ between the axes, a blur, noise) has another direction in the classes
    by which it was done afterwards; the jitter is the same for all pixels. On noise without direction it stays at
    chance, which a test shows. What is left lies in the files and the pipeline:

    - JPEG: its table of quantisation is not the same along both axes, 4:2:2 halves colour along rows alone, and its
      8 x 8 blocks, cut at fixed places, stand elsewhere after a turn. Crops at drawn places hide the blocks' place;
      working at a coarser resolution than the file's, by two or more, removes most of the rest; lossless files all.
    - Padding on one side, the scanner's stripes, light that falls off to one side.

    Tissue itself has no upright: where pictures were taken in every direction the task has no answer, and whatever is
    above 25 % comes from the list above. A pipeline that turns or transposes at random before (`turns=True` of
    HistologyViews) makes it so: for training turn it off, and as a control turn it on, upon which the accuracy has to
    fall to 25 %. Mirror images left to right keep the task.

    Args:
        backbone: Gives one map, as `TimmBackbone` does.
        neck: Such as mmpretrain's GlobalAveragePooling; without one the map is averaged over its places.
        head: `RotationHead`.
        rotations: "all" for the four turns of each picture in one batch of 4N, as in the paper; "one" for one that is
            drawn: in training from torch's generator of the device, else from the sample's `sample_idx`.
        jitter: Config of `BatchedColourJitter`, or a module that takes and returns pixels (N, 3, S, S) of 0..255; each
            turned picture is jittered by its own draw, in training alone. The normalisation of the data_preprocessor is
            undone for it and done again.
        data_preprocessor: mmpretrain's SelfSupDataPreprocessor (the default), or `BatchedViews`.
        init_cfg: mmengine's.

    Raises:
        ConfigError: An unknown `rotations`; pictures that are not square, or several views of them; samples without
            `sample_idx` where it is needed.
    """

    def __init__(
        self,
        backbone: Any,
        head: Any,
        neck: Any = None,
        rotations: str = "all",
        jitter: Any = None,
        data_preprocessor: Any = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(backbone, neck, head, data_preprocessor, init_cfg)
        if rotations not in ("all", "one"):
            raise ConfigError(f"RotationPred: rotations={rotations!r}; give 'all' or 'one'")
        self.rotations = rotations
        self.jitter = MODELS.build(jitter) if isinstance(jitter, dict) else jitter

    def loss(self, inputs: Any, data_samples: Sequence[DataSample] | None = None) -> dict[str, torch.Tensor]:
        """`loss`, the mean cross-entropy, and `accuracy` (0..1, for the log) of a batch (N, 3, S, S), normalised."""
        images, turns = self._turned(_one_view(inputs), data_samples)
        losses, correct = self._answers(self._jittered(images), turns)
        return {"loss": losses.mean(), "accuracy": correct.mean()}

    def predict(self, inputs: Any, data_samples: Sequence[DataSample] | None = None) -> list[DataSample]:
        """The samples, each with `pretext_loss` and `pretext_correct` (0..1), means over the picture's turns."""
        images = _one_view(inputs)
        losses, correct = (
            values.view(-1, len(images)).mean(0) for values in self._answers(*self._turned(images, data_samples))
        )
        return with_fields(data_samples, {"pretext_loss": losses, "pretext_correct": correct})

    def _turned(
        self, images: torch.Tensor, data_samples: Sequence[DataSample] | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.rotations == "all":
            return turn_all(images)
        if self.training:
            turns = torch.randint(N_TURNS, (len(images),), device=images.device)
        else:
            turns = torch.tensor(_fixed_turns(data_samples, len(images)), device=images.device)
        return turn(images, turns), turns

    def _jittered(self, images: torch.Tensor) -> torch.Tensor:
        if self.jitter is None or not self.training:
            return images
        preprocessor = self.data_preprocessor
        if not getattr(preprocessor, "_enable_normalize", False):
            return self.jitter(images)
        pixels = images * preprocessor.std + preprocessor.mean
        return (self.jitter(pixels) - preprocessor.mean) / preprocessor.std

    def _answers(self, images: torch.Tensor, turns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy and whether the answer is right (1.0 or 0.0) of each picture."""
        logits = self.head(self.embed(images)).float()
        return functional.cross_entropy(logits, turns, reduction="none"), (logits.argmax(1) == turns).float()


def _one_view(inputs: Any) -> torch.Tensor:
    """(N, 3, S, S): a batch, or a list of one."""
    views = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
    if len(views) != 1:
        raise ConfigError(f"RotationPred: {len(views)} views of each picture; it takes one: HistologyViews(n_views=1)")
    height, width = views[0].shape[2:]
    if height != width:
        raise ConfigError(
            f"RotationPred: pictures of {width} x {height} pixels: turned, they would have another shape; have the "
            "pipeline crop squares"
        )
    return views[0]


def _fixed_turns(data_samples: Sequence[DataSample] | None, n: int) -> list[int]:
    """A turn for each sample that is always the same, and has nothing to do with the order of the data."""
    if data_samples is None or any("sample_idx" not in sample for sample in data_samples):
        raise ConfigError(
            "RotationPred(rotations='one'): samples lack sample_idx, by which validation is the same every time; the "
            "pipeline's PackInputs needs it among its meta_keys"
        )
    turns = [mix_seed(int(sample.sample_idx)) % N_TURNS for sample in data_samples]
    if len(turns) != n:
        raise ConfigError(f"RotationPred: {len(turns)} samples for {n} pictures")
    return turns
