"""model.json: everything that a published model says about itself, as strict pydantic models.

The JSON Schema in checkpoints/model.schema.json is generated from here (`write_schema`). All fields exist from the
first version on, but `caveats`, which older files lack; what is not known is null. Importing this module loads neither
torch nor an OpenMMLab package.
"""

import datetime
import os
import re
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pathzoo.fileio import write_json
from pathzoo.zoo import semver

SCHEMA_VERSION = 1
MANIFEST_FILE: Final = "model.json"
WEIGHTS_FILE: Final = "model.safetensors"
CARD_FILE: Final = "README.md"

Task = Literal["classification", "segmentation", "detection", "representation", "translation"]
TASKS: tuple[str, ...] = get_args(Task)
SLUG_PATTERN = r"[a-z0-9]+(?:[-_][a-z0-9]+)*"
Slug = Annotated[str, Field(pattern=f"^{SLUG_PATTERN}$", max_length=64)]
Version = Annotated[str, Field(pattern=f"^{semver.PATTERN}$", max_length=64)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
#: An SPDX licence expression (spdx.org/licenses), e.g. CC-BY-4.0 or "Apache-2.0 AND CC-BY-4.0".
Spdx = Annotated[str, Field(pattern=r"^[A-Za-z0-9.+-]+(?: (?:AND|OR|WITH) [A-Za-z0-9.+-]+)*$")]
#: Control characters could rewrite what a terminal shows; only texts of several lines may hold one, the line break.
Line = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Text = Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
LongText = Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x09\x0b-\x1f\x7f-\x9f]+$")]
MaybeLongText = Annotated[str, Field(pattern=r"^[^\x00-\x09\x0b-\x1f\x7f-\x9f]*$")]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
#: px; larger tiles would only exhaust the memory of whoever loads the model
TileSide = Annotated[int, Field(ge=1, le=8192)]


class Block(BaseModel):
    """What all parts share: unknown keys refused, no silent conversion, immutable, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class MppResize(Block):
    """Resize the image to the model's mpp (area), then centre-crop, or pad with `pad_value`, to the tile."""

    kind: Literal["mpp"]
    pad_value: Annotated[int, Field(ge=0, le=255)] = 255


class ShortSideResize(Block):
    """Resize the image so that its short side has `size` px (area), then centre-crop, or pad, to the tile."""

    kind: Literal["short_side"]
    size: TileSide
    pad_value: Annotated[int, Field(ge=0, le=255)] = 255


class StainFit(Block):
    """A stain normalisation that the input needs: its method and the target that it was fitted to."""

    method: Literal["macenko", "vahadane", "reinhard"]
    parameters: dict[str, float | tuple[float, ...] | tuple[tuple[float, ...], ...]]


class ModelInput(Block):
    """How to feed the model.

    `tile_size` (width, height) in px; `mpp` in microns per px, null where it was unknown in training (such a model
    takes images, not slides); `mpp_tolerance` relative; `hu_window` (low, high) for CT, spread over `value_range`;
    `mean`, `std` on `value_range`. Of a translator all but `tile_size` describe the picture that it draws.
    """

    tile_size: tuple[TileSide, TileSide]
    mpp: Annotated[float, Field(gt=0)] | None
    mpp_tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.1
    hu_window: tuple[float, float] | None = None
    value_range: tuple[float, float] = (0.0, 255.0)
    channels: Literal["RGB", "grey"] = "RGB"
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    stain_fit: StainFit | None = None
    resize: Annotated[MppResize | ShortSideResize, Field(discriminator="kind")]

    @model_validator(mode="after")
    def _check(self) -> "ModelInput":
        n = {"RGB": 3, "grey": 1}[self.channels]
        if len(self.mean) != n or len(self.std) != n:
            raise ValueError(f"mean and std need {n} values each for {self.channels}")
        for name in ("hu_window", "value_range"):
            pair = getattr(self, name)
            if pair is not None and not pair[0] < pair[1]:
                raise ValueError(f"{name} must rise from low to high, not {pair}")
        if self.resize.kind == "mpp" and self.mpp is None:
            raise ValueError("resize by mpp needs an mpp; without one use kind 'short_side'")
        return self


class FileRecord(Block):
    """Digest and size in bytes of one file of the folder."""

    sha256: Sha256
    size: Positive


class Weights(Block):
    """What the weights file holds. `address` is set for models too large for the repository."""

    dtype: Literal["float32", "float16"]
    n_tensors: Positive
    n_parameters: Positive
    address: Annotated[str, Field(pattern=r"^https://[^\x00-\x20\x7f-\x9f]+$")] | None = None


class SubsetCounts(Block):
    """How much one subset held. `patients` counts the known ones."""

    images: Count
    patients: Count
    unknown_patient_images: Count
    per_class: dict[Line, Count]


class SplitRecord(Block):
    """Which split was used: its scheme and the digest of splits.json, never the ids in it."""

    scheme: Text
    digest: Sha256 | None = None


class InitialWeights(Block):
    """Where training started: `random`, `imagenet (timm NAME)`, or the parent's name."""

    source: Text
    licence: Line | None = None
    sha256: Sha256 | None = None


class Training(Block):
    """How the weights came about. Counts are by subset (train, val, test); no ids. `caveats`: what its record says
    against it, a sentence each (images that a network drew, patients that could not be compared)."""

    study: Line | None = None
    config: Line | None = None
    config_digest: Sha256 | None = None
    dataset: Line | None = None
    data_digest: Sha256 | None = None
    split: SplitRecord | None = None
    counts: dict[Line, SubsetCounts] = {}
    patient_hashes: dict[Line, tuple[Sha256, ...]] | None = None
    seed: int | None = None
    epochs: Count | None = None
    iterations: Count | None = None
    pathzoo_version: Line | None = None
    versions: dict[Line, Line] = {}
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{7,64}$")] | None = None
    dirty: bool | None = None
    initial_weights: InitialWeights | None = None
    synthetic: bool
    caveats: tuple[Text, ...] = ()


class Parent(Block):
    """A published model that this one was made from."""

    name: Slug
    version: Version
    sha256: Sha256


class MetricRow(Block):
    """One number with its doubt: `low` and `high` bound the interval, null without known patients."""

    metric: Text
    level: Literal["image", "tile", "patient", "slide", "pixel", "patch", "region", "slice"]
    n: Count
    value: float
    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _check(self) -> "MetricRow":
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval needs both low and high")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low} lies above high {self.high}")
        return self


class OperatingPoint(Block):
    """What a detector's boxes from a threshold up give, all classes together; false ones for each tile or slide."""

    threshold: Annotated[float, Field(ge=0, le=1)]
    precision: Annotated[float, Field(ge=0, le=1)]
    recall: Annotated[float, Field(ge=0, le=1)]
    f1: Annotated[float, Field(ge=0, le=1)]
    false_positives: Annotated[float, Field(ge=0)]


class Evaluation(Block):
    """Metric rows and the data that they were measured on; of a detector, what it gives at some thresholds.

    `caveats`: what has to stand beside these figures, a sentence each (a split by image, unknown patients).
    """

    dataset: Text
    subset: Text
    split: Line | None = None
    synthetic: bool = False
    rows: tuple[MetricRow, ...]
    curve: tuple[OperatingPoint, ...] = ()
    caveats: tuple[Text, ...] = ()


class PluginNeed(Block):
    """A plug-in that the model's config needs, by its distribution name; never imported because a model asks."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?$")]
    version: Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+-]*$", max_length=64)]


class Attribution(Block):
    """What the weights were made from; `reference` is text, not an address."""

    title: Text
    authors: Text
    licence: Spdx
    reference: Text


class Golden(Block):
    """Outputs on synthetic tiles that `verify --golden` computes again, within `atol`."""

    generator: Literal["noise_tiles"] = "noise_tiles"
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    n: Annotated[int, Field(ge=1, le=64)]
    quantity: Literal["class_probs", "mean_class_probs", "boxes", "embeddings", "mean_values"]
    outputs: tuple[tuple[float, ...], ...]
    atol: Annotated[float, Field(gt=0)]


class Manifest(Block):
    """model.json of a published model. `digest` is the SHA-256 of the canonical JSON of everything else."""

    schema_version: Literal[1]
    name: Slug
    version: Version
    task: Task
    description: LongText
    classes: tuple[Text, ...]
    organ: Line | None = None
    stain: Line | None = None
    tissue: Line | None = None
    scanner: Line | None = None
    input: ModelInput
    model: dict[str, Any]
    files: dict[Literal["model.safetensors", "README.md"], FileRecord]
    weights: Weights
    training: Training | None = None
    parents: tuple[Parent, ...] = ()
    metrics: tuple[Evaluation, ...] = ()
    plugins: tuple[PluginNeed, ...] = ()
    #: Of a detector: what scores lower is left out unless the user says otherwise; null gives everything.
    score_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    licence: Spdx
    commercial_use: bool
    attributions: tuple[Attribution, ...] = ()
    intended_use: MaybeLongText | None = None
    limits: MaybeLongText | None = None
    golden: Golden | None = None
    created: datetime.date
    digest: Sha256

    @field_validator("classes")
    @classmethod
    def _classes_are_unique(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({name for name in classes if classes.count(name) > 1})
        if twice:
            raise ValueError(f"class names must be unique; twice: {', '.join(twice)}")
        return classes

    @model_validator(mode="after")
    def _check(self) -> "Manifest":
        if self.task in ("classification", "segmentation", "detection") and not self.classes:
            raise ValueError(f"a {self.task} model needs class names")
        if self.score_threshold is not None and self.task != "detection":
            raise ValueError(f"score_threshold {self.score_threshold:g} means nothing to {self.task}")
        if set(self.files) != {CARD_FILE, WEIGHTS_FILE}:
            raise ValueError(f"files must list {CARD_FILE} and {WEIGHTS_FILE}")
        licences = [self.licence, *(attribution.licence for attribution in self.attributions)]
        barred = [licence for licence in licences if re.search(r"(?:^|-)NC(?:-|$)", licence)]
        if self.commercial_use and barred:
            raise ValueError(f"commercial_use cannot be true under {barred[0]}")
        return self


def schema() -> dict[str, Any]:
    """The JSON Schema of model.json."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Manifest.model_json_schema()}


def write_schema(path: str | os.PathLike[str]) -> None:
    """Writes `schema()`."""
    write_json(path, schema())
