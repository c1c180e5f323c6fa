from __future__ import annotations

import pytest

from harness.store import Store
from tests.training.small import make_plan, tokens_of


@pytest.fixture(scope="session")
def small_plan(experiment_file):
    """An experiment with a few methods on two sources, expanded."""
    return make_plan(experiment_file(training={"epochs": 2, "batch_size": 16, "learning_rate": 5e-3}, seeds=[0]))


@pytest.fixture(scope="session")
def rows(small_plan):
    """The 48 generated rows of the tiny benchmark."""
    return small_plan.splits["tiny"]["generated"]


@pytest.fixture(scope="session")
def tokens(rows, tiny_encoder, tmp_path_factory):
    """Their tokens."""
    return tokens_of(rows, tiny_encoder, Store(str(tmp_path_factory.mktemp("tokens"))))
