"""Repair text that was decoded with the wrong code page and saved again, several times.

Tweets that went through spreadsheets on a Mac look like ``don\\x8a\\x97\\xc8t``: UTF-8 was read as Windows-1252 and
saved as Mac Roman, two to four times, and every character that Mac Roman lacks became ``_``. The table of repairs is
computed by applying that damage to the characters that are frequent in tweets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

#: How often the text may have been damaged.
ROUNDS = (2, 3, 4)


def _blocks(*bounds: tuple[int, int]) -> str:
    return "".join(chr(code) for first, last in bounds for code in range(first, last + 1))


#: Preferred where several characters have the same damaged form.
_USUAL = "’“”…‘–—•´™®©£€°\u00a0"
_EMOJI = "\ufe0f" + _blocks(
    (0x1F300, 0x1F64F), (0x1F680, 0x1F6FF), (0x1F910, 0x1F93F), (0x2600, 0x27BF), (0x2B05, 0x2B55)
)
_ALPHABET = _USUAL + "½¿¡" + _blocks((0xC0, 0x17F)) + _EMOJI


def _read(byte: int) -> str:
    """A byte decoded as Windows-1252; the five undefined bytes keep their code."""
    return bytes([byte]).decode("cp1252", "ignore") or chr(byte)


def _damaged(byte: int) -> int:
    """A byte read as Windows-1252 and saved as Mac Roman."""
    character = _read(byte)
    if 0x80 <= ord(character) < 0xA0:
        return byte
    try:
        return character.encode("mac_roman")[0]
    except UnicodeEncodeError:
        return ord("_")


def _breakages(character: str) -> Iterator[bytes]:
    """The damaged forms of a character: encoded as UTF-8 once or twice, then damaged a number of rounds."""
    damage = bytes(map(_damaged, range(256)))
    once = character.encode()
    for raw in (once, "".join(map(_read, once)).encode()):
        for number in range(1, max(ROUNDS) + 1):
            raw = raw.translate(damage)
            if number in ROUNDS and not raw.isascii():
                yield raw


def _replacement(candidates: list[str]) -> str:
    """The most plausible character; a space if it is some emoji, U+FFFD if it is unknown."""
    first = candidates[0]
    if first in "\u00a0\ufe0f":
        return " " if first == "\u00a0" else ""
    if first in _USUAL or len(candidates) == 1:
        return first
    return " " if all(candidate in _EMOJI for candidate in candidates) else "\ufffd"


@cache
def _table() -> tuple[re.Pattern[bytes], dict[bytes, bytes]]:
    """A pattern of all damaged forms, and the replacement of each."""
    characters: dict[bytes, list[str]] = {}
    for character in _ALPHABET:
        for broken in _breakages(character):
            characters.setdefault(broken, []).append(character)
    longest_first = sorted(characters, key=len, reverse=True)
    table = {broken: _replacement(candidates).encode() for broken, candidates in characters.items()}
    return re.compile(b"|".join(map(re.escape, longest_first))), table


def mend(text: str) -> str:
    """``text`` with every damaged form replaced that is in the table.

    Bytes that are not UTF-8 are lone surrogates (``surrogateescape``) in ``text``, and remain so where nothing repairs
    them. Where several characters have the same damaged form, punctuation is preferred; an emoji that could be several
    becomes a space, anything else U+FFFD.
    """
    if text.isascii():
        return text
    pattern, table = _table()
    raw = pattern.sub(lambda match: table[match[0]], text.encode("utf-8", "surrogateescape"))
    return raw.decode("utf-8", "surrogateescape")
