"""Small stand-ins for the tests of self-training: a segmentor of a few numbers, and a data set in memory and on disk.

They keep to the interface of `pathzoo.datasets.pseudo_labelled.PseudoLabelled` and mmseg's segmentors, and are
imported by the processes that tests/engine/test_self_training_processes.py starts.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from mmengine.model import BaseModel, ImgDataPreprocessor
from mmengine.structures import BaseDataElement, PixelData
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset

from pathzoo.engine.self_training import Round, Tiling, checked_policy
from pathzoo.fileio import sha256_file

CLASSES = ("normal", "benign", "malignant")
PATCH = 32
SILENT = logging.getLogger("silent")
SILENT.addHandler(logging.NullHandler())
SILENT.propagate = False


class TinySegmentor(BaseModel):
    """A few convolutions with normalisation and dropout, in mmseg's form: logits at the input's size."""

    def __init__(self, n_classes: int = 3, seed: int = 0, context: int = 5, dropout: float = 0.2) -> None:
        super().__init__(data_preprocessor=ImgDataPreprocessor(mean=[128.0] * 3, std=[64.0] * 3))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.encoder = nn.Conv2d(3, 8, context, padding=context // 2)
            self.norm = nn.BatchNorm2d(8)
            self.dropout = nn.Dropout2d(dropout)
            self.classifier = nn.Conv2d(8, n_classes, 1)
            nn.init.normal_(self.classifier.weight, std=1.0)

    def forward(self, inputs, data_samples=None, mode="tensor"):
        logits = self.classifier(self.dropout(functional.relu(self.norm(self.encoder(inputs)))))
        if mode == "tensor":
            return logits
        if mode == "loss":
            labels = torch.stack([sample.gt_sem_seg.data for sample in data_samples]).squeeze(1).long()
            weights = torch.tensor([sample.loss_weight for sample in data_samples]).to(logits)
            pixels = functional.cross_entropy(logits, labels, ignore_index=255, reduction="none")
            return {"loss": (pixels.mean(dim=(1, 2)) * weights).mean()}
        for sample, own in zip(data_samples, logits, strict=True):
            sample.set_data({"seg_logits": PixelData(data=own)})
        return data_samples


@dataclass(frozen=True)
class FakeRegion:
    item: str
    image: Path
    mask: Path | None
    width: int
    height: int
    sha256: str
    patient: str = "P1"


class FakePart:
    """Regions of one subset; counts how often each image is read, and may fail at one."""

    def __init__(self, root: Path, sizes: list[tuple[int, int]], seed: int, prefix: str) -> None:
        self.metainfo = {"classes": CLASSES}
        self.split = SimpleNamespace(digest="5" * 64)
        self.reads: list[int] = []
        self.fail_at: dict[int, BaseException] = {}
        regions, rng = [], np.random.default_rng(seed)
        for number, (width, height) in enumerate(sizes):
            item = f"images/{prefix}{number}.png"
            truth = draw_truth(rng, width, height)
            for path, values in ((item, draw_image(rng, truth)), (f"masks/{prefix}{number}.png", truth)):
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                if not (root / path).exists():
                    Image.fromarray(values).save(root / path)
            image = root / item
            mask = root / f"masks/{prefix}{number}.png"
            regions.append(FakeRegion(item, image, mask, width, height, sha256_file(image)))
        self.regions = tuple(regions)

    def read_image(self, index):
        self.reads.append(index)
        if index in self.fail_at:
            raise self.fail_at[index]
        return np.array(Image.open(self.regions[index].image))

    def read_truth(self, index):
        return np.array(Image.open(self.regions[index].mask))

    read_labels = read_truth


def draw_truth(rng, width, height):
    """Blobs of classes 1 and 2 on 0, with a strip that nobody has labelled."""
    y, x = np.mgrid[:height, :width]
    truth = np.zeros((height, width), np.uint8)
    for label in (1, 2, 1, 2):
        cx, cy, radius = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.15, 0.3) * min(width, height)
        truth[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = label
    truth[:3] = 255
    return truth


def draw_image(rng, truth):
    """Colours by class, under noise that hides some of it."""
    colors = np.array([[200, 160, 200], [160, 90, 160], [110, 60, 140]], np.float64)
    image = colors[np.where(truth == 255, 0, truth)] + rng.normal(0, 40, (*truth.shape, 3))
    return image.clip(0, 255).round().astype(np.uint8)


class FakePseudoLabelled(Dataset):
    """Half labelled patches; once it has a folder, the other half are of the unlabelled part."""

    SIZES = ((80, 64), (50, 70), (64, 64), (33, 40), (96, 48))

    def __init__(self, root: Path, patches: int = 8, use: bool = True) -> None:
        self.labelled = FakePart(root, [(64, 64)] * 2, 1, "labelled_")
        self.unlabelled = FakePart(root, list(self.SIZES), 2, "unlabelled_")
        self.metainfo, self.split, self.data_digest = self.labelled.metainfo, self.labelled.split, "d" * 64
        self.folder, self._patches, self._use = None, patches, use

    def __deepcopy__(self, memo):
        return self  # the Runner copies its arguments; tests look into this one

    def use_pseudo_labels(self, folder):
        self.folder = folder if self._use else None

    def __len__(self):
        return self._patches

    def __getitem__(self, index):
        pseudo = self.folder is not None and index % 2 == 0
        part = self.unlabelled if pseudo else self.labelled
        place = int(index) % len(part.regions)
        image = np.array(Image.open(part.regions[place].image))
        labels = self.folder.read(part.regions[place].item) if pseudo else part.read_labels(place)
        sample = BaseDataElement(metainfo={"loss_weight": 0.5 if pseudo else 1.0, "round": int(pseudo)})
        patch = torch.from_numpy(labels[:PATCH, :PATCH].copy())[None]
        sample.set_data({"gt_sem_seg": PixelData(data=patch)})
        return {"inputs": torch.from_numpy(image[:PATCH, :PATCH].transpose(2, 0, 1).copy()), "data_samples": sample}


def plan_of(work_dir: Path, dataset: FakePseudoLabelled, **changes) -> Round:
    """A round of small overlapping tiles."""
    values = {"number": 1, "epoch": 4, "run": "a" * 32, "teacher": "model", "policy": checked_policy("all")}
    values["tiling"] = Tiling(tile=PATCH, stride=20, tta="flips", batch_size=3)
    return Round(work_dir=work_dir, dataset=dataset, **{**values, **changes})


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
