"""README.md of a published model: a pure function of its manifest. No torch.

It shows the weights' digest, not the manifest's: the manifest lists the card's own SHA-256.
"""

from collections.abc import Iterable

from pathzoo.zoo.inputs import WORDS, form_of
from pathzoo.zoo.manifest import WEIGHTS_FILE, Evaluation, Manifest, ModelInput, Training

#: task -> what a call returns, in a few words
_OUTPUTS = {
    "classification": "probabilities",
    "segmentation": "probabilities (N, C, H, W)",
    "detection": "boxes",
    "representation": "vectors (N, D)",
    "translation": "pictures (N, K, H, W)",
}


def render_card(manifest: Manifest) -> str:
    """The card as Markdown."""
    parts = [
        f"# {manifest.name} {manifest.version}",
        _cell(manifest.description),
        _warning(manifest),
        _loading(manifest),
        "## Input\n\n" + _table(("what", "value"), _input_rows(manifest.input)),
        "## Output\n\n" + _output(manifest),
        "## How well it does\n\n" + _metrics(manifest.metrics) + _what_metrics_mean(manifest),
        "## What it was trained on\n\n" + _training(manifest.training),
        _caveats(manifest),
        "## Use\n\n" + _use(manifest),
        "## Licence\n\n" + _licence(manifest),
        "## Files\n\n" + _files(manifest),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _warning(manifest: Manifest) -> str:
    if manifest.training and manifest.training.synthetic:
        return "**Trained on synthetic images: a demonstration, without any meaning for tissue of patients.**"
    return ""


def _loading(manifest: Manifest) -> str:
    out = _OUTPUTS.get(manifest.task)
    form = form_of(manifest)
    given = "uint8 (N, H, W, 3) RGB" if form == "pictures" else WORDS[form]
    comment = f"  # model({'tiles' if form == 'pictures' else form}): {given} in, {out} out" if out else ""
    return f'```python\nimport pathzoo\nmodel = pathzoo.get_model("{manifest.name}"){comment}\n```'


def _output(manifest: Manifest) -> str:
    if manifest.score_threshold is not None:
        return (
            f"{manifest.task}: {_list(manifest.classes)}. `pathzoo predict` gives what scores "
            f"{manifest.score_threshold:g} or more; `--score-threshold` sets another threshold."
        )
    if manifest.classes:
        return f"{manifest.task}: {_list(manifest.classes)}"
    if manifest.task != "representation" or manifest.golden is None:
        return manifest.task
    n = len(manifest.golden.outputs[0])
    return (
        f"representation: a vector of {n} numbers for each tile, the mean of the last map; no classes. Vectors are "
        "compared by their direction (cosine similarity), or a classifier is trained on them."
    )


def _what_metrics_mean(manifest: Manifest) -> str:
    if manifest.task != "representation" or not manifest.metrics:
        return ""
    return (
        "\n\nFigures of the task that the network was pretrained by say how training went, not how well its vectors "
        "serve another task."
    )


def _input_rows(spec: ModelInput) -> list[tuple[str, str]]:
    rows = [("tile (width x height)", f"{spec.tile_size[0]} x {spec.tile_size[1]} px")]
    if spec.hu_window:
        rows.append(("window", f"{spec.hu_window[0]:g} to {spec.hu_window[1]:g} HU"))
    elif spec.mpp is None:
        rows.append(("resolution", "unknown in training: takes images, not slides"))
    else:
        rows.append(("resolution", f"{spec.mpp:g} µm/px, tolerance {spec.mpp_tolerance:.0%}"))
    if spec.resize.kind == "short_side":
        rows.append(("whole images", f"short side to {spec.resize.size} px, then the centre"))
    else:
        rows.append(("whole images", "to the resolution above, then the centre"))
    rows.append(("channels", f"{spec.channels}, {spec.value_range[0]:g} to {spec.value_range[1]:g}"))
    rows.append(("mean", ", ".join(f"{value:g}" for value in spec.mean)))
    rows.append(("standard deviation", ", ".join(f"{value:g}" for value in spec.std)))
    if spec.stain_fit:
        rows.append(("stain", f"normalised ({spec.stain_fit.method})"))
    return rows


def _metrics(evaluations: tuple[Evaluation, ...]) -> str:
    if not evaluations:
        return "Not measured."
    parts = []
    for evaluation in evaluations:
        on = f"On {_cell(evaluation.dataset)}, subset {_cell(evaluation.subset)}"
        on += f" of the split {_cell(evaluation.split)}" if evaluation.split else ""
        on += " (synthetic images)" if evaluation.synthetic else ""
        rows = [
            (row.metric, row.level, str(row.n), f"{row.value:.3f}", _interval(row.low, row.high))
            for row in evaluation.rows
        ]
        parts.append(f"{on}:\n\n" + _table(("metric", "level", "n", "value", "95 % interval"), rows))
        parts += [_curve(evaluation)] if evaluation.curve else []
    parts.append("Intervals are bootstraps over patients; without known patients there is none.")
    return "\n\n".join(parts)


def _curve(evaluation: Evaluation) -> str:
    """What thresholds give there."""
    level = evaluation.rows[0].level if evaluation.rows else "picture"
    rows = [
        (
            f"{point.threshold:.4f}",
            *(f"{value:.3f}" for value in (point.precision, point.recall, point.f1)),
            f"{point.false_positives:.2f}",
        )
        for point in evaluation.curve
    ]
    head = ("threshold", "precision", "recall", "F1", f"false detections per {level}")
    best = max(evaluation.curve, key=lambda point: (point.f1, point.recall))
    return (
        f"What a threshold gives there (`--score-threshold` of `pathzoo predict`); F1 is highest at "
        f"{best.threshold:.4f}, which was chosen on these {level}s:\n\n{_table(head, rows)}"
    )


def _interval(low: float | None, high: float | None) -> str:
    return "none" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _training(training: Training | None) -> str:
    if training is None:
        return "Not recorded."
    facts = [
        ("study", training.study),
        ("data set", training.dataset),
        ("split", training.split.scheme if training.split else None),
        ("config", training.config),
        ("seed", training.seed),
        ("epochs", training.epochs),
        ("initial weights", training.initial_weights.source if training.initial_weights else None),
        ("licence of the initial weights", training.initial_weights.licence if training.initial_weights else None),
    ]
    known = [(name, str(value)) for name, value in facts if value is not None]
    if not known and not training.counts:
        return "Not recorded."
    text = _table(("what", "value"), known)
    rows = [
        (
            subset,
            str(counts.images),
            str(counts.patients),
            str(counts.unknown_patient_images),
            ", ".join(f"{name} {count}" for name, count in counts.per_class.items()),
        )
        for subset, counts in training.counts.items()
    ]
    if rows:
        head = ("subset", "images", "known patients", "images of unknown patients", "images of each class")
        text += "\n\n" + _table(head, rows)
    return text


def _caveats(manifest: Manifest) -> str:
    """What the records of training and testing say against the figures above; a sentence of both stands once."""
    texts = [text for evaluation in manifest.metrics for text in evaluation.caveats]
    texts += manifest.training.caveats if manifest.training else ()
    if not texts:
        return ""
    lines = "\n".join(f"- {_cell(text)}" for text in dict.fromkeys(texts))
    return f"## Caveats\n\nThe records of its training and testing say besides:\n\n{lines}"


def _use(manifest: Manifest) -> str:
    where = {"organ": manifest.organ, "stain": manifest.stain, "tissue": manifest.tissue, "scanner": manifest.scanner}
    lines = [f"Intended use: {_cell(manifest.intended_use or 'research; no use is declared')}"]
    lines.append(f"Limits: {_cell(manifest.limits or 'not described')}")
    lines.append("Not a medical device; not for diagnosis.")
    known = [f"{name}: {_cell(value)}" for name, value in where.items() if value]
    return "\n\n".join([*lines, *([", ".join(known) + "."] if known else [])])


def _licence(manifest: Manifest) -> str:
    use = "allowed" if manifest.commercial_use else "not allowed"
    text = f"Weights: {manifest.licence}. Commercial use: {use}."
    if manifest.attributions:
        rows = [(item.title, item.authors, item.licence, item.reference) for item in manifest.attributions]
        text += "\n\nMade from:\n\n" + _table(("title", "authors", "licence", "reference"), rows)
    return text


def _files(manifest: Manifest) -> str:
    weights = manifest.weights
    record = manifest.files[WEIGHTS_FILE]
    return (
        f"`{WEIGHTS_FILE}`: {weights.n_parameters:,} parameters, {weights.dtype}, {record.size:,} bytes, SHA-256 "
        f"`{record.sha256}`.\n\nThis card is generated from `model.json`; `pathzoo verify` checks both."
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *(tuple(_cell(text) for text in row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(names: Iterable[str]) -> str:
    return ", ".join(_cell(name) for name in names)


def _cell(text: str) -> str:
    """Text as one line that can neither break a table nor become HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
