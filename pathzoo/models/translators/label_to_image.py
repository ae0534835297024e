"""Pix2Pix from label maps to pictures.

Isola, Zhu, Zhou, Efros, "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017; for kidney CT as
Choe et al., "Generative Adversarial Networks Based Data Augmentation to Address Medical Data Imbalances".
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmagic.models.editors.pix2pix import Pix2Pix
from mmengine.structures import PixelData
from torch import nn

from pathzoo.errors import ConfigError, DataError
from pathzoo.models.translators.pairs import one_hot
from pathzoo.registry import MODELS

#: Standard deviation of initial weights; appendix of the paper.
_INITIAL_STD = 0.02


@MODELS.register_module()
class LabelToImage(Pix2Pix):
    """mmagic's Pix2Pix, set up for label map -> picture of any number of channels and any range of values.

    The generator sees one channel per class; the discriminator sees them and the picture, real or drawn. Both are
    trained in every step: the adversarial loss, and `pixel_loss_weight` times the mean absolute difference. What
    differs from mmagic's: pairs come from a segmentation data set (`PairPreprocessor`); the translator initialises the
    weights itself, from N(0, 0.02) (the generator's own way fails); pictures are drawn in eval mode, so that none
    depends on its batch. Take instance normalisation, which is what the paper's batches of one make of batch
    normalisation.

    Args:
        generator: mmagic's UnetGenerator, in_channels C; size and 2 ** num_down have to fit.
        discriminator: mmagic's PatchDiscriminator, in_channels C + K; None to draw only, as a published model does.
        data_preprocessor: A `PairPreprocessor`.
        pixel_loss_weight: The paper's 100.
        discriminator_steps: Steps of the discriminator for one of the generator.

    Raises:
        ConfigError: Channels that do not fit the classes and the pictures.
    """

    def __init__(
        self,
        generator: Mapping[str, Any],
        data_preprocessor: Mapping[str, Any],
        discriminator: Mapping[str, Any] | None = None,
        pixel_loss_weight: float = 100.0,
        discriminator_steps: int = 1,
    ) -> None:
        n_classes, n_channels = data_preprocessor["n_classes"], len(data_preprocessor["mean"])
        _check_channels("generator", generator, "in_channels", n_classes, "one for each class")
        _check_channels("generator", generator, "out_channels", n_channels, "those of the picture")
        if discriminator is not None:
            seen = n_classes + n_channels
            _check_channels("discriminator", discriminator, "in_channels", seen, "classes and the picture's channels")
        #: Sides have to be multiples of it: the generator halves them `num_down` times.
        self.divisor = 2 ** generator.get("num_down", 8)
        super().__init__(
            generator=dict(generator),
            discriminator=None if discriminator is None else dict(discriminator),
            default_domain="image",
            reachable_domains=["image"],
            related_domains=["image", "label"],
            data_preprocessor=dict(data_preprocessor),
            discriminator_steps=discriminator_steps,
            loss_config={"pixel_loss_weight": pixel_loss_weight},
        )

    @property
    def n_classes(self) -> int:
        """C."""
        return self.data_preprocessor.n_classes

    def init_weights(self) -> None:
        """Kernels from N(0, 0.02), scales of normalisation from N(1, 0.02), every bias 0 (the paper's appendix)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, 0.0, _INITIAL_STD)
            elif isinstance(module, nn.BatchNorm2d | nn.InstanceNorm2d | nn.SyncBatchNorm) and module.affine:
                nn.init.normal_(module.weight, 1.0, _INITIAL_STD)
            else:
                continue
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, img: torch.Tensor, test_mode: bool = False, **kwargs: Any) -> Any:
        """mmagic's, for pictures whose sides fit.

        Raises:
            DataError: They are no multiples of `divisor`.
        """
        self._check_size(img)
        return super().forward(img, test_mode=test_mode, **kwargs)

    @torch.no_grad()
    def draw(self, labels: torch.Tensor, seeds: Sequence[int] | None = None) -> torch.Tensor:
        """Pictures of label maps.

        The generator's only noise is its dropout (section 2.1 of the paper). Without `seeds` there is none. With them
        each picture has its own, and depends on its label map, its seed and the device alone.

        Args:
            labels: Integers (N, H, W), 0..C-1, or the preprocessor's `ignore_index`.
            seeds: N numbers.

        Returns:
            float32 (N, K, H, W) in 0..255, not rounded.

        Raises:
            DataError: A label that is no class, or sides that are no multiples of `divisor`.
        """
        self._check_size(labels)
        channels = one_hot(labels, self.n_classes, self.data_preprocessor.ignore_index)
        generator = self.get_module(self.generators)[self._default_domain]
        was_training = generator.training
        generator.eval()
        try:
            if seeds is None:
                drawn = generator(channels)
            else:
                drawn = torch.cat(
                    [_with_noise(generator, one[None], seed) for one, seed in zip(channels, seeds, strict=True)]
                )
        finally:
            generator.train(was_training)
        return self.data_preprocessor.to_values(drawn)

    def val_step(self, data: Mapping[str, Any]) -> list[Any]:
        """Draws the picture of each sample's label map.

        Returns:
            The samples with `drawn_image` and `real_image`, PixelData of float32 (K, H, W) in 0..255.
        """
        data = self.data_preprocessor(data, False)
        samples = data["data_samples"]
        labels = torch.stack([sample.gt_sem_seg.data[0] for sample in samples])
        drawn = self.draw(labels.to(self.data_preprocessor.mean.device))
        real = self.data_preprocessor.to_values(data["inputs"]["img_image"])
        for sample, ours, theirs in zip(samples, drawn, real, strict=True):
            sample.drawn_image, sample.real_image = PixelData(data=ours), PixelData(data=theirs)
        return list(samples)

    test_step = val_step

    def _check_size(self, pictures: torch.Tensor) -> None:
        height, width = pictures.shape[-2:]
        if height % self.divisor or width % self.divisor:
            raise DataError(
                f"pictures of {width} x {height} px: the generator halves them {self.divisor.bit_length() - 1} times "
                f"(num_down), so sides have to be multiples of {self.divisor}"
            )


def _with_noise(generator: nn.Module, channels: torch.Tensor, seed: int) -> torch.Tensor:
    """What a generator makes of one label map with its dropout on, drawn by `seed`; other random streams go on."""
    dropouts = [module for module in generator.modules() if isinstance(module, nn.Dropout)]
    device = channels.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for module in dropouts:
            module.train()
        try:
            return generator(channels)
        finally:
            for module in dropouts:
                module.eval()


def _check_channels(part: str, config: Mapping[str, Any], key: str, wanted: int, what: str) -> None:
    if config.get(key) != wanted:
        raise ConfigError(f"LabelToImage: {part}.{key} is {config.get(key)}; it takes {wanted}, {what}")
