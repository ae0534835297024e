"""A slide of discs, and rules that find and grade them: for the tests of contact sheets and grades.

Import as `from wsi.graded_slides import ...` (tests/ is on the path).
"""

import csv
import json
from pathlib import Path

import cv2
import numpy as np

from pathzoo.wsi.predictor import Boxes, ClassProbs, InputSpec

DISC, RING = (60, 40, 120), (200, 40, 60)
#: x, y, radius of the discs of `draw_discs`, and whether each is pale within.
DISCS = ((100, 90, 20, False), (230, 80, 26, True), (330, 200, 40, False), (90, 250, 12, True), (24, 360, 20, False))


class Discs:
    """Finds dark discs; the larger the surer."""

    name, version, digest, task, classes = "discs", "1.0.0", "d" * 64, "detection", ("disc",)

    def __init__(self, tile: int = 256, mpp: float = 0.5) -> None:
        self.input = InputSpec((tile, tile), mpp)

    def __call__(self, tiles: np.ndarray, /) -> Boxes:
        return Boxes([self.find(tile) for tile in tiles])

    @staticmethod
    def find(tile: np.ndarray) -> np.ndarray:
        near = np.abs(tile.astype(int) - DISC).max(axis=2) < 45
        stats = cv2.connectedComponentsWithStats(near.astype(np.uint8))[2][1:]
        found = [
            [x, y, x + w, y + h, min(1, max(w, h) / 100), 0] for x, y, w, h, _ in stats.tolist() if w > 4 and h > 4
        ]
        return np.array(found, np.float32).reshape(-1, 6)


class Middles:
    """A classifier: is the middle of a picture pale or full?"""

    name, version, digest, task, classes = "middles", "2.0.0", "e" * 64, "classification", ("full", "pale")

    def __init__(self, tile: int = 48, mpp: float | None = 0.5, digest: str = "e" * 64, stain=None) -> None:
        self.input, self.digest = InputSpec((tile, tile), mpp, 0.1, stain), digest
        self.seen: list[np.ndarray] = []

    def __call__(self, tiles: np.ndarray, /) -> ClassProbs:
        self.seen += list(tiles.copy())
        return ClassProbs(np.array([self.rule(tile) for tile in tiles], np.float32))

    @staticmethod
    def rule(tile: np.ndarray) -> tuple[float, float]:
        h, w = tile.shape[0] // 2, tile.shape[1] // 2
        p = float(tile[h - 2 : h + 2, w - 2 : w + 2].mean()) / 255
        return 1 - p, p


def draw_discs(discs=DISCS, width: int = 400, height: int = 420) -> np.ndarray:
    """Dark discs on a pale texture, whose rows and columns all differ."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([200 + (x * 7 + y * 3) % 40, 200 + (x * 3 + y * 11) % 40, 200 + (x + y) % 40], axis=2)
    for cx, cy, radius, pale in discs:
        distance = np.hypot(x + 0.5 - cx, y + 0.5 - cy)
        image[distance <= radius] = DISC
        if pale:
            image[distance <= radius / 2] = 245
    return image.astype(np.uint8)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def record_of(folder: Path) -> dict:
    return json.loads((folder / "predict_run.json").read_text())
