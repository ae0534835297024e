"""segmentation-models-pytorch's U-Net in a plain loop, for segmentation_training.py: run by an interpreter that has it.

Needs arms.py, which needs torch alone; of segmentation-models-pytorch 0.6 with timm, albumentations 2.0, OpenCV and
Pillow. Data are read as is usual: `RegionCrops` decodes a region's PNG and crops it, `CutPatches` reads patches that
were cut and written beforehand (`cut_patches`). `serve` speaks with the benchmark, a line for each measurement.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from arms import batches_of, reading, serve, training
from PIL import Image
from torch.utils.data import Dataset

#: ImageNet's, on 0..255, as the configs have them.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def main() -> None:
    """Serves one arm until its input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--arm", choices=("bare", "regions", "patches"), required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--decoder-channels", type=int, nargs="+", required=True)
    for name in ("--size", "--batch-size", "--iterations", "--workers", "--channels-last"):
        parser.add_argument(name, type=int, required=True)
    arguments = parser.parse_args()
    import segmentation_models_pytorch as smp
    import timm

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    model = smp.Unet(
        f"tu-{arguments.encoder}", encoder_weights=None, decoder_channels=arguments.decoder_channels, classes=3
    )
    layout = torch.channels_last if arguments.channels_last else torch.contiguous_format
    model = model.to(device, memory_format=layout).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    cross_entropy = torch.nn.CrossEntropyLoss(ignore_index=255)
    dice = smp.losses.DiceLoss("multiclass", from_logits=True, ignore_index=255)

    def step(batch: Sequence[torch.Tensor]) -> int:
        images = batch[0].to(device, non_blocking=True).contiguous(memory_format=layout)
        labels = batch[1].to(device, non_blocking=True)
        optimizer.zero_grad(set_to_none=True)
        logits = model(images)
        (cross_entropy(logits, labels) + dice(logits, labels)).backward()
        optimizer.step()
        return len(images)

    dataset: Dataset = make_dataset(arguments)
    batches = batches_of(dataset, arguments.batch_size, arguments.workers, device)
    if arguments.arm == "bare":
        images, labels = next(iter(batches))
        batches = [(images.to(device), labels.to(device))] * arguments.iterations
    count = sum(parameter.numel() for parameter in model.parameters())
    versions = f"segmentation-models-pytorch {smp.__version__}, timm {timm.__version__}, torch {torch.__version__}"
    about = {"parameters": count, "version": versions}
    serve(about, {"train": training(batches, step, device), "read": reading(dataset)})


def make_dataset(arguments: argparse.Namespace) -> Dataset:
    """What the arm reads; as many patches as a round takes."""
    count = arguments.batch_size * arguments.iterations
    if arguments.arm == "patches":
        return CutPatches(arguments.root / "patches", count)
    return RegionCrops(arguments.root, arguments.size, count)


class RegionCrops(Dataset):
    """Crops at random places: each sample decodes its region and mask, as a data set of whole images does.

    Args:
        root: With regions.csv, columns image and mask.
        size: Of a patch, pixels.
        count: Samples of an epoch; regions take turns.
    """

    def __init__(self, root: Path, size: int, count: int) -> None:
        with (root / "regions.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["mask"]]
        self.files = [(str(root / row["image"]), str(root / row["mask"])) for row in rows]
        self.count, self.transform = count, augmentation(size)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(float32 (3, P, P), normalised; int64 (P, P))."""
        image, mask = self.files[index % len(self.files)]
        return read_sample(image, mask, self.transform)


class CutPatches(Dataset):
    """Patches that lie ready as files: fixed places, no cropping.

    Args:
        folder: What `cut_patches` wrote.
        count: Samples of an epoch; files take turns.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.files = sorted(str(path) for path in folder.glob("*_image.png"))
        self.count, self.transform = count, augmentation(None)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """As `RegionCrops`."""
        image = self.files[index % len(self.files)]
        return read_sample(image, image.replace("_image.png", "_mask.png"), self.transform)


def augmentation(size: int | None) -> Any:
    """Crop to `size` (None for none), the eight symmetries, colour; normalised tensors at the end."""
    import albumentations

    crop = [] if size is None else [albumentations.RandomCrop(size, size)]
    return albumentations.Compose(
        [
            *crop,
            albumentations.D4(p=1.0),
            albumentations.ColorJitter(brightness=0.1, contrast=0.1, saturation=0.0, hue=0.0, p=0.5),
            albumentations.Normalize(MEAN, STD, max_pixel_value=1.0),
            albumentations.ToTensorV2(),
        ]
    )


def read_sample(image: str, mask: str, transform: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Decodes both files and sends them through the transform."""
    pixels = cv2.cvtColor(cv2.imread(image), cv2.COLOR_BGR2RGB)
    labels = np.asarray(Image.open(mask))  # of a palette image the indices, which OpenCV would turn into colours
    made = transform(image=pixels, mask=labels)
    return made["image"], made["mask"].long()


def cut_patches(root: Path, size: int) -> None:
    """Cuts the grid of every region into files below `root`/patches, whole patches alone."""
    folder = root / "patches"
    folder.mkdir(exist_ok=True)
    for number, (image, mask) in enumerate(RegionCrops(root, size, 0).files):
        pixels, labels = cv2.imread(image), np.asarray(Image.open(mask))
        for y in range(0, labels.shape[0] - size + 1, size):
            for x in range(0, labels.shape[1] - size + 1, size):
                name = folder / f"{number:04}_{y:05}_{x:05}"
                cv2.imwrite(f"{name}_image.png", pixels[y : y + size, x : x + size])
                cv2.imwrite(f"{name}_mask.png", labels[y : y + size, x : x + size])


if __name__ == "__main__":
    main()
