"""Breast lesions in a phantom region: three classes painted on one canvas, and labels that follow what was painted."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from pathzoo.datasets.phantom.canvas import Canvas, Outline
from pathzoo.datasets.phantom.epithelium import EpitheliumPainter, Flavour
from pathzoo.datasets.phantom.layout import disc, lay_out, tissue_edge
from pathzoo.datasets.phantom.stain import Stain, draw_stain, render, vary_stain
from pathzoo.datasets.phantom.tissue import FLAVOURS, Kind, draw_atypia, paint_fat, paint_stroma_cells

#: Overlap of benign and malignant, 0 (none) to 1 (the same tissue).
DIFFICULTY = 0.35
_VALUE: dict[Kind, int] = {"benign": 1, "malignant": 2}
_FLAVOURS: dict[Kind, tuple[Flavour, ...]] = {
    "benign": tuple(FLAVOURS[letters] for letters in ("A", "F", "PT", "TA")),
    "malignant": tuple(FLAVOURS[letters] for letters in ("DC", "LC", "MC", "PC")),
}
_ALONE_UM = 50.0  # stroma between a normal gland and a lesion's ground
#: A label reaches this far beyond the cells, and closes gaps between them up to twice `_CLOSE_UM` wide.
_MARGIN_UM, _CLOSE_UM = 10.0, 30.0
#: Glands that cover less ground than this, margin included, are no lesion where they are benign.
_LEAST_LESION = 12_000.0


@dataclass(frozen=True)
class Patient:
    """What all regions of one patient share.

    Attributes:
        stain: of the section.
        atypia: of each kind of lesion, 0..1.
        flavours: architectures that this patient's lesions of each kind have, two of four.
        waviness, tears: of the collagen.
        cellularity: factor on the number of cells.
        fat: share of normal ground that is fat.
    """

    stain: Stain
    atypia: dict[Kind, float]
    flavours: dict[Kind, tuple[Flavour, ...]]
    waviness: float
    tears: float
    cellularity: float
    fat: float


def draw_patient(rng: np.random.Generator, difficulty: float = DIFFICULTY) -> Patient:
    """Draws a patient; stain, texture and architecture are independent of the atypia."""
    kinds: tuple[Kind, ...] = ("benign", "malignant")
    return Patient(
        stain=draw_stain(rng),
        atypia={kind: draw_atypia(rng, kind, difficulty) for kind in kinds},
        flavours={kind: tuple(_FLAVOURS[kind][i] for i in rng.choice(4, 2, replace=False)) for kind in kinds},
        waviness=float(rng.uniform(0.5, 1.5)),
        tears=float(rng.uniform(0.1, 1.0)),
        cellularity=float(rng.uniform(0.75, 1.25)),
        fat=float(rng.choice([0.0, 0.06, 0.15, 0.3])),
    )


def draw_region(
    seed: int | np.random.Generator,
    patient: Patient,
    size: tuple[int, int] = (768, 576),
    mpp: float = 1.0,
    kinds: Sequence[Kind] = ("benign", "malignant"),
) -> tuple[np.ndarray, np.ndarray]:
    """Draws one region and its labels.

    A lesion is an irregular piece of ground filled with glands, nests and files of cells. Its label covers those and
    the tissue between them, as an annotator outlines it (`_outlined`), and leaves out fat inside. The rest is normal:
    collagen with its cells, fat, glands that lie alone, glass beyond the tissue's edge.

    Args:
        seed: a seed or a generator; the same seed gives the same pixels.
        patient: whose.
        size: (width, height) in pixels.
        mpp: microns per pixel.
        kinds: of lesions that are painted, each at least once. In a region under about half a square millimetre one may
            come out too small to be told from a normal gland, and is then labelled as one.

    Returns:
        RGB uint8 (height, width, 3), and uint8 (height, width): 0 normal, 1 benign, 2 malignant.
    """
    rng = np.random.default_rng(seed)
    canvas = _LabelledCanvas(rng, size, mpp, patient.waviness, patient.tears)
    lesions, ground = lay_out(rng, size, mpp, kinds)
    _paint_normal(canvas, rng, patient, ground)
    for kind, territory in lesions:
        _paint_lesion(canvas, rng, patient, kind, territory)
    labels = _outlined(canvas.cells, canvas.plain, mpp)
    canvas.roughen(rng)
    if rng.random() < 0.3:
        tissue = tissue_edge(rng, size, mpp)
        canvas.eosin *= tissue
        canvas.haematoxylin *= tissue
        labels[tissue < 0.5] = 0
    return render(canvas.haematoxylin, canvas.eosin, vary_stain(patient.stain, rng), rng), labels


class _LabelledCanvas(Canvas):
    """A canvas that knows where the cells of each kind of lesion stand.

    Attributes:
        painting: what is set down next: 1 benign, 2 malignant, 0 anything else.
        cells: uint8 (H, W), 1 and 2 within groups and files of such cells.
        plain: bool (H, W), within fat cells and normal glands.
    """

    def __init__(self, rng: np.random.Generator, size: tuple[int, int], mpp: float, waviness: float, tears: float):
        super().__init__(rng, size, mpp, waviness, tears)
        self.painting = 0
        self.cells, self._plain = (np.zeros((size[1], size[0]), np.uint8) for _ in range(2))

    @property
    def plain(self) -> np.ndarray:
        return self._plain > 0

    def occupy(self, outline: Outline) -> None:
        """Takes the ground inside `outline`, and notes what stands there."""
        super().occupy(outline)
        corners = np.rint(outline.points() / self.mpp * 16).astype(np.int32)  # in sixteenths of a pixel, as `fill`
        cv2.fillPoly(self._plain, [corners], int(not self.painting), cv2.LINE_8, 4)
        cv2.fillPoly(self.cells, [corners], self.painting, cv2.LINE_8, 4)


def _paint_normal(canvas: _LabelledCanvas, rng: np.random.Generator, patient: Patient, ground: np.ndarray) -> None:
    canvas.painting = 0
    canvas.restrict(ground)
    area = canvas.free_area()
    paint_fat(canvas, rng, area * patient.fat * rng.uniform(0.5, 1.2))
    # Glands of normal breast lie alone or in small groups: a gland does not make a lesion.
    canvas.restrict(cv2.erode(ground, disc(_ALONE_UM / canvas.mpp), borderValue=1))
    glands = EpitheliumPainter(canvas, rng, float(rng.uniform(0, 0.15)), FLAVOURS["A"])
    glands.paint(area * rng.uniform(0, 0.012))
    canvas.restrict(ground & ~canvas.plain)
    paint_stroma_cells(canvas, rng, area * rng.uniform(0.02, 0.07) * patient.cellularity)


def _paint_lesion(
    canvas: _LabelledCanvas, rng: np.random.Generator, patient: Patient, kind: Kind, territory: np.ndarray
) -> None:
    canvas.restrict(territory.astype(np.uint8))
    area = canvas.free_area()
    flavour = patient.flavours[kind][int(rng.integers(len(patient.flavours[kind])))]
    atypia = float(np.clip(patient.atypia[kind] + rng.normal(0, 0.05), 0, 1))
    nuclei = area * rng.uniform(0.16, 0.28) * patient.cellularity
    canvas.painting = 0
    paint_fat(canvas, rng, area * rng.choice([0.0, 0.0, 0.06, 0.12]))
    canvas.painting = _VALUE[kind]
    painter = EpitheliumPainter(canvas, rng, atypia, flavour)
    painter.paint(nuclei * float(np.clip(1 - rng.uniform(0.08, 0.25) * flavour.stroma, 0.5, 0.95)))
    paint_stroma_cells(canvas, rng, nuclei - painter.area)


def _outlined(cells: np.ndarray, plain: np.ndarray, mpp: float) -> np.ndarray:
    """The labels of a picture with lesion `cells`: a function of what is to be seen, so nothing in it is a guess.

    A lesion is what lies within `_MARGIN_UM` of its cells, with gaps closed as by a disc of `_CLOSE_UM`; where two
    reach, the kind of the nearer cells counts. A benign gland or two that lie alone are normal, as other glands are.

    Args:
        cells: uint8 (H, W), 1 where benign cells stand, 2 malignant ones, else 0.
        plain: bool (H, W), where normal glands and fat cells are.
        mpp: microns per pixel.
    """
    labels, nearest = np.zeros_like(cells), np.full(cells.shape, np.inf, np.float32)
    for value in (1, 2):
        if not (cells == value).any():
            continue
        away = _distance(cells != value)
        covered = _distance(away <= (_MARGIN_UM + _CLOSE_UM) / mpp) > _CLOSE_UM / mpp
        if value == 1:
            _, parts, stats, _ = cv2.connectedComponentsWithStats(covered.astype(np.uint8), connectivity=8)
            large = stats[:, cv2.CC_STAT_AREA] * mpp**2 >= _LEAST_LESION
            large[0] = False
            covered = large[parts]
        labels[covered & (away < nearest)] = value
        nearest[covered] = np.minimum(nearest, away)[covered]
    labels[plain] = 0
    return labels


def _distance(inside: np.ndarray) -> np.ndarray:
    """Distance of each pixel of `inside` to the nearest pixel that is not, 0 elsewhere; beyond the picture all is."""
    padded = np.pad(inside.astype(np.uint8), 1, mode="edge")
    return cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
