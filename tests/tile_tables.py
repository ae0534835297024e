"""Tables of tiles for the tests of data sets."""

import cv2
import numpy as np

KFOLD = {"scheme": "patient_kfold", "k": 5, "fold": 1, "seed": 3}


def write_image(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8))


def table(lab, *lines, header="path,label,patient"):
    (lab / "own.csv").write_text("\n".join([header, *lines]) + "\n")
    return str(lab / "own.csv")
