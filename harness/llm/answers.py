"""Parsing of a model's answer: the JSON in it, without the reasoning before it."""

from __future__ import annotations

import json
import re
from typing import Any

_REASONING = re.compile(r"<think>.*?</think>", re.DOTALL)


def without_reasoning(text: str) -> str:
    """Removes the ``<think>`` blocks that reasoning models put before their answer."""
    return _REASONING.sub("", text)


def json_in(text: str) -> Any:
    """The first JSON object or array in an answer; code fences, remarks and reasoning around it are ignored.

    Raises:
        ValueError: the answer contains no JSON.
    """
    text = without_reasoning(text)
    decoder = json.JSONDecoder()
    for bracket in re.finditer(r"[{\[]", text):
        try:
            return decoder.raw_decode(text, bracket.start())[0]
        except (ValueError, RecursionError):
            continue
    raise ValueError("the answer contains no JSON")
