"""The plain side of pix2pix_training.py: Pix2Pix as a user writes it with PyTorch alone, around given networks."""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, l1_loss, one_hot
from torch.utils.data import DataLoader, Dataset, RandomSampler

#: Of the adversarial and pixel losses, as mmagic logs them.
LOSSES = ("loss_gan_d_fake", "loss_gan_d_real", "loss_gan_g", "loss_pixel")


class PlainPix2Pix:
    """Trains two networks by the losses of Isola et al., "Image-to-Image Translation with Conditional Adversarial
    Networks", CVPR 2017: the discriminator first, its loss halved, then the generator.

    Args:
        generator: label map as channels (N, C, H, W) -> picture (N, K, H, W) in -1..1.
        discriminator: both (N, C + K, H, W) -> verdicts, before the sigmoid.
        pixel_weight: of the mean absolute difference.
        lr, betas: of each network's Adam.
        amp: the type that mixed precision computes in, None for float32 alone.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        pixel_weight: float,
        lr: float,
        betas: tuple[float, float],
        amp: torch.dtype | None = None,
    ) -> None:
        self._generator, self._discriminator = generator.train(), discriminator.train()
        self._pixel_weight, self._amp = pixel_weight, amp
        self._device = next(generator.parameters()).device.type
        self._optimizers = [
            (torch.optim.Adam(network.parameters(), lr=lr, betas=betas), torch.amp.GradScaler(self._device, enabled=on))
            for on in [amp == torch.float16]
            for network in (generator, discriminator)
        ]

    def step(self, labels: torch.Tensor, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        """One step of both networks on pairs of `pairs_of`; the parts of the loss, by `LOSSES`."""
        of_generator, of_discriminator = self._optimizers
        with self._mixed():
            drawn = self._generator(labels)
            self._discriminator.requires_grad_(True)
            false = self._verdict(labels, drawn.detach(), 0.0)
            true = self._verdict(labels, pictures, 1.0)
            loss = 0.5 * (false + true)
        _update(loss, *of_discriminator)
        self._discriminator.requires_grad_(False)
        with self._mixed():
            deceived = self._verdict(labels, drawn, 1.0)
            pixel = self._pixel_weight * l1_loss(drawn, pictures)
            loss = deceived + pixel
        _update(loss, *of_generator)
        return dict(zip(LOSSES, (false.detach(), true.detach(), deceived.detach(), pixel.detach()), strict=True))

    def _verdict(self, labels: torch.Tensor, pictures: torch.Tensor, truth: float) -> torch.Tensor:
        verdicts = self._discriminator(torch.cat((labels, pictures), 1))
        return binary_cross_entropy_with_logits(verdicts, torch.full_like(verdicts, truth))

    def _mixed(self) -> torch.autocast:
        return torch.autocast(self._device, dtype=self._amp, enabled=self._amp is not None)


def _update(loss: torch.Tensor, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()


class PlainSlices(Dataset):
    """Slices of a store's training subset by nothing but numpy.

    Args:
        folder: of the store.
        places: which of its slices; None for all.
        centre, width: of the window, HU.
    """

    def __init__(self, folder: Path, places: Sequence[int] | None, centre: float, width: float) -> None:
        self._images = np.load(folder / "train" / "images.npy", mmap_mode="r")
        self._labels = np.load(folder / "train" / "labels.npy", mmap_mode="r")
        self._places = range(len(self._images)) if places is None else places
        self._centre, self._scale = centre, 2 / width

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Label (H, W) uint8, and what the window shows (1, H, W), -1..1."""
        place = self._places[index]
        picture = (self._images[place].astype(np.float32) - self._centre) * np.float32(self._scale)
        picture = np.clip(picture, -1, 1, out=picture)
        return torch.from_numpy(self._labels[place].copy()), torch.from_numpy(picture)[None]


def plain_loader(dataset: Dataset, batch_size: int, iterations: int, workers: int, device: str) -> DataLoader:
    """Batches of a round, as many as `iterations`, at random."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=RandomSampler(dataset, num_samples=batch_size * iterations),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device == "cuda",
    )


def pairs_of(batch: Sequence[torch.Tensor], n_classes: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of `PlainSlices` on the device: labels as channels (N, C, H, W), pictures (N, 1, H, W)."""
    labels, pictures = (part.to(device, non_blocking=True) for part in batch)
    return one_hot(labels.long(), n_classes).movedim(-1, 1).float().contiguous(), pictures


def timed(batches: Callable[[], Iterable], step: Callable[[Any], object], device: str) -> Callable[[], float]:
    """What measures a round of steps, one for each of the batches, in iterations/s."""

    def measure() -> float:
        wait(device)
        started, iterations = time.perf_counter(), 0
        for batch in batches():
            step(batch)
            iterations += 1
        wait(device)
        return iterations / (time.perf_counter() - started)

    return measure


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
