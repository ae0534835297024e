"""Small data sets of regions for the tests: pictures whose pixels say where they are from."""

import csv
import json

import numpy as np
from PIL import Image

KFOLD = {"scheme": "patient_kfold", "k": 3, "fold": 0, "seed": 1, "label_balance": "proportional"}
HALF = {**KFOLD, "label_fraction": 0.5}


def picture(width, height, number):
    """RGB: red is the column, green the row (both modulo 251), blue the region."""
    x, y = np.meshgrid(np.arange(width) % 251, np.arange(height) % 251)
    return np.stack([x, y, np.full_like(x, number)], axis=-1).astype(np.uint8)


def labels(width, height, number, n_classes=3):
    """Blocks of classes with a strip that is ignored; every region shows every class."""
    rng = np.random.default_rng(number)
    blocks = rng.integers(0, n_classes, (height // 8 + 1, width // 8 + 1))
    blocks.flat[:n_classes] = np.arange(n_classes)
    mask = np.kron(blocks, np.ones((8, 8), int))[:height, :width].astype(np.uint8)
    mask[:, -2:] = 255
    return mask


def write_mask(path, mask):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


def write_lab(root, patients=6, each=2, sizes=((40, 30), (33, 50)), unmasked=()):
    """Regions of `patients`, `each` of every one; item numbers in `unmasked` have an empty field. Returns the root."""
    rows = [["image", "mask", "patient", "slide", "mpp"]]
    for number in range(patients * each):
        width, height = sizes[number % len(sizes)]
        (root / "images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(width, height, number)).save(root / "images" / f"{number:02d}.png")
        mask = f"masks/{number:02d}.png"
        write_mask(root / mask, labels(width, height, number))
        patient = number // each
        rows.append(
            [f"images/{number:02d}.png", "" if number in unmasked else mask, f"P{patient}", f"S{patient}", "1.0"]
        )
    write_table(root / "regions.csv", rows)
    return root


def write_table(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def edit_line(root, number, **values):
    """Changes fields of the region `number` in the table."""
    with (root / "regions.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    for name, value in values.items():
        rows[number + 1][rows[0].index(name)] = value
    write_table(root / "regions.csv", rows)


def write_class_file(root, **changes):
    content = {"format": 1, "classes": ["rest", "tumour"], "colors": [[1, 2, 3], [4, 5, 6]], "ignore_index": 255}
    (root / "classes.json").write_text(json.dumps(content | changes))
