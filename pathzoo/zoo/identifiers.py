"""Looks for what could lead back to a person in the texts of a published folder: ids, file names, users, hosts, paths.

Known identifiers (from splits.json and from this machine) are matched as whole tokens; patterns find the common forms
of unknown ones. The values that this module finds are shown to the publisher only, never written.
"""

import contextlib
import getpass
import os
import re
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

#: (kind, pattern) of identifiers that are recognisable without a list
_PATTERNS = [
    ("a BreakHis file name", re.compile(r"SOB_[BM]_[A-Z]{1,2}[-_]\d{2}-\w+", re.IGNORECASE)),
    ("a BreakHis slide id", re.compile(r"(?<![^\W_])(?:A|F|TA|PT|DC|LC|MC|PC)-\d{2}-\d{3,6}[A-Z]{0,3}(?![^\W_])")),
    ("a slide id", re.compile(r"(?<![^\W_])\d{2}-\d{3,6}[A-Z]{1,3}(?![^\W_])")),
    ("a TCGA barcode", re.compile(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}", re.IGNORECASE)),
    ("an e-mail address", re.compile(r"[\w.+-]+@(?:[\w-]+\.)+[A-Za-z]{2,}")),
    ("a DICOM UID", re.compile(r"(?<![\w.])[0-2](?:\.\d+){5,}(?![\w.])")),
    ("an absolute path", re.compile(r"(?<![\w/:.)\]}>*-])/(?:[\w.@+-]+/)+[\w.@+-]*|file:/+\w")),
    ("an absolute path", re.compile(r"(?<![\w/:.])/(?:home|root|Users|mnt|media|scratch|tmp|data|var)(?![\w.-])")),
    ("an absolute path", re.compile(r"(?<![\w~])~[\w-]*/\w|(?<!\w)[A-Za-z]:\\\w|\\\\\w[\w.-]*\\\w")),
]
#: Caveats count pictures and patients (any count may equal an id) and name none; those of older records did.
_IN_CAVEATS = [
    ("a file name", re.compile(r"[\w.-]+\.(?:png|jpe?g|tiff?|bmp|svs|ndpi|mrxs|scn|dcm|nii)(?![a-z])", re.IGNORECASE))
]
_CAVEAT = re.compile(r"(?:^|\.)caveats\[\d+\]$")
#: accounts and hosts that every second machine has; as words of a card they say nothing
_COMMON_NAMES = {
    "root",
    "user",
    "admin",
    "ubuntu",
    "debian",
    "runner",
    "docker",
    "jovyan",
    "nobody",
    "localhost",
    "main",
}
#: words of any card that are also found as file stems
_COMMON_WORDS = {"unknown", "none", "image", "img", "tile", "patch", "slide", "mask", "patient", "train", "val", "test"}
#: words of folder names that say nothing about a person: parts of a data set, tissues, diagnoses
_GENERIC_TEXT = """
training validation valid testing images tiles patches slides masks labels annotations patients cases data
dataset datasets folder files other others class classes level histology pathology micrographs sob breakhis v1
benign malignant normal tumor tumour healthy cancer carcinoma adenosis adenoma fibroadenoma phyllodes tubular
ductal lobular mucinous papillary adenocarcinoma metastasis stroma necrosis lymphocytes mucosa muscle adipose
background debris tissue breast kidney colon lung prostate liver stomach skin brain ovary lymph node he ihc
"""
_GENERIC_WORDS = _COMMON_WORDS | set(_GENERIC_TEXT.split())
_MAGNIFICATION = re.compile(r"\d{1,3}x", re.IGNORECASE)
#: as BreakHis writes them into file names: year, a number, letters where a patient has several
_SLIDE_ID = re.compile(r"(?<![^\W_])\d{2}-\d{3,6}[A-Z]{0,3}(?![^\W_])")
#: shorter folder names without a digit are found in every card
_MIN_NAME = 5
_TOKEN = re.compile(r"[^\W_]+")
#: fields whose digits are machine-made (dates, versions, digests); bare numbers are not looked for in them
_MACHINE_MADE = re.compile(r"(?:^|\.)(?:created|commit|sha256|\w*digest|\w*version|versions\..*|patient_hashes\..*)$")


@dataclass(frozen=True, order=True)
class Identifier:
    """Something that must not be published: what `kind` of thing it is, and its text."""

    kind: str
    value: str


@dataclass(frozen=True)
class Leak:
    """Where an identifier was found: `where` is a key path of a JSON text, or empty for plain text."""

    kind: str
    value: str
    where: str

    def __str__(self) -> str:
        return f"holds {self.kind}, {self.value!r}{f', in {self.where}' if self.where else ''}"


def from_split(split: dict[str, Any]) -> set[Identifier]:
    """The identifiers in a splits.json: patients, slides, items' names, stems and digests, and their folders' names.

    A folder's name counts unless it is short or made of class names and generic words only (train, images, 40X).
    """
    classes = {str(name).casefold() for name in split.get("classes") or ()}
    generic = _GENERIC_WORDS | {token for name in classes for token in _TOKEN.findall(name)}
    found = {Identifier("a slide id", str(slide)) for slide in split.get("slides") or () if slide is not None}
    for subset in (split.get("subsets") or {}).values():
        found |= {Identifier("a patient id", str(group)) for group in subset.get("groups") or () if group is not None}
        slides = (subset.get("origins") or {}).get("slides") or ()
        found |= {Identifier("a slide id", str(slide)) for slide in slides}
        for item, digest in dict(subset.get("items") or {}).items():
            path = PurePosixPath(str(item))
            found |= {Identifier("a file name", str(item)), Identifier("a file name", path.name)}
            found.add(Identifier("a file name", path.stem))
            for slide in _SLIDE_ID.findall(path.stem):
                found |= {Identifier("a slide id", slide), Identifier("a slide id", slide.partition("-")[2])}
            names = {part for part in path.parts[:-1] if _may_identify(part, generic)}
            found |= {Identifier("an id in a folder's name", name) for name in names}
            found.add(Identifier("an image's digest", str(digest)))
    return {item for item in found if item.value.casefold() not in classes | _COMMON_WORDS}


def from_machine(folders: Iterable[str | os.PathLike[str]] = ()) -> set[Identifier]:
    """User, host and home of this machine, and the absolute paths of `folders`."""
    found = {Identifier("an absolute path", str(Path(folder).resolve())) for folder in (Path.home(), *folders)}
    host = socket.gethostname()
    names = {("the host's name", host), ("the host's name", host.split(".")[0])}
    with contextlib.suppress(KeyError, OSError):  # an account without a name, as in some containers
        names.add(("the user's name", getpass.getuser()))
    found |= {Identifier(kind, name) for kind, name in names if len(name) > 2 and name.casefold() not in _COMMON_NAMES}
    return {item for item in found if item.value != "/"}


def scan_json(content: Any, known: Iterable[Identifier] = ()) -> list[Leak]:
    """Searches every key and every text value of parsed JSON. Numbers are not texts: a count may equal an id."""
    return _scan(list(_texts(content, "")), known, whole_values=True)


def scan_text(text: str, known: Iterable[Identifier] = (), numbers: bool = True) -> list[Leak]:
    """Searches plain text.

    Args:
        text: E.g. a card.
        known: Identifiers to look for, beside the patterns. Those shorter than 3 characters are left out: as tokens of
            running text they would be found everywhere.
        numbers: Whether ids of digits alone are looked for; not useful where the text is known to be generated, since
            any count may equal one.
    """
    wanted = [item for item in known if numbers or not item.value.isdigit()]
    return _scan([("", text)], wanted, whole_values=False)


def _scan(texts: list[tuple[str, str]], known: Iterable[Identifier], whole_values: bool) -> list[Leak]:
    leaks = [
        Leak(kind, match.group(), where)
        for where, text in texts
        for kind, pattern in (*_PATTERNS, *(_IN_CAVEATS if _CAVEAT.search(where) else ()))
        for match in pattern.finditer(text)
    ]
    tokens = {token.casefold() for _, text in texts for token in _TOKEN.findall(text)}
    for item in sorted(set(known)):
        parts = _TOKEN.findall(item.value.casefold())
        # Look-ups in a set first: of 200,000 ids that all begin with "slide_", hardly one has every part in the texts.
        if parts and all(part in tokens for part in parts):
            holding = (where for where, text in texts if _holds(item, where, text, whole_values))
            leaks += [Leak(item.kind, item.value, where) for where in holding]
    return leaks


def _holds(item: Identifier, where: str, text: str, whole_values: bool) -> bool:
    value = item.value
    if len(value) < 3:
        return whole_values and text == value
    if value.isdigit() and (_MACHINE_MADE.search(where) or _CAVEAT.search(where)):
        return False
    if item.kind == "an absolute path":
        return re.search(rf"(?<![\w/.]){re.escape(value)}(?!\w)", text) is not None
    # Names of users and hosts are often words (anna, titan): as an author's name they are no leak.
    flags = 0 if item.kind.endswith("name") and item.kind.startswith("the ") else re.IGNORECASE
    return re.search(rf"(?<![^\W_]){re.escape(value)}(?![^\W_])", text, flags) is not None


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, entry in value.items():
            where = f"{path}.{key}" if path else key
            yield where, key
            yield from _texts(entry, where)
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _texts(entry, f"{path}[{index}]")
    elif isinstance(value, str):
        yield path, value


def _may_identify(part: str, generic: set[str]) -> bool:
    if len(part) < _MIN_NAME and not any(letter.isdigit() for letter in part):
        return False
    tokens = _TOKEN.findall(part.casefold())
    return not all(token in generic or _MAGNIFICATION.fullmatch(token) for token in tokens)
