"""Runs the converter as a user does, and looks at what it left."""

from dataset_converters.ct_to_slices import main


def convert(source, root, out, *words):
    return main([f"--{source}", str(root), "--out", str(out), *map(str, words)])


def refused(capsys, source, root, out, *words):
    """The one line of an error; nothing may be left behind."""
    before = sorted(path.name for path in out.parent.iterdir())
    assert convert(source, root, out, *words) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1
    assert sorted(path.name for path in out.parent.iterdir()) == before
    return text


def held(store):
    """item -> (subset, hu, label) of all slices."""
    return {
        record.item: (subset, store.image(subset, index), store.label(subset, index))
        for subset in store.subsets
        for index, record in enumerate(store.records(subset))
    }
