"""Who is trained on and who is tested on: splits as files, grouped by patient, checked for leakage. Needs no torch.

    split = resolve_split(items, dict(scheme="patient_kfold", k=5, fold=0, seed=0), classes)
    split.save("splits.json")                       # reuse: resolve_split(items, "splits.json", classes)

| scheme | subsets | grouped by |
|---|---|---|
| `patient_kfold` | fold f tests, fold (f + 1) % k validates, the rest trains | patient |
| `patient_ratio` | as `ratios` says | patient |
| `official_slide_groups` | BreakHis hold-out file; `val_ratio` of its training patients validates | slide folder |
| `held_out_patients` | the patients named in `test` and `val` (a hospital, a scanner), the rest trains | patient |
| `by_image_leaky` | as `ratios` says, images of one patient on all sides: scores are inflated | nothing |
| `none` | all images in subset `all` | nothing |

With `label_fraction` below 1, the rest of the training images stands in the subset `unlabelled`: same side as `train`.
So do images that nobody has labelled; their patients may not be validated or tested on. `val_label_fraction` thins the
validation subset in the same way, for who has few labels has few to choose an epoch by; what it leaves out stands in
`val_unlabelled`, which nothing trains on and nothing is judged on.
"""

import json
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pathzoo.datasets.leakage import KEPT_OUT, check_leakage, first_names, group_of, refuse_tested
from pathzoo.datasets.official_holdout import deal_official
from pathzoo.datasets.slide_names import Origins
from pathzoo.datasets.split_caveats import caveats, names_behind
from pathzoo.datasets.split_config import SCHEMES, checked_scheme
from pathzoo.datasets.split_schemes import SplitItem, deal_images, deal_named, deal_patients, take_fraction
from pathzoo.errors import ConfigError, DataError
from pathzoo.fileio import canonical_json, sha256_bytes, write_json

__all__ = ["SCHEMES", "Split", "SplitItem", "SplitWarning", "Subset", "caveats", "check_leakage", "resolve_split"]

_GROUP_KEY = {"official_slide_groups": "slide", "by_image_leaky": "image"}
_FIELDS = ("format", "scheme", "seed", "group_key", "parameters", "classes", "n_unknown_patients_items", "subsets")


class SplitWarning(UserWarning):
    """A split that may be used, but whose scores need the sentence beside them."""


@dataclass(frozen=True)
class Subset:
    """Images of one role: item -> SHA-256 of its bytes, and the groups (patients, slide folders) they come from.

    `origins`, their slides and how many tell neither slide nor patient, is None in files of earlier versions.
    """

    items: Mapping[str, str]
    groups: tuple[str, ...] = ()
    origins: Origins | None = None

    @classmethod
    def of(cls, items: Sequence[SplitItem], key: str = "patient") -> "Subset":
        """Of images that are kept together by `key`: "patient", "slide", or "image" for not at all."""
        return cls(
            {item.item: item.sha256 for item in items},
            () if key == "image" else tuple(sorted({group_of(item, key) for item in items})),
            Origins.of((item.slide, item.patient) for item in items),
        )


@dataclass(frozen=True)
class Split:
    """Subsets of a data set, and how they came about.

    Attributes:
        scheme: how it was made, a key of `SCHEMES`.
        subsets: name ("train", "val", "test", "unlabelled", "val_unlabelled" or "all") -> `Subset`.
        classes: names in the order of the labels that were balanced.
        seed: of all random choices.
        parameters: the scheme's other arguments.
        group_key: what is kept together: "patient", "slide" (official hold-outs) or "image" (nothing is).
        n_unknown_patients_items: images whose patient is not known; they are one group.
    """

    scheme: str
    subsets: Mapping[str, Subset]
    classes: tuple[str, ...]
    seed: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict)
    group_key: str = "patient"
    n_unknown_patients_items: int = 0

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of everything else: two splits are the same when their digests are.

        Where images come from is no part of it: a slide's name that is filled in later makes no other split.
        """
        return sha256_bytes(canonical_json(self._content()))

    def save(self, path: str | Path) -> None:
        """Writes `splits.json`, whole or not at all. It names patients: keep it with the data, never publish it."""
        content = self._content()
        for name, part in self.subsets.items():
            if part.origins is not None:
                content["subsets"][name]["origins"] = part.origins.to_json()
        write_json(path, {**content, "digest": self.digest})

    @classmethod
    def load(cls, path: str | Path) -> "Split":
        """Reads what `save` wrote.

        Raises:
            ConfigError: no such file.
            DataError: not a split, of a newer format, or changed since it was saved (the digest differs).
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(
                f"{path}: no such split file; give one that Split.save wrote, or a dict(scheme=...)"
            ) from None
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is not a split file ({error}): make the split anew") from None
        if not isinstance(content, dict) or content.get("format") != 1:
            found = content.get("format") if isinstance(content, dict) else type(content).__name__
            raise DataError(f"{path}: expected a split of format 1, found {found!r}: make the split anew")
        missing = [name for name in (*_FIELDS, "digest") if name not in content]
        if missing:
            raise DataError(f"{path}: the field {missing[0]!r} is missing: restore the file or make the split anew")
        digest = content.pop("digest")
        origins = _taken_origins(content["subsets"], path)
        if sha256_bytes(canonical_json(content)) != digest:
            raise DataError(f"{path} was changed after it was saved (its digest differs): restore it or split anew")
        return cls(
            scheme=content["scheme"],
            subsets={
                name: Subset(part["items"], tuple(part["groups"]), origins[name])
                for name, part in content["subsets"].items()
            },
            classes=tuple(content["classes"]),
            seed=content["seed"],
            parameters=content["parameters"],
            group_key=content["group_key"],
            n_unknown_patients_items=content["n_unknown_patients_items"],
        )

    def _content(self) -> dict[str, Any]:
        subsets = {
            name: {"groups": sorted(part.groups), "items": dict(sorted(part.items.items()))}
            for name, part in self.subsets.items()
        }
        values = (1, self.scheme, self.seed, self.group_key, dict(self.parameters), list(self.classes))
        return dict(zip(_FIELDS, (*values, self.n_unknown_patients_items, subsets), strict=True))


def _taken_origins(subsets: dict[str, Any], path: str | Path) -> dict[str, Origins | None]:
    """Takes what the digest does not cover out of a split file's subsets."""
    try:
        taken = {name: part.pop("origins", None) for name, part in subsets.items()}
        return {name: None if one is None else Origins(**one) for name, one in taken.items()}
    except (AttributeError, TypeError) as error:
        raise DataError(f"{path} is not a split file (subsets: {error}): make the split anew") from None


def resolve_split(
    items: Sequence[SplitItem],
    split: Mapping[str, Any] | str | Path,
    classes: Sequence[str],
    left_out: Collection[str] = (),
    unlabelled: Sequence[SplitItem] = (),
    leave_out_tested: bool = False,
) -> Split:
    """Makes a split, or takes a saved one and holds the data against it.

    Args:
        items: all images, each id once.
        split: `dict(scheme=..., ...)` with keys of `SCHEMES`, or the path of a `splits.json`.
        classes: names; `item.label` is an index into them.
        left_out: ids that the data has but this use of it does not want (another magnification): a saved split may
            name them.
        unlabelled: images that have no label (`label` -1): they join the subset `unlabelled`.
        leave_out_tested: leave those whose patient is validated or tested on out of every subset, in place of an error.

    Returns:
        A split without leakage.

    Raises:
        ConfigError: unknown scheme or key, a value out of range, no such file.
        DataError: too few patients; a saved split whose images are missing or changed, or whose classes differ.
        LeakageError: a patient, or identical bytes, on two sides; an unlabelled image of a patient who is validated or
            tested on.

    Warns:
        SplitWarning: split by image; patients straddling official groups; unknown patients; patients on two sides
            whose names differ in writing alone (`P-7`, `p_007`); a class missing from a subset since it has too few
            patients; images that a saved split does not name.
    """
    if isinstance(split, (str, Path)):
        result = _hold_against(Split.load(split), [*items, *unlabelled], tuple(classes), left_out, Path(split))
        _no_label_needed(result, unlabelled, Path(split))
    else:
        result = _make(items, dict(split), tuple(classes), unlabelled, leave_out_tested)
    everything = [*items, *unlabelled]
    check_leakage(result, everything)
    for text in [*caveats(result, everything), *names_behind(result, everything)]:
        warnings.warn(text, SplitWarning, stacklevel=2)
    return result


def no_such_subset(split: Split, subset: str) -> str:
    """What to say, and to do, where `split` has no such subset."""
    remedy = "choose one of these or another split"
    if subset == "val" and ("ratios" in split.parameters or "val_ratio" in split.parameters):
        key = "val_ratio, e.g. 0.15," if "val_ratio" in split.parameters else "a share of val in its ratios,"
        remedy = f"give the split {key} or train without validation (--no-validate)"
    elif subset == "unlabelled" and "label_fraction" in split.parameters:
        remedy = "nothing is left without a label: list images that have none, or give a label_fraction below 1"
    has = ", ".join(split.subsets)
    return f"subset={subset!r}: the split ({split.scheme}) has no such subset, but {has}: {remedy}"


def _make(
    items: Sequence[SplitItem],
    split: dict[str, Any],
    classes: tuple[str, ...],
    unlabelled: Sequence[SplitItem] = (),
    leave_out_tested: bool = False,
) -> Split:
    scheme, values = checked_scheme(split)
    if scheme == "none":
        items, unlabelled = [*items, *unlabelled], ()
    if not items:
        raise DataError("there is no image to split: the list or folder is empty, or everything was left out")
    items = sorted(items, key=lambda item: item.item)
    seed = values["seed"]
    if scheme == "none":
        dealt = {"all": items}
    elif scheme == "patient_kfold":
        folds = deal_patients(items, [1 / values["k"]] * values["k"], seed)
        fold, after = values["fold"], (values["fold"] + 1) % values["k"]
        rest = [item for number, part in enumerate(folds) if number not in (fold, after) for item in part]
        dealt = {"train": rest, "val": folds[after], "test": folds[fold]}
    elif scheme == "official_slide_groups":
        train, test = deal_official(items, values["file"], values["fold"])
        val: list[SplitItem] = []
        if values["val_ratio"]:
            train, val = deal_patients(train, [1 - values["val_ratio"], values["val_ratio"]], seed)
        dealt = {"train": train, "val": val, "test": test}
        values["file"] = Path(values["file"]).name
    elif scheme == "held_out_patients":
        dealt = deal_named(items, {name: values[name] for name in ("val", "test")})
    else:
        names = [name for name, share in values["ratios"].items() if share > 0]
        deal = deal_patients if scheme == "patient_ratio" else deal_images
        dealt = dict(zip(names, deal(items, [values["ratios"][name] for name in names], seed), strict=True))
    for name, fraction, rest in (
        ("train", "label_fraction", "unlabelled"),
        ("val", "val_label_fraction", "val_unlabelled"),
    ):
        if values.get(fraction, 1) < 1 and dealt.get(name):
            how = (values["label_balance"], values["label_grouping"])
            kept = take_fraction(dealt[name], values[fraction], classes, seed, *how, key=fraction)
            dealt[rest] = [item for item in dealt[name] if item.item not in kept]
            dealt[name] = [item for item in dealt[name] if item.item in kept]
    key = _GROUP_KEY.get(scheme, "patient")
    if unlabelled:
        kept_out = {group_of(item, key): name for name in KEPT_OUT for item in dealt.get(name, ())}
        if not leave_out_tested:
            refuse_tested(unlabelled, kept_out, key)
        rest = [item for item in unlabelled if key == "image" or group_of(item, key) not in kept_out]
        dealt["unlabelled"] = sorted([*dealt.get("unlabelled", ()), *rest], key=lambda item: item.item)
    subsets = {name: Subset.of(part, key) for name, part in dealt.items() if part}
    unknown = sum(item.patient is None for item in (*items, *unlabelled))
    # A key that came later and changes nothing leaves the digests of earlier splits as they are.
    silent = {"seed"} | ({"val_label_fraction"} if values.get("val_label_fraction") == 1 else set())
    parameters = {name: value for name, value in values.items() if name not in silent}
    return Split(scheme, subsets, classes, seed, parameters, key, unknown)


def _no_label_needed(split: Split, unlabelled: Sequence[SplitItem], path: Path) -> None:
    """Raises where a saved split wants the label of an image that has none."""
    for item in unlabelled:
        for name, part in split.subsets.items():
            if item.item in part.items and name not in ("unlabelled", "all"):
                raise DataError(f"{path}: {item.item} stands in {name!r} but has no label: label it or split anew")


def _hold_against(
    split: Split, items: Sequence[SplitItem], classes: tuple[str, ...], left_out: Collection[str], path: Path
) -> Split:
    """`split` itself, once every image that it names is there with the same bytes."""
    if split.classes != classes:
        raise DataError(
            f"{path} was made for the classes {split.classes}, the data has {classes}: give these or split anew"
        )
    have = {item.item: item.sha256 for item in items}
    away = set(left_out)
    named = {item: sha256 for part in split.subsets.values() for item, sha256 in part.items.items()}
    missing = sorted(item for item in named if item not in have and item not in away)
    if missing:
        raise DataError(
            f"{path} names {len(missing)} images that the data lacks or skipped as damaged ({first_names(missing)}): "
            "restore them or make the split anew"
        )
    changed = sorted(item for item, sha256 in named.items() if item in have and have[item] != sha256)
    if changed:
        raise DataError(
            f"{path}: the bytes of {len(changed)} images changed since the split was saved ({first_names(changed)}): "
            "restore them or make the split anew"
        )
    return split
