"""Tiles of noise, as files and in packed stores, for the tests of unlabelled data."""

import cv2
import numpy as np

from pathzoo.datasets.packed_writer import packed_writer

SIZE = 16


def picture(seed, side=SIZE):
    sides = (side, side) if isinstance(side, int) else side
    return np.random.default_rng(seed).integers(0, 256, (sides[1], sides[0], 3), np.uint8)


def write(path, seed, side=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(picture(seed, side), cv2.COLOR_RGB2BGR))


def store(path, seeds, patients=None, phantom=False, mpp=0.5, side=SIZE):
    with packed_writer(path, len(seeds), (side, side), phantom=phantom) as writer:
        for number, seed in enumerate(seeds):
            patient = patients[number] if patients else None
            writer.add(picture(seed, side), f"{seed}.png", patient=patient, slide=f"S{seed // 4}", mpp=mpp)
    return path
