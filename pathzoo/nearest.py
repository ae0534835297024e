"""The nearest valid name, for error messages."""

import difflib
from collections.abc import Iterable


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name most like `name` (Ratcliff-Obershelp similarity of 0.5 or more), or None."""
    found = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return found[0] if found else None


def did_you_mean(name: object, valid: Iterable[str]) -> str:
    """The end of an error message: "; did you mean 'x'?", or the choices where they are few, or nothing."""
    choices = list(valid)
    found = nearest(str(name), choices)
    if found:
        return f"; did you mean {found!r}?"
    return f"; there are {', '.join(choices)}" if 0 < len(choices) <= 12 else ""
