"""Patients' names as two systems may write them. Needs no torch."""

import re
import unicodedata


def plain_name(patient: str) -> str:
    """A patient's name without what writing adds: case, width of letters, kind of separator, leading zeros.

    `P-7`, `p_007` and ` P 07` become one; `P-7` and `P7` do not, since `1-11` and `11-1` would as well.
    """
    words = re.sub(r"[\W_]+", "-", unicodedata.normalize("NFKC", patient).casefold()).strip("-")
    return re.sub(r"(?<!\d)0+(?=\d)", "", words)
