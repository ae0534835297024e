"""What a model is called with, by its manifest: pictures, CT slices or label maps; checked, and made a network's batch.

| form | array | which models |
|---|---|---|
| "pictures" | RGB uint8 (N, H, W, 3) | those of channels RGB |
| "slices" | Hounsfield units (N, H, W), signed integers or floats | those with an `hu_window` |
| "grey" | uint8 (N, H, W) | those of channels grey without one |
| "labels" | class indices (N, H, W), integers; 255 where nobody knows | translation |

No torch.
"""

from typing import Any, Literal

import numpy as np

from pathzoo.ct.window import hounsfield_between, window_between
from pathzoo.errors import DataError
from pathzoo.zoo.golden import noise_tiles
from pathzoo.zoo.manifest import Manifest
from pathzoo.zoo.prepare import check_pictures

Form = Literal["pictures", "slices", "grey", "labels"]

#: form -> what is said of it to somebody who gave something else
WORDS: dict[Form, str] = {
    "pictures": "RGB uint8 (N, H, W, 3) in 0..255",
    "slices": "CT slices (N, H, W) in Hounsfield units",
    "grey": "grey uint8 (N, H, W) in 0..255",
    "labels": "label maps (N, H, W) of class indices",
}
_IGNORED = 255


def form_of(manifest: Manifest) -> Form:
    """What the model is called with."""
    if manifest.task == "translation":
        return "labels"
    if manifest.input.channels == "RGB":
        return "pictures"
    return "slices" if manifest.input.hu_window else "grey"


def batch_of(array: np.ndarray, manifest: Manifest) -> np.ndarray:
    """The batch for the network.

    Args:
        array: As the table above says, of exactly `input.tile_size`.
        manifest: The model's.

    Returns:
        (N, K, H, W): uint8, or float32 in 0..255 for slices, whose window is spread over that range; of label maps
        int64 (N, H, W).

    Raises:
        DataError: Another kind of array, another size, values that are no Hounsfield units or no class.
    """
    form = form_of(manifest)
    if form == "pictures":
        check_pictures(array, 4)
    else:
        _check_maps(array, form)
    width, height = manifest.input.tile_size
    if array.shape[1:3] != (height, width):
        what = "tiles" if form == "pictures" else WORDS[form].partition(" (")[0]
        raise DataError(
            f"{manifest.name} takes {what} of {width} x {height} px, not {array.shape[2]} x {array.shape[1]}"
        )
    if form == "pictures":
        return np.ascontiguousarray(array.transpose(0, 3, 1, 2))
    if form == "labels":
        return _checked_labels(array, manifest)
    if form == "slices":
        assert manifest.input.hu_window is not None
        array = window_between(array, *manifest.input.hu_window)
    return np.ascontiguousarray(array[:, None])


def blank(manifest: Manifest) -> np.ndarray:
    """One array that the model takes, of nothing: glass, air, background."""
    width, height = manifest.input.tile_size
    form = form_of(manifest)
    if form == "pictures":
        return np.full((1, height, width, 3), 255, np.uint8)
    return np.full((1, height, width), -1024 if form == "slices" else 0, np.int16 if form == "slices" else np.uint8)


def noise(seed: int, n: int, manifest: Manifest) -> np.ndarray:
    """`noise_tiles` in the form that the model takes: of slices over its window, of label maps every class alike."""
    tiles, form = noise_tiles(seed, n, manifest.input.tile_size), form_of(manifest)
    if form == "pictures":
        return tiles
    grey = tiles[..., 0]
    if form == "slices":
        assert manifest.input.hu_window is not None
        return hounsfield_between(grey, *manifest.input.hu_window).astype(np.float32)
    if form == "labels":  # by rank, since most of the noise's values lie about its middle
        order = grey.reshape(n, -1).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
        return (order * len(manifest.classes) // order.shape[1]).reshape(grey.shape).astype(np.uint8)
    return grey


def _check_maps(array: Any, form: Form) -> None:
    kinds = {"slices": "if", "grey": "u", "labels": "iu"}[form]
    fits = isinstance(array, np.ndarray) and array.ndim == 3 and array.dtype.kind in kinds
    if not fits or (form == "grey" and array.dtype != np.uint8):
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        if form == "slices" and isinstance(array, np.ndarray) and array.dtype.kind == "u":
            # A windowed picture, or a scanner's stored values: both would be read as other HU without a word.
            found += ": no unsigned type holds them (air is -1000); apply the rescale slope and intercept first"
        raise DataError(f"this model takes {WORDS[form]}, not {found}")
    if 0 in array.shape[1:]:
        raise DataError(f"empty maps of shape {array.shape}")
    if form == "slices" and not np.isfinite(array).all():
        raise DataError("a CT slice holds NaN or infinity, which are no Hounsfield units")


def _checked_labels(array: np.ndarray, manifest: Manifest) -> np.ndarray:
    labels = array.astype(np.int64)
    wrong = labels[(labels != _IGNORED) & ((labels < 0) | (labels >= len(manifest.classes)))]
    if len(wrong):
        raise DataError(
            f"a label map holds {int(wrong[0])}; {manifest.name} knows 0 to {len(manifest.classes) - 1} "
            f"({', '.join(manifest.classes)}), and 255 where nobody knows"
        )
    return labels
