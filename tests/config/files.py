"""Files of experiments, and the errors that they give."""

from __future__ import annotations

import pytest
import yaml

from harness.config.experiment import load
from harness.errors import UserError

BASE = {"benchmarks": ["x"], "grid": [{"source": "generated", "methods": ["ce"]}]}
ROWS = {"real_small": {"file": "a.csv"}, "validation": {"file": "b.csv"}, "test": {"file": "c.csv"}}


def write(folder, changes, name="e.yaml"):
    file = folder / name
    file.write_text(changes if isinstance(changes, str) else yaml.safe_dump(BASE | changes), encoding="utf-8")
    return file


def message(folder, changes, *overrides):
    """The error, without the file's name."""
    file = write(folder, changes)
    with pytest.raises(UserError) as error:
        load(file, overrides)
    text = str(error.value)
    assert "function-" not in text
    assert "pydantic" not in text
    return text.removeprefix(f"{file}: ")
