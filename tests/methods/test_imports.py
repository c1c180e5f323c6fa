"""Methods are listed and planned without torch."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "transformers", "ray", "mlflow")


def test_finding_all_methods_loads_no_torch():
    code = (
        "import sys\nfrom harness.methods import methods\nassert len(methods.entries) > 5\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
