"""Whether two trials.csv hold the same numbers, bit for bit, whatever the trials' ids are.

A row is found by benchmark, source, method, fraction, variant and seed. Every other column but the ids is compared as
text, which reads back to the same bits. Exit status 1 where something differs.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

KEYS = ("benchmark", "source", "method", "fraction", "variant", "seed")
IDS = ("trial", "quality_checker", "diversity_checker")


def read(path: Path) -> dict[tuple[str, ...], dict[str, str]]:
    """The rows of a trials.csv by what names them."""
    with path.open(encoding="utf-8", newline="") as file:
        return {tuple(row[key] for key in KEYS): row for row in csv.DictReader(file)}


def main() -> int:
    """Prints what differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    words = parser.parse_args()
    before, after = read(words.before), read(words.after)
    differences = [f"only in one of them: {key}" for key in before.keys() ^ after.keys()]
    numbers = 0
    for key in before.keys() & after.keys():
        for column in before[key].keys() - {*KEYS, *IDS}:
            numbers += 1
            if before[key][column] != after[key].get(column):
                differences.append(f"{key} {column}: {before[key][column]} {after[key].get(column)}")
    print("\n".join(differences) or f"{len(before)} trials, {numbers} values: all the same")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
