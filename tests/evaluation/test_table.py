from io import StringIO

from rich.console import Console

from pathzoo.evaluation.table import format_rows, rows_to_markdown

ROWS = [
    {"metric": "accuracy", "level": "image", "n": 400, "value": 0.91234, "low": 0.85, "high": 0.95, "note": "few"},
    {"metric": "roc_auc", "level": "patient", "n": 20, "value": 0.5, "low": None, "high": None, "note": "few"},
    {"metric": "f1", "level": "image", "n": 400, "value": None, "low": None, "high": None, "note": "absent"},
    {"metric": "ece", "level": "image", "n": 400, "value": 0.0, "low": 0.0, "high": 0.1},
]


def test_markdown():
    assert rows_to_markdown(ROWS).splitlines() == [
        "| metric | level | n | value [95 % interval] |",
        "|---|---|---:|---|",
        "| accuracy | image | 400 | 0.912 [0.850, 0.950] (1) |",
        "| roc_auc | patient | 20 | 0.500 (1) |",
        "| f1 | image | 400 | – (2) |",
        "| ece | image | 400 | 0.000 [0.000, 0.100] |",
        "",
        "(1) few  ",
        "(2) absent  ",
    ]


def test_terminal_shows_the_same_cells():
    console = Console(file=StringIO(), width=100)
    console.print(format_rows(ROWS, title="Test set"))
    text = console.file.getvalue()
    for part in ("Test set", "0.912 [0.850, 0.950] (1)", "– (2)", "(1) few", "(2) absent", "ece"):
        assert part in text
    assert text.count("few") == 1  # a note stands once
