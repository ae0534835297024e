"""The nearest valid name, for error messages."""

import difflib
from collections.abc import Iterable


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name most like `name` (Ratcliff-Obershelp similarity of 0.5 or more), or None."""
    found = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return found[0] if found else None


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """ "; did you mean 'x'?" or an empty string: the end of an error message."""
    found = nearest(name, valid)
    return f"; did you mean {found!r}?" if found else ""
