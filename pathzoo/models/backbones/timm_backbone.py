"""Any convolutional encoder of timm as a backbone for OpenMMLab's models."""

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import nn

from pathzoo.errors import ConfigError
from pathzoo.models.backbones.parent_weights import ParentWeights, load_parent, read_parent
from pathzoo.nearest import did_you_mean
from pathzoo.registry import MODELS


@MODELS.register_module()
class TimmBackbone(BaseModule):
    """A timm network without its classifier.

    Args:
        name: timm's name without a tag or a source prefix, such as `legacy_xception`, `resnet50`, `resnest50d`.
        pretrained: None for random weights; "imagenet" for timm's default weights from the hub; a file with timm's own
            key names (.safetensors, or .pth that holds tensors only); a training run's checkpoint, whose backbone is
            taken (its average, where an EMAHook averaged), or the run's folder, for its best one; a published model's
            folder, or its NAME[@VERSION] in the zoo, verified. Read by `init_weights`, never on construction, so a
            published model is built without any of it, and never unpickled.
        trainable: Names of timm's sub-modules to train, at any depth (`("block12", "conv4", "bn4")`); everything else
            is frozen and stays in eval mode, so that frozen batch normalisation keeps its statistics. None trains
            all; an empty tuple none (linear probe).
        norm_eval: Keep every batch normalisation in eval mode while training: for batches too small for statistics,
            and where several processes must compute what one does.
        drop_path_rate: Stochastic depth, where the network has it.
        channels_last: Keep activations as (N, H, W, C) in memory. The results are the same; depthwise convolutions on
            a CPU train several times as fast (tools/benchmarks). Measure before using it on a GPU.
        out_indices: Which levels of the pyramid to return, finest first, as timm's `features_only` counts them: for a
            ResNet 0 is the stem at stride 2, then 1, 2, 3, 4 at strides 4, 8, 16, 32. What comes after the last of
            them is left out of the network. None returns the last map alone.
        partial: Load what of `pretrained` fits and log what does not; by default all has to fit.
        in_channels: 3, or 1 for grey pictures. Weights of the first convolution that were trained on three channels are
            then added up over these, as timm does: the same answer as for three equal channels.
        init_cfg: mmengine's; leave it None.

    Attributes:
        num_features: Channels of the last map returned.
        channels: Channels of every map returned.
        strides: Pixels of the input per pixel of every map returned; empty without `out_indices`.

    Shape: (N, `in_channels`, H, W) -> a tuple with one map (N, `num_features`, H / 32, W / 32 for the usual stride);
    with `out_indices` one map (N, `channels[k]`, H / `strides[k]`, W / `strides[k]`) for each, rounded as timm's
    network rounds (upwards, for ResNets).

    Raises:
        ConfigError: Unknown network, unknown sub-module, a network or a level without a pyramid, weights that could
            not be had.
    """

    def __init__(
        self,
        name: str,
        pretrained: str | None = None,
        trainable: Sequence[str] | None = None,
        norm_eval: bool = False,
        drop_path_rate: float = 0.0,
        channels_last: bool = False,
        out_indices: Sequence[int] | None = None,
        partial: bool = False,
        in_channels: int = 3,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        _check_name(name)
        if in_channels not in (1, 3):
            raise ConfigError(f"in_channels={in_channels!r}: give 3, or 1 for grey pictures")
        options: dict[str, Any] = {"drop_path_rate": drop_path_rate} if drop_path_rate else {}
        if in_channels != 3:
            options["in_chans"] = in_channels
        self.name = name
        self.pretrained = pretrained
        self.partial = partial
        self.norm_eval = norm_eval
        self.timm_model = timm.create_model(name, pretrained=False, num_classes=0, global_pool="", **options)
        self.out_indices = None if out_indices is None else _checked_levels(self.timm_model, name, out_indices)
        self.channels: tuple[int, ...] = (self.timm_model.num_features,)
        self.strides: tuple[int, ...] = ()
        if self.out_indices is not None:
            levels = [self.timm_model.feature_info[index] for index in self.out_indices]
            self.channels = tuple(level["num_chs"] for level in levels)
            self.strides = tuple(level["reduction"] for level in levels)
            # Parts that no returned map depends on would get no gradient, on which several processes would stumble.
            self.timm_model.prune_intermediate_layers(list(self.out_indices), prune_norm=True, prune_head=True)
        self._memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.timm_model.to(memory_format=self._memory_format)
        self.num_features: int = self.channels[-1]
        self._frozen = self._freeze(None if trainable is None else tuple(trainable))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Returns the last feature map, as mmpretrain's necks take it, or the pyramid, as mmseg's heads take it."""
        x = x.contiguous(memory_format=self._memory_format)
        if self.out_indices is None:
            return (self.timm_model.forward_features(x),)
        maps = self.timm_model.forward_intermediates(
            x, indices=list(self.out_indices), stop_early=True, intermediates_only=True
        )
        return tuple(maps)

    def train(self, mode: bool = True) -> "TimmBackbone":
        """Sets training mode, in which frozen modules (and, by choice, every normalisation) stay in eval mode."""
        super().train(mode)
        if mode:
            for module in self._frozen:
                module.eval()
            if self.norm_eval:
                for module in self.modules():
                    if isinstance(module, nn.modules.batchnorm._BatchNorm):
                        module.eval()
        return self

    def init_weights(self) -> None:
        """Loads `pretrained`; timm has initialised the rest on construction.

        Raises:
            ConfigError: The hub cannot be reached (the message says how to give a file), or the file is missing.
            CheckpointError: Tensors that are not this network's: how many are mapped, missing, unexpected, misshapen.
            ZooError: A published model that is not found or not whole.
        """
        if self.pretrained is None:
            return
        if self.pretrained == "imagenet":
            parent = ParentWeights(f"timm's weights of {self.name}", _hub_weights(self.name), {}, Path())
        else:
            parent = read_parent(self.pretrained)
        parent = replace(parent, tensors=_grey_stem(parent.tensors, self.timm_model))
        fit = load_parent(parent, self.timm_model, self.name, self.partial)
        if not fit.whole:
            print_log(f"{parent.where} was loaded in part: {fit}", logger="current", level=logging.WARNING)

    def _freeze(self, trainable: tuple[str, ...] | None) -> list[nn.Module]:
        """Freezes all but `trainable`; returns the modules that have to stay in eval mode."""
        if trainable is None:
            return []
        modules = dict(self.timm_model.named_modules())
        for name in trainable:
            if name not in modules or not name:
                raise ConfigError(f"trainable: {self.name} has no sub-module {name!r}{did_you_mean(name, modules)}")

        def trained(name: str) -> bool:
            return any(name == chosen or name.startswith(chosen + ".") for chosen in trainable)

        for name, parameter in self.timm_model.named_parameters():
            parameter.requires_grad_(trained(name))
        return [module for name, module in modules.items() if name and not trained(name) and not any(module.children())]


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise ConfigError(
            f"TimmBackbone name {name!r}: a plain timm name of lower-case letters, digits and '_' is taken; weights "
            "come by `pretrained`, never by 'hf-hub:', 'local-dir:' or a tag"
        )
    if not timm.is_model(name):
        raise ConfigError(
            f"TimmBackbone name {name!r}: timm has no such network{did_you_mean(name, timm.list_models())}"
        )


def _checked_levels(network: nn.Module, name: str, out_indices: Sequence[int]) -> tuple[int, ...]:
    """`out_indices` as a tuple, for a network that gives all of them."""
    if not hasattr(network, "forward_intermediates") or not hasattr(network, "prune_intermediate_layers"):
        raise ConfigError(
            f"out_indices: timm's {name} gives no pyramid (it has no forward_intermediates); take a network that does, "
            "such as resnet50, resnest50d or efficientnet_lite0"
        )
    n = len(network.feature_info)
    levels = tuple(out_indices)
    if not levels or list(levels) != sorted(set(levels)) or levels[0] < 0 or levels[-1] >= n:
        raise ConfigError(
            f"out_indices {out_indices}: increasing numbers from 0 to {n - 1} are taken, since {name} has {n} levels"
        )
    return levels


def _grey_stem(tensors: dict[str, torch.Tensor], network: nn.Module) -> dict[str, torch.Tensor]:
    """The first convolution's weights added up over red, green and blue where the network takes grey; else as given."""
    first = network.pretrained_cfg.get("first_conv")
    wanted, adapted = network.state_dict(), dict(tensors)
    for key in (f"{name}.weight" for name in ([first] if isinstance(first, str) else first or ())):
        if key in wanted and key in tensors and (wanted[key].shape[1], tensors[key].shape[1]) == (1, 3):
            adapted[key] = tensors[key].sum(dim=1, keepdim=True)
    return adapted


def _hub_weights(name: str) -> dict[str, torch.Tensor]:
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # the hub's client raises anything from OSError to its own classes
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise ConfigError(
            f"the ImageNet weights of timm's {name} could not be had from the hub ({type(error).__name__}: {reason}); "
            "without a network give a file with timm's key names, --cfg-options "
            "model.backbone.pretrained=FILE.safetensors, or start from random weights, model.backbone.pretrained=None"
        ) from error
