"""SimCLR: two views of a picture are to be alike, and unlike all other pictures.

mmpretrain's algorithm is not used: it holds all similarities at once, its gradient comes out smaller by the number of
processes, it does not keep to float32 under AMP, and it cannot be validated.
"""

import logging
from collections.abc import Sequence

import torch
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmpretrain.structures import DataSample

from pathzoo.errors import ConfigError
from pathzoo.models.selfsup.base import PretextModel, with_fields
from pathzoo.models.selfsup.nt_xent import nt_xent, nt_xent_of_pairs
from pathzoo.registry import MODELS


@MODELS.register_module()
class NTXentHead(BaseModule):
    """`nt_xent` as a head.

    Args:
        temperature: 0.003 or more; Chen et al. 2020 take 0.1 for long training with large batches, 0.5 else.
        chunk: Side of the tiles in which similarities are taken; memory against speed.
        gather: Take the pictures of all processes as negatives, in training.
        init_cfg: mmengine's; there is nothing to initialise.

    Raises:
        ConfigError: A number out of its range.
    """

    def __init__(
        self, temperature: float = 0.1, chunk: int = 1024, gather: bool = True, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        try:
            one = torch.ones(1, 1, device="cpu")  # also where the model is built on the meta device
            nt_xent_of_pairs(one, one, temperature, chunk)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"NTXentHead: {error}") from error
        self.temperature, self.chunk, self.gather = temperature, chunk, gather
        self._said = False

    def loss(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """The loss of two views (n, D), over all processes."""
        if len(first) == 1 and not self._said and not (self.gather and get_world_size() > 1):
            self._said = True
            text = (
                "NTXentHead: a batch of one picture has no negatives, its loss is 0; take a larger batch, or drop_last"
            )
            print_log(text, logger="current", level=logging.WARNING)
        return nt_xent(first, second, self.temperature, self.chunk, self.gather)

    def loss_of_pairs(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """(n,), of each picture among those of this batch alone; no gradient."""
        return nt_xent_of_pairs(first, second, self.temperature, self.chunk)


@MODELS.register_module()
class SimCLR(PretextModel):
    """SimCLR (Chen et al., ICML 2020).

    Both views pass the network in one batch, as in the paper's own code, so that batch normalisation takes its
    statistics over both: with a pass for each, a network could tell views by them. In several processes it takes them
    per process; where this matters, take SyncBatchNorm.

    Args:
        backbone: Gives one map, as `TimmBackbone` does.
        neck: The projection, such as mmpretrain's NonLinearNeck: dropped afterwards, what is transferred is the
            backbone.
        head: `NTXentHead`.
        data_preprocessor: mmpretrain's SelfSupDataPreprocessor (the default), or `BatchedViews`.
        init_cfg: mmengine's.

    Validation gives each picture's loss among the pictures of its batch, in this process: NT-Xent grows about as the
    logarithm of the batch, so that values compare at equal batches only, and in training several processes share
    their negatives, which they do not here.

    Raises:
        ConfigError: A batch that is not two views of the same shape.
    """

    views_in_one_pass = 2

    def loss(
        self, inputs: Sequence[torch.Tensor], data_samples: Sequence[DataSample] | None = None
    ) -> dict[str, torch.Tensor]:
        """`loss` of two views of a batch, each (N, 3, H, W), normalised."""
        return {"loss": self.head.loss(*self.project(inputs))}

    def predict(
        self, inputs: Sequence[torch.Tensor], data_samples: Sequence[DataSample] | None = None
    ) -> list[DataSample]:
        """The samples, each with `pretext_loss`, a scalar: its share of the batch's loss, whose mean is the loss."""
        return with_fields(data_samples, {"pretext_loss": self.head.loss_of_pairs(*self.project(inputs))})

    def project(self, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Projections (N, D) of each of two views, by one pass of the network."""
        if not isinstance(inputs, list | tuple) or len(inputs) != 2 or inputs[0].shape != inputs[1].shape:
            shapes = [tuple(view.shape) for view in inputs] if isinstance(inputs, list | tuple) else tuple(inputs.shape)
            raise ConfigError(
                f"SimCLR: a batch of shape {shapes}, where it takes two views of the same shape; put "
                "HistologyViews(n_views=2) into the pipeline, or BatchedViews in the place of the data_preprocessor"
            )
        first, second = self.embed(torch.cat(list(inputs))).chunk(2)
        return first, second
