"""The metric of configs that draw pictures from label maps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import all_gather_object
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from pathzoo.errors import ConfigError, DataError
from pathzoo.evaluation.functional import Row, bootstrap_replicates, cluster_index
from pathzoo.evaluation.functional.classification import FloatArray, divide
from pathzoo.evaluation.functional.image_quality import ssim
from pathzoo.evaluation.functional.rows import make_row
from pathzoo.fileio import write_csv, write_json
from pathzoo.registry import METRICS
from pathzoo.wsi.colors import segment_colors

_NAMES = ("mae", "ssim")
#: Pictures that a process keeps to choose from when all is known; it bounds memory to about 30 MB.
_CANDIDATES = 64
#: Of what samples hold, 0..255.
_RANGE = 255.0


class _Candidate(NamedTuple):
    item: str
    mae: float
    ssim: float
    #: RGB uint8 and label map uint8, as they are shown.
    real: np.ndarray
    drawn: np.ndarray
    labels: np.ndarray


@METRICS.register_module()
class ImageQuality(BaseMetric):
    """How like the real pictures those are that were drawn for their label maps: `mae` and `ssim`, means over pictures.

    `mae` is the mean absolute difference of the values, 0..255; lower is better. `ssim` is the structural similarity
    of Wang et al. (2004), up to 1; higher is better, so `save_best="ssim"` works. Both ask for the very picture that
    the map was made from, which no label map determines: sharp detail in another place counts as wrong, and blur is
    rewarded. They tell how training goes, not how useful the pictures are.

    Samples hold `item`, `real_image` and `drawn_image`, float (K, H, W) in 0..255, as `LabelToImage` gives them, and
    `patient` where it is known. Every picture counts once: the repeats by which samplers even the processes' shares out
    are cut off, as for `ClassificationMetric`.

    Args:
        classes: C class names, for the drawings; by default the dataset's (`metainfo["classes"]`).
        n_bootstrap: resamples of patients for intervals; by default 1000 where files are written, else 0.
        seed: of the resampling.
        out_dir: folder for metrics.json, pictures.csv (a row for each: item, patient, mae, ssim) and
            plots/pictures.png; None writes nothing.
        pictures: drawn pictures in plots/pictures.png, evenly from the worst ssim to the best, each with its label map
            (`gt_sem_seg`, (1, H, W)) and the real picture: RGB where K is 3, otherwise the first channel. The worst and
            the best are those of all; those between are the likest of the up to 64 that each process keeps. 0 draws
            nothing.
        ignore_index: value of a label map that is not labelled.
        collect_device, prefix, collect_dir: as BaseMetric.

    Attributes:
        rows: the numbers for metrics.json, of the level "image", on the main process.
    """

    default_prefix = ""

    def __init__(
        self,
        classes: Sequence[str] | None = None,
        n_bootstrap: int | None = None,
        seed: int = 0,
        out_dir: str | None = None,
        pictures: int = 5,
        ignore_index: int = 255,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ):
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.classes = None if classes is None else tuple(classes)
        self.n_bootstrap = (1000 if out_dir else 0) if n_bootstrap is None else n_bootstrap
        self.seed = seed
        self.out_dir = out_dir
        self.pictures = pictures if out_dir else 0
        self.ignore_index = ignore_index
        self.rows: list[Row] = []
        self._candidates: list[_Candidate] = []

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Measures each sample (a DataSample as a dict).

        Raises:
            ConfigError: A sample without a drawn or real picture, or without a label map where pictures are drawn.
            DataError: Pictures that differ in size, hold no numbers, or are smaller than SSIM's window.
        """
        if self.pictures:
            self._class_names()  # said before the first picture, not after the last
        for sample in data_samples:
            _check_keys(sample, bool(self.pictures))
            real, drawn = (_channels_last(sample[key]["data"]) for key in ("real_image", "drawn_image"))
            try:
                alike = ssim(real, drawn, _RANGE)
            except DataError as error:
                raise DataError(f"{sample['item']}: {error}") from None
            values = {"mae": float(np.abs(real - drawn).mean()), "ssim": alike}
            self.results.append({"item": sample["item"], "patient": sample.get("patient"), **values})
            if self.pictures:
                self._keep(sample, real, drawn, values)

    def evaluate(self, size: int) -> dict[str, float]:
        """As BaseMetric; what the processes keep of the pictures is brought together first."""
        if self.pictures:
            shares = all_gather_object(self._candidates)
            # A repeat that evens the shares out comes twice.
            found = [one for share in shares for one in share]
            self._candidates = list({(one.item, one.mae, one.ssim): one for one in found}.values())
        try:
            return super().evaluate(size)
        finally:
            self._candidates = []

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Flat dict of the means; sets `rows`, and writes the files where `out_dir` is given."""
        if not results:
            raise DataError("ImageQuality: no picture was evaluated; give a data set with labelled pictures")
        values = np.array([[result[name] for name in _NAMES] for result in results])  # (N, 2)
        clusters = cluster_index([result["patient"] for result in results]) if self.n_bootstrap else None

        def means(weights: FloatArray) -> FloatArray:
            return divide(weights @ values, weights.sum(axis=1, keepdims=True))

        drawn = None if clusters is None else bootstrap_replicates(means, clusters, self.n_bootstrap, self.seed)
        self.rows = [
            make_row(name, "image", len(values), float(values[:, k].mean()), None if drawn is None else drawn[:, k])
            for k, name in enumerate(_NAMES)
        ]
        if self.out_dir is not None:
            self._write(Path(self.out_dir), results)
            print_log(f"Evaluation written to {Path(self.out_dir)}", logger="current")
        return {name: float(values[:, k].mean()) for k, name in enumerate(_NAMES)}

    def _keep(self, sample: dict, real: np.ndarray, drawn: np.ndarray, values: dict[str, float]) -> None:
        """Remembers a picture as it would be shown; every second of too many is dropped, never the ends."""
        from pathzoo.visualization.synthesis import shown_labels, shown_picture  # loads only where something is drawn

        pictures = (shown_picture(part if part.shape[2] == 3 else part[..., 0]) for part in (real, drawn))
        labels = sample["gt_sem_seg"]["data"].squeeze(0).cpu().numpy()
        self._candidates.append(
            _Candidate(sample["item"], values["mae"], values["ssim"], *pictures, shown_labels(labels))
        )
        if len(self._candidates) > _CANDIDATES:
            order = sorted(self._candidates, key=lambda found: found.ssim)
            self._candidates = [*order[:-1:2], order[-1]]

    def _write(self, folder: Path, results: Sequence[dict]) -> None:
        """Everything into `folder`, metrics.json last."""
        self._draw(folder / "plots" / "pictures.png", [result["ssim"] for result in results])
        patients = [result["patient"] for result in results]
        lines = (
            [result["item"], result["patient"] or "", *(f"{result[name]:.6f}" for name in _NAMES)] for result in results
        )
        write_csv(folder / "pictures.csv", ["item", "patient", *_NAMES], lines)
        summary = {
            "rows": self.rows,
            "n_pictures": len(results),
            "n_patients": len({patient for patient in patients if patient is not None}),
            "n_pictures_of_unknown_patient": sum(patient is None for patient in patients),
            "intervals": {
                "level": 0.95,
                "resampled": "patient",
                "n_replicates": self.n_bootstrap,
                "seed": self.seed,
            },
        }
        write_json(folder / "metrics.json", summary)

    def _draw(self, path: Path, values: Sequence[float]) -> None:
        chosen = spread_pictures(values, [found.ssim for found in self._candidates], self.pictures)
        if not chosen:
            path.unlink(missing_ok=True)
            return
        from pathzoo.visualization.segmentation import save_page
        from pathzoo.visualization.synthesis import Triptych, triptychs

        classes = self._class_names()
        rows = []
        for place, index in enumerate(chosen):
            one = self._candidates[index]
            rank = {len(chosen) - 1: ", the best", 0: ", the worst"}.get(place, "") if len(chosen) > 1 else ""
            caption = f"{one.item}: SSIM {one.ssim:.3f}{rank}, mean difference {one.mae:.1f}"
            rows.append(Triptych(one.real, one.labels, one.drawn, caption=caption))
        title = f"{len(rows)} of {len(values)} drawn pictures, by SSIM"
        page = triptychs(rows, classes, self._colors(classes), title=title, ignore_index=self.ignore_index)
        save_page(page, path)

    def _class_names(self) -> tuple[str, ...]:
        names = self.classes or (self.dataset_meta or {}).get("classes")
        if not names:
            raise ConfigError("ImageQuality: no class names; give classes=(...) or a dataset with metainfo classes")
        return tuple(names)

    def _colors(self, classes: Sequence[str]) -> list[tuple[int, int, int]]:
        palette = (self.dataset_meta or {}).get("palette")
        if palette and len(palette) == len(classes):
            return [tuple(color) for color in palette]
        return list(segment_colors(classes).values())


def spread_pictures(values: Sequence[float], candidates: Sequence[float], n: int) -> list[int]:
    """Up to `n` of the candidates, evenly by rank among all values from the lowest to the highest.

    Args:
        values: of all pictures.
        candidates: of those that were kept, the lowest and the highest of `values` among them.
        n: how many.

    Returns:
        Indices into `candidates`, each once, by rising value.
    """
    free = sorted(range(len(candidates)), key=lambda index: candidates[index])
    if n >= len(free):
        return free
    order = np.sort(values)
    chosen = []
    for place in np.linspace(0, len(order) - 1, n) if n > 1 else [0.0] * n:
        wanted = order[round(float(place))]
        best = min(free, key=lambda index: abs(candidates[index] - wanted))
        free.remove(best)
        chosen.append(best)
    return sorted(chosen, key=lambda index: candidates[index])


def _check_keys(sample: dict, draws: bool) -> None:
    needed = ("item", "real_image", "drawn_image", *(("gt_sem_seg",) if draws else ()))
    missing = [key for key in needed if key not in sample]
    if missing:
        raise ConfigError(
            f"ImageQuality: samples lack {', '.join(missing)}; it evaluates what draws pictures from label maps "
            "(LabelToImage), and the pipeline's PackSegInputs needs item and patient in its meta_keys"
        )


def _channels_last(picture: torch.Tensor) -> np.ndarray:
    """float64 (H, W, K) of (K, H, W)."""
    return np.moveaxis(picture.detach().double().cpu().numpy(), 0, -1)
