"""A phantom whole-slide image with its QuPath annotations."""

import os
import uuid
from pathlib import Path

import cv2
import numpy as np
import tifffile

from pathzoo.datasets.noise_fields import enlarged, smooth_noise
from pathzoo.datasets.phantom.canvas import Canvas
from pathzoo.datasets.phantom.stain import Stain, draw_stain, render
from pathzoo.datasets.phantom.tissue import DIFFICULTY, Flavour, Kind, draw_atypia, paint_breast
from pathzoo.errors import DataError
from pathzoo.fileio import atomic_path, write_json

_GRID = 8.0  # um, the grain of the map that says where which tissue lies
_BENIGN, _MALIGNANT = 1, 2
_CLASSES: dict[int, Kind] = {_BENIGN: "benign", _MALIGNANT: "malignant"}
_COLORS = {"benign": [0, 160, 60], "malignant": [200, 0, 0]}


def write_slide(
    path: str | os.PathLike,
    seed: int = 0,
    size: tuple[int, int] = (4096, 3072),
    mpp: float = 0.5,
    *,
    pieces: int = 4,
    difficulty: float = DIFFICULTY,
    stain: Stain | None = None,
    annotations: str | os.PathLike | None = None,
    quality: int = 88,
) -> Path:
    """Draws a slide with pieces of tissue on glass, some of them partly malignant, and writes their outlines.

    A `.svs` is written as Aperio writes them, a `.tif` or `.tiff` as a generic tiled TIFF; both are JPEG pyramids of
    tiles of 256 pixels, each level a quarter of the one above, and carry the resolution where OpenSlide finds it.

    Args:
        path: the slide; ends in .svs, .tif or .tiff.
        seed: the same seed and arguments give the same pixels.
        size: (width, height) of level 0 in pixels.
        mpp: microns per pixel of level 0.
        pieces: number of pieces of tissue: half benign and half malignant, all benign, all malignant, and so on.
        difficulty: overlap of the classes, 0..1.
        stain: the section's stain; drawn if None.
        annotations: where the outlines go; `annotations.geojson` beside the slide if None.
        quality: JPEG quality, 1..100.

    Returns:
        The path of the annotations: GeoJSON in QuPath's form, polygons in level-0 pixels, classes benign and malignant.

    Raises:
        DataError: for another file suffix, or a slide smaller than one piece of tissue (400 um).
    """
    path = Path(path)
    if path.suffix.lower() not in (".svs", ".tif", ".tiff"):
        raise DataError(f"{path}: a phantom slide is written as .svs, .tif or .tiff")
    if min(size) * mpp < 400:
        raise DataError(f"{path}: {size[0]}x{size[1]} px at {mpp} um is too small; give at least 400 um on each side")
    picture, regions = draw_slide(seed, size, mpp, pieces=pieces, difficulty=difficulty, stain=stain)
    write_pyramid(path, picture, mpp, quality)
    annotations = path.with_name("annotations.geojson") if annotations is None else Path(annotations)
    write_json(annotations, _geojson(regions, size, seed))
    return annotations


def draw_slide(
    seed: int,
    size: tuple[int, int],
    mpp: float,
    *,
    pieces: int = 4,
    difficulty: float = DIFFICULTY,
    stain: Stain | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws a slide in memory; the arguments are those of `write_slide`.

    Returns:
        The picture, RGB uint8 (height, width, 3), and a coarse map of the same ground, uint8 at 8 um per pixel:
        0 glass, 1 benign, 2 malignant.
    """
    rng = np.random.default_rng([seed, 3])
    stain = draw_stain(rng) if stain is None else stain
    regions, edge = _layout(rng, size, mpp, pieces)
    canvas = Canvas(rng, size, mpp, waviness=1.0, tears=float(rng.uniform(0.3, 0.9)))
    for value, kind in _CLASSES.items():
        paint_breast(canvas, rng, draw_atypia(rng, kind, difficulty), Flavour(), regions == value)
    canvas.roughen(rng)
    width, height = size
    tissue = np.clip(enlarged(edge, (height, width), _GRID / mpp, cv2.INTER_LINEAR), 0, 1)
    canvas.eosin *= tissue
    canvas.haematoxylin *= tissue
    return render(canvas.haematoxylin, canvas.eosin, stain, rng), regions


def _layout(rng: np.random.Generator, size: tuple[int, int], mpp: float, pieces: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the tissue lies: the map of regions, and a float32 map that rises from 0 to 1 across the tissue's edge."""
    columns, rows = (int(np.ceil(length * mpp / _GRID)) for length in size)
    regions, edge = np.zeros((rows, columns), np.uint8), np.zeros((rows, columns), np.float32)
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    across = max(1, round(np.sqrt(pieces * columns / rows)))
    down = int(np.ceil(pieces / across))
    for piece in range(pieces):
        cell_x, cell_y = columns / across, rows / down
        centre_x = (piece % across + 0.5 + rng.uniform(-0.05, 0.05)) * cell_x
        centre_y = (piece // across + 0.5 + rng.uniform(-0.05, 0.05)) * cell_y
        distance = np.hypot((x - centre_x) / (0.43 * cell_x), (y - centre_y) / (0.43 * cell_y))
        rough = smooth_noise(rng, (rows, columns), 0.35 * min(cell_x, cell_y)) * np.float32(0.10)
        depth = (1 - distance + rough) * 0.45 * min(cell_x, cell_y)  # cells inside the outline
        np.maximum(edge, np.clip(depth, 0, 1), out=edge)
        angle = rng.uniform(0, 2 * np.pi)
        side = np.cos(angle) * (x - centre_x) / cell_x + np.sin(angle) * (y - centre_y) / cell_y
        side = side + smooth_noise(rng, (rows, columns), 0.3 * min(cell_x, cell_y)) * 0.05
        border = (0.0, 9.0, -9.0)[piece % 3]  # half and half, all benign, all malignant
        regions[depth > 0] = _BENIGN
        regions[(depth > 0) & (side > border)] = _MALIGNANT
    return regions, edge


def _geojson(regions: np.ndarray, size: tuple[int, int], seed: int) -> dict:
    rng = np.random.default_rng([seed, 4])
    rows, columns = regions.shape
    scale = np.array([size[0] / columns, size[1] / rows])
    features = []
    for value, name in _CLASSES.items():
        # One cell is taken off so that no annotation reaches onto glass or into the other class.
        mask = cv2.erode((regions == value).astype(np.uint8), np.ones((3, 3), np.uint8))
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        for outline in sorted(outlines, key=lambda points: points[:, 0].tolist()):
            outline = cv2.approxPolyDP(outline, 0.8, True)[:, 0]
            if len(outline) < 4 or cv2.contourArea(outline) * _GRID**2 < 10_000:
                continue
            ring = np.round((outline + 0.5) * scale, 1).tolist()
            features.append(_feature(name, [*ring, ring[0]], str(uuid.UUID(bytes=rng.bytes(16), version=4))))
    return {"type": "FeatureCollection", "features": features}


def _feature(name: str, ring: list[list[float]], identifier: str) -> dict:
    return {
        "type": "Feature",
        "id": identifier,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": {"name": name, "color": _COLORS[name]}},
    }


def write_pyramid(path: Path, picture: np.ndarray, mpp: float, quality: int) -> None:
    """Writes RGB uint8 (H, W, 3) as a JPEG pyramid that states its resolution, as `write_slide` says; whole or not."""
    height, width = picture.shape[:2]
    aperio = path.suffix.lower() == ".svs"
    description = None
    if aperio:
        description = (
            f"Aperio Image Library (pathzoo phantom)\r\n{width}x{height} [0,0 {width}x{height}] (256x256) "
            f"JPEG/RGB Q={quality}|AppMag = {10 / mpp:g}|MPP = {mpp:g}"
        )
    options = {
        "tile": (256, 256),
        "photometric": "rgb",
        "compression": "jpeg",
        "compressionargs": {"level": quality},
        "metadata": None,
        "software": "pathzoo",
    }
    with atomic_path(path) as temporary, tifffile.TiffWriter(temporary) as tiff:
        level, scale = picture, 1
        while True:
            dots = (1e4 / (mpp * scale), 1e4 / (mpp * scale))  # per centimetre
            tiff.write(
                level,
                description=description,
                resolution=dots,
                resolutionunit="CENTIMETER",
                subfiletype=0 if scale == 1 or aperio else 1,
                **options,
            )
            if scale > 1 and max(level.shape) <= 1024:
                return
            scale *= 4
            smaller = (max(1, width // scale), max(1, height // scale))
            level = cv2.resize(picture, smaller, interpolation=cv2.INTER_AREA)
