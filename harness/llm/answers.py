"""What is in the text of an answer."""

from __future__ import annotations

import json
import re
from typing import Any

_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)


def without_thoughts(text: str) -> str:
    """An answer without what a reasoning model thought aloud before it."""
    return _THOUGHT.sub("", text)


def json_in(text: str) -> Any:
    """The JSON object or array in an answer, whatever stands around it: fences, remarks, thoughts.

    Raises:
        ValueError: there is none.
    """
    text = without_thoughts(text)
    decoder = json.JSONDecoder()
    for found in re.finditer(r"[{\[]", text):
        try:
            return decoder.raw_decode(text, found.start())[0]
        except (ValueError, RecursionError):
            continue
    raise ValueError("no JSON in it")
