"""Convolution and SiLU in one, for inference: on a CPU with its weights laid out once and not in every call."""

import platform
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Where oneDNN computes in its own kernels; on other processors PyTorch's own choice stands.
_ONEDNN = (
    platform.machine().lower() in {"x86_64", "amd64"}
    and torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
)


class FoldedConv(nn.Conv2d):
    """Convolution with bias, then SiLU; its tensors are those of the convolution that it is made from.

    oneDNN arranges weights anew for each size of input. nn.Conv2d has that done in every call and throws it away; here
    what was arranged is kept until an input of another size, or other weights, come. SiLU is computed as part of the
    convolution. The operations are those by which PyTorch's own compiler speaks to oneDNN. They have no gradient: where
    one is wanted, on a GPU and in half precision the plain operations run; results differ by rounding alone.

    Args:
        conv: is shared, not copied; with bias, zero padding in numbers, one group or more.

    Shape: as `conv`.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        sides = (conv.kernel_size, conv.stride, conv.padding, conv.dilation)
        super().__init__(conv.in_channels, conv.out_channels, *sides, conv.groups, device="meta")
        self.weight, self.bias = conv.weight, conv.bias
        self._arranged: Tensor | None = None
        self._arranged_for: tuple[Any, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        """Returns SiLU of the convolution."""
        if not self._is_for_onednn(x):
            return functional.silu(super().forward(x), inplace=True)
        words = (self.padding, self.stride, self.dilation, self.groups)
        weights = self._weights_for(x, words)
        return torch.ops.mkldnn._convolution_pointwise(x, weights, self.bias, *words, "swish", [], "")

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles go without what was arranged: oneDNN's tensors cannot be written."""
        return {**self.__dict__, "_arranged": None, "_arranged_for": ()}

    def _is_for_onednn(self, x: Tensor) -> bool:
        return (
            _ONEDNN
            and torch.backends.mkldnn.enabled
            and not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"))
            and x.dtype == self.weight.dtype == torch.float32
            and x.device.type == self.weight.device.type == "cpu"
            and x.numel() > 0
        )

    def _weights_for(self, x: Tensor, words: tuple[Any, ...]) -> Tensor:
        """In the order that oneDNN wants for inputs as large as x."""
        weight = self.weight
        wanted = (tuple(x.shape), weight.data_ptr(), 0 if weight.is_inference() else weight._version)
        if self._arranged is None or wanted != self._arranged_for:
            arranged: Tensor = torch.ops.mkldnn._reorder_convolution_weight(weight.detach(), *words, list(x.shape))
            self._arranged, self._arranged_for = arranged, wanted
        return self._arranged
