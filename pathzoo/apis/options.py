"""`--cfg-options KEY=VALUE ...` as a dict."""

import ast
from collections.abc import Sequence
from typing import Any

from pathzoo.errors import ConfigError


def parse_options(words: Sequence[str]) -> dict[str, Any]:
    """Parses KEY=VALUE words.

    A value is a Python literal where it reads as one (`3`, `1e-3`, `None`, `[1,2]`, `(a,b)` quoted, `"text"`), `true`
    and `false` in any case, a list where commas stand between plain words, and text otherwise.

    Raises:
        ConfigError: A word without "=" or without a key.
    """
    options = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator or not key:
            raise ConfigError(f"--cfg-options {word!r}: expected KEY=VALUE, such as train_cfg.max_epochs=5")
        options[key] = _value(value)
    return options


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        pass
    if "," in text and not any(mark in text for mark in "[](){}"):
        return [_value(part) for part in text.split(",")]
    return text
