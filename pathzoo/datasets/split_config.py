"""The schemes that a split can be asked for by, their keys, defaults and bounds. Needs no torch."""

from collections.abc import Mapping
from typing import Any

from pathzoo.errors import ConfigError
from pathzoo.nearest import did_you_mean

_LABEL_KEYS = {
    "label_fraction": 1.0,
    "val_label_fraction": 1.0,
    "label_balance": "equal",
    "label_grouping": "image",
}
_RATIOS = {"train": 0.7, "val": 0.1, "test": 0.2}
#: scheme -> its keys with their defaults
SCHEMES: dict[str, dict[str, Any]] = {
    "patient_kfold": {"k": 5, "fold": 0, "seed": 0, **_LABEL_KEYS},
    "patient_ratio": {"ratios": _RATIOS, "seed": 0, **_LABEL_KEYS},
    "official_slide_groups": {"file": None, "fold": None, "val_ratio": 0.0, "seed": 0, **_LABEL_KEYS},
    "held_out_patients": {"test": (), "val": (), "seed": 0, **_LABEL_KEYS},
    "by_image_leaky": {"ratios": _RATIOS, "seed": 0, **_LABEL_KEYS},
    "none": {"seed": 0},
}


def checked_scheme(split: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The scheme and all its values, defaults filled in.

    Raises:
        ConfigError: no or an unknown scheme, an unknown key (the nearest is named), a value out of bounds.
    """
    scheme = split.pop("scheme", None)
    if scheme is None:
        raise ConfigError(f"split: give scheme=..., one of {', '.join(SCHEMES)}, or the path of a saved split")
    if scheme not in SCHEMES:
        raise ConfigError(f"split: unknown scheme {scheme!r}{did_you_mean(scheme, SCHEMES)}")
    for key in split:
        if key not in SCHEMES[scheme]:
            raise ConfigError(f"split: the scheme {scheme} has no key {key!r}{did_you_mean(key, SCHEMES[scheme])}")
    values = {**SCHEMES[scheme], **split}
    for key, value, good, want in _rules(scheme, values):
        if not good:
            raise ConfigError(f"split: {key}={value!r} of the scheme {scheme}: {want}")
    if "ratios" in values:
        values["ratios"] = {str(name): float(share) for name, share in values["ratios"].items()}
    return scheme, values


def _rules(scheme: str, values: Mapping[str, Any]) -> list[tuple[str, Any, bool, str]]:
    """(key, value, is it good, what it has to be) of every value that the scheme takes."""
    rules = [("seed", values["seed"], _is_int(values["seed"]), "give a whole number")]
    if scheme == "patient_kfold":
        k, fold = values["k"], values["fold"]
        rules.append(("k", k, _is_int(k) and k >= 3, "give 3 or more: one fold tests, one validates, the rest trains"))
        rules.append(("fold", fold, _is_int(fold) and _is_int(k) and 0 <= fold < k, "give 0 to k - 1"))
    if "ratios" in values:
        rules.append(
            ("ratios", values["ratios"], _are_ratios(values["ratios"]), "give train, test and by choice val, sum 1")
        )
    if scheme == "official_slide_groups":
        rules.append(("file", values["file"], bool(values["file"]), "give a hold-out file such as dsfold1.txt"))
        fold, share = values["fold"], values["val_ratio"]
        rules.append(("fold", fold, fold is None or _is_int(fold), "give the number of the hold-out, or None"))
        rules.append(("val_ratio", share, _is_number(share) and 0 <= share < 1, "give 0 (no validation) to below 1"))
    if scheme == "held_out_patients":
        test, val = values["test"], values["val"]
        rules.append(("test", test, _are_names(test) and bool(test), "give a list of at least one patient"))
        rules.append(("val", val, _are_names(val), "give a list of patients"))
        both = sorted(set(test) & set(val)) if _are_names(test) and _are_names(val) else []
        rules.append(("val", val, not both, f"{', '.join(both)} would be tested on too"))
    if "label_fraction" in values:
        for key in ("label_fraction", "val_label_fraction"):
            share = values[key]
            rules.append((key, share, _is_number(share) and 0 < share <= 1, "give above 0, at most 1"))
        for key, choice in (("label_balance", ("equal", "proportional")), ("label_grouping", ("image", "patient"))):
            rules.append((key, values[key], values[key] in choice, f"give {choice[0]!r} or {choice[1]!r}"))
    return rules


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _are_names(names: Any) -> bool:
    return isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)


def _are_ratios(ratios: Any) -> bool:
    return (
        isinstance(ratios, Mapping)
        and {"train", "test"} <= set(ratios) <= {"train", "val", "test"}
        and all(_is_number(share) and share >= 0 for share in ratios.values())
        and ratios["train"] > 0
        and abs(sum(ratios.values()) - 1) < 1e-6
    )
