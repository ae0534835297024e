"""Decides whether a model folder can be trusted: whole, unchanged, plain data, free of identifiers. No torch.

`verify_model` reports everything that it finds; `require_verified` raises on the first.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pathzoo.errors import ZooError
from pathzoo.fileio import sha256_file
from pathzoo.zoo import semver
from pathzoo.zoo.allowlist import find_part, find_refused, plugins_needed
from pathzoo.zoo.ancestry import find_differing
from pathzoo.zoo.card import render_card
from pathzoo.zoo.components import HEADS
from pathzoo.zoo.golden import QUANTITIES
from pathzoo.zoo.identifiers import Identifier, scan_json, scan_text
from pathzoo.zoo.manifest import CARD_FILE, MANIFEST_FILE, WEIGHTS_FILE, Manifest
from pathzoo.zoo.manifest_file import check_manifest
from pathzoo.zoo.weights import FLOAT_TYPES, Header, read_header

_PICKLES = {".pth", ".pt", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz"}


@dataclass(frozen=True)
class Problem:
    """One reason not to trust a folder: the file, and what is wrong with it."""

    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


@dataclass
class VerifyReport:
    """What was found. `name`, `version` and `digest` are None where model.json cannot be read."""

    folder: Path
    name: str | None = None
    version: str | None = None
    digest: str | None = None
    golden_checked: bool = False
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """As plain data, for `pathzoo verify --json`."""
        problems = [{"file": problem.file, "reason": problem.reason} for problem in self.problems]
        head = {"folder": str(self.folder), "name": self.name, "version": self.version, "digest": self.digest}
        return {**head, "ok": self.ok, "golden_checked": self.golden_checked, "problems": problems}


def verify_model(
    folder: str | os.PathLike[str], golden: bool = False, identifiers: Iterable[str | Identifier] = ()
) -> VerifyReport:
    """Checks a model folder.

    Schema and self-digest of model.json; SHA-256 and size of every file; no file missing and none beside those listed;
    safetensors by its header (never opened as anything else); the config against the allow-list; config, classes and
    input against each other; identifiers by pattern and by list; parents that lie in the same zoo, by their weights.

    Args:
        folder: The folder that holds model.json.
        golden: Also load the model and compute its golden outputs again; only where nothing else was found.
        identifiers: Texts that must not occur, e.g. a lab's patient ids.

    Returns:
        A report; it raises nothing for what a folder can contain.
    """
    folder = Path(folder)
    report = VerifyReport(folder)
    path = folder / MANIFEST_FILE
    if not path.is_file():
        report.problems.append(Problem(MANIFEST_FILE, "is missing, so this folder is no published model"))
        return report
    manifest, found = check_manifest(path.read_bytes())
    report.problems += [Problem(MANIFEST_FILE, f"{where}: {reason}" if where else reason) for where, reason in found]
    if manifest is None:
        return report
    report.name, report.version, report.digest = manifest.name, manifest.version, manifest.digest
    known = {item if isinstance(item, Identifier) else _given(item) for item in identifiers}
    report.problems += [*_files(folder, manifest), *_config(manifest), *find_inconsistent(manifest)]
    header = _weights(folder, manifest, report.problems)
    report.problems += _leaks(folder, manifest, header, known)
    report.problems += [Problem(MANIFEST_FILE, reason) for reason in find_differing(folder, manifest)]
    if golden and report.ok:
        report.problems += _golden(folder, manifest)
        report.golden_checked = True
    return report


def require_verified(folder: str | os.PathLike[str]) -> Manifest:
    """The manifest of a folder in which `verify_model` finds nothing.

    Raises:
        ZooError: With the first problem, and how many more there are.
    """
    report = verify_model(folder)
    if report.problems:
        more = len(report.problems) - 1
        raise ZooError(f"{folder}: not loaded: {report.problems[0]}{f' (and {more} more)' if more else ''}")
    manifest, _ = check_manifest((Path(folder) / MANIFEST_FILE).read_bytes())
    if manifest is None or manifest.digest != report.digest:
        raise ZooError(f"{folder}: {MANIFEST_FILE} changed while it was read")
    return manifest


def _given(value: str) -> Identifier:
    return Identifier("a given identifier", value)


def _files(folder: Path, manifest: Manifest) -> list[Problem]:
    problems = []
    for name, record in manifest.files.items():
        path = folder / name
        if not path.is_file():
            hint = (
                f"; fetch it from {manifest.weights.address}"
                if name == WEIGHTS_FILE and manifest.weights.address
                else ""
            )
            problems.append(Problem(name, f"is missing{hint}"))
        elif path.stat().st_size != record.size:
            problems.append(Problem(name, f"has {path.stat().st_size} bytes instead of {record.size}"))
        elif sha256_file(path) != record.sha256:
            problems.append(
                Problem(name, f"SHA-256 is not the {record.sha256[:12]}... of {MANIFEST_FILE}: it was changed")
            )
    for path in sorted(folder.iterdir()):
        if path.name not in {MANIFEST_FILE, *manifest.files}:
            kind = "a pickle, perhaps, " if path.suffix.lower() in _PICKLES else ""
            problems.append(Problem(path.name, f"{kind}is not listed in {MANIFEST_FILE}: remove it"))
    return problems


def _config(manifest: Manifest) -> list[Problem]:
    missing = [_missing_plugin(need.name, need.version) for need in manifest.plugins]
    problems = [Problem(MANIFEST_FILE, reason) for reason in missing if reason]
    if problems:  # its components are unknown for that reason: one line says it
        return problems
    found = [*find_refused(manifest.model), *find_part(manifest.model, manifest.task)]
    listed = {need.name for need in manifest.plugins}
    found += [
        ("plugins", f"does not list {name} {version}, whose components the model names")
        for name, version in sorted(plugins_needed(manifest.model).items())
        if name not in listed
    ]
    return [Problem(MANIFEST_FILE, f"{path}: {reason}") for path, reason in found]


def _missing_plugin(name: str, version: str) -> str | None:
    from pathzoo import plugins

    have = plugins.loaded().get(name)
    if have is None:
        return (
            f"needs the plug-in {name} {version}, which is not loaded: pip install '{name}>={version}' if you trust it"
        )
    if not semver.satisfies(have, version):
        return f"needs the plug-in {name} {version}, but {have} is loaded: pip install '{name}=={version}'"
    return None


def find_inconsistent(manifest: Manifest) -> list[Problem]:
    """Where the config, the classes and the input block tell different stories."""
    problems = []
    key = HEADS.get(manifest.task, "head")
    number = "n_classes" if manifest.task == "translation" else "num_classes"
    head = manifest.model.get(key)
    stated = head.get(number) if isinstance(head, dict) else None
    if stated is not None and stated != len(manifest.classes):
        problems.append(f"model.{key}.{number} is {stated}, but there are {len(manifest.classes)} classes")
    given = manifest.model.get("data_preprocessor")
    steps = given if isinstance(given, dict) else {}
    for name, declared in (("mean", manifest.input.mean), ("std", manifest.input.std)):
        used = steps.get(name)  # without one the model would see pictures that are not normalised
        if not isinstance(used, list) or used != list(declared):
            problems.append(f"model.data_preprocessor.{name} {used} is not input.{name} {list(declared)}")
    for swap in ("to_rgb", "bgr_to_rgb", "rgb_to_bgr"):  # each exchanges red and blue
        if steps.get(swap):
            problems.append(f"model.data_preprocessor.{swap} is true, but pictures are RGB already")
    return [Problem(MANIFEST_FILE, problem) for problem in problems]


def _weights(folder: Path, manifest: Manifest, problems: list[Problem]) -> Header | None:
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        return None
    try:
        header = read_header(path)
    except ZooError as error:
        problems.append(Problem(WEIGHTS_FILE, str(error).removeprefix(f"{WEIGHTS_FILE}: ")))
        return None
    declared = manifest.weights
    if len(header.tensors) != declared.n_tensors:
        problems.append(Problem(WEIGHTS_FILE, f"holds {len(header.tensors)} tensors instead of {declared.n_tensors}"))
    if header.float_types - {FLOAT_TYPES[declared.dtype]}:
        problems.append(
            Problem(WEIGHTS_FILE, f"holds {'/'.join(sorted(header.float_types))}, not only {declared.dtype}")
        )
    if header.n_elements < declared.n_parameters:
        problems.append(Problem(WEIGHTS_FILE, f"holds fewer than the {declared.n_parameters} parameters declared"))
    return header


def _leaks(folder: Path, manifest: Manifest, header: Header | None, known: Iterable[Identifier]) -> list[Problem]:
    known = list(known)
    found = [(MANIFEST_FILE, leak) for leak in scan_json(manifest.model_dump(mode="json"), known)]
    if header:
        texts = {"metadata": header.metadata, "tensors": dict.fromkeys(header.tensors)}
        found += [(WEIGHTS_FILE, leak) for leak in scan_json(texts, known)]
    card = folder / CARD_FILE
    if card.is_file():
        text = card.read_text(encoding="utf-8", errors="replace")
        # In a card that is exactly what the manifest gives, numbers are counts, and its texts were searched above.
        found += [(CARD_FILE, leak) for leak in scan_text(text, known, numbers=text != render_card(manifest))]
    return [Problem(file, str(leak)) for file, leak in found]


def _golden(folder: Path, manifest: Manifest) -> list[Problem]:
    if manifest.golden is None:
        return [Problem(MANIFEST_FILE, "golden: holds no golden outputs to compare with")]
    expected = QUANTITIES.get(manifest.task)
    if manifest.golden.quantity != expected:
        reason = f"golden: keeps {manifest.golden.quantity}; of a {manifest.task} model {expected} are compared"
        return [Problem(MANIFEST_FILE, reason)]
    from pathzoo.zoo.load import golden_outputs, load_folder

    try:
        outputs = golden_outputs(load_folder(folder), manifest.golden.seed, manifest.golden.n)
    except ZooError as error:
        return [Problem(WEIGHTS_FILE, str(error))]
    if [len(row) for row in outputs] != [len(row) for row in manifest.golden.outputs]:
        return [Problem(MANIFEST_FILE, "golden: the model gives outputs of another shape")]
    pairs = zip(outputs, manifest.golden.outputs, strict=True)
    worst = max(abs(a - b) for row, kept in pairs for a, b in zip(row, kept, strict=True))
    if not worst <= manifest.golden.atol:
        reason = f"golden: outputs differ by {worst:.3g} from those kept, more than {manifest.golden.atol:g}"
        return [Problem(MANIFEST_FILE, reason)]
    return []
