"""Mending text whose bytes were read in the wrong code page, and saved, several times over.

Tweets that went through spreadsheets on a Mac come out like ``don\\x8a\\x97\\xc8t``: UTF-8 was read as Windows-1252
and saved as Mac Roman, two to four times, and every character that Mac Roman lacks became ``_``. The table for
the way back is made by doing that damage to the characters that tweets hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

ROUNDS = (2, 3, 4)


def _blocks(*bounds: tuple[int, int]) -> str:
    return "".join(chr(code) for first, last in bounds for code in range(first, last + 1))


#: of the characters that break alike, one of these is meant
_USUAL = "’“”…‘–—•´™®©£€°\u00a0"
_EMOJI = "\ufe0f" + _blocks(
    (0x1F300, 0x1F64F), (0x1F680, 0x1F6FF), (0x1F910, 0x1F93F), (0x2600, 0x27BF), (0x2B05, 0x2B55)
)
_ALPHABET = _USUAL + "½¿¡" + _blocks((0xC0, 0x17F)) + _EMOJI


def _read(byte: int) -> str:
    """A byte as Windows-1252; the five that it leaves undefined keep their number."""
    return bytes([byte]).decode("cp1252", "ignore") or chr(byte)


def _damaged(byte: int) -> int:
    character = _read(byte)
    if 0x80 <= ord(character) < 0xA0:
        return byte
    try:
        return character.encode("mac_roman")[0]
    except UnicodeEncodeError:
        return ord("_")


def _breakages(character: str) -> Iterator[bytes]:
    """The forms in which a character is found: damaged some rounds, taken for UTF-8 once or twice."""
    damage = bytes(map(_damaged, range(256)))
    once = character.encode()
    for raw in (once, "".join(map(_read, once)).encode()):
        for done in range(1, max(ROUNDS) + 1):
            raw = raw.translate(damage)
            if done in ROUNDS and not raw.isascii():
                yield raw


def _meant(candidates: list[str]) -> str:
    """The one character meant; a space where only an emoji's presence is known, U+FFFD where not even that."""
    first = candidates[0]
    if first in "\u00a0\ufe0f":
        return " " if first == "\u00a0" else ""
    if first in _USUAL or len(candidates) == 1:
        return first
    return " " if all(candidate in _EMOJI for candidate in candidates) else "\ufffd"


@cache
def _table() -> tuple[re.Pattern[bytes], dict[bytes, bytes]]:
    found: dict[bytes, list[str]] = {}
    for character in _ALPHABET:
        for broken in _breakages(character):
            found.setdefault(broken, []).append(character)
    longest_first = sorted(found, key=len, reverse=True)
    table = {broken: _meant(candidates).encode() for broken, candidates in found.items()}
    return re.compile(b"|".join(map(re.escape, longest_first))), table


def mend(text: str) -> str:
    """``text`` with its mojibake mended as far as the table goes.

    Bytes that are not UTF-8 come in, and where nothing mends them go out, as lone surrogates (``surrogateescape``).
    Where several characters broke alike, usual punctuation is taken; an emoji that cannot be told from others
    becomes a space, anything else U+FFFD.
    """
    if text.isascii():
        return text
    pattern, table = _table()
    raw = pattern.sub(lambda found: table[found[0]], text.encode("utf-8", "surrogateescape"))
    return raw.decode("utf-8", "surrogateescape")
