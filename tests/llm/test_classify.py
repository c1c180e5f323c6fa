"""Few-shot classification: predictions, caching, answers that name no label."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.config.benchmark import Benchmark
from harness.errors import UserError
from harness.generation.requests import real_splits
from harness.llm.classify import Predictions, classify, label_in
from harness.llm.prompts import draw_examples
from harness.llm.settings import Classification
from tests.llm.server import Fake, good, shown

Serve = Callable[..., Fake]


def run(fake: Fake, benchmark: Benchmark, folder: Path, split: str = "test", **changes: Any) -> Predictions:
    """Classifies a split."""
    raw: dict[str, Any] = {
        "sampling": {"model": "fake", "temperature": 0.0, "max_tokens": 20},
        "server": {"base_url": fake.url, "backoff": 0.01},
        "limits": {"price_in": 1.0, "price_out": 1.0},
    }
    splits = real_splits(benchmark, None)
    settings = Classification.model_validate(raw | changes)
    return classify(
        settings, benchmark.prompt, splits[split], splits["real_small"], folder / "labels.jsonl", environ={}
    )


def test_rows_are_classified_once(serve: Serve, benchmark: Benchmark, tmp_path: Path) -> None:
    fake = serve()
    first = run(fake, benchmark, tmp_path)
    assert np.array_equal(first.labels, real_splits(benchmark, None)["test"].labels)
    assert (first.unparsable, first.new_answers, first.usage.calls, len(fake.bodies)) == (0, 6, 6, 6)
    assert first.cost == pytest.approx(6 * 150 / 1e6)
    assert [row.get("label") for row in shown(fake.bodies[0])].count("positive") == 2
    again = run(fake, benchmark, tmp_path)
    assert np.array_equal(again.labels, first.labels)
    assert (again.new_answers, again.cost, len(fake.bodies)) == (0, first.cost, 6)
    assert run(fake, benchmark, tmp_path, split="validation").new_answers == 6
    assert run(fake, benchmark, tmp_path, seed=1).new_answers == 6


def test_pairs_are_classified(serve: Serve, pairs: Benchmark, tmp_path: Path) -> None:
    assert run(serve(), pairs, tmp_path).unparsable == 0


def test_answers_without_a_label_are_wrong(serve: Serve, benchmark: Benchmark, tmp_path: Path) -> None:
    fake = serve(lambda body, number: (200, {}, "hard to say") if number == 2 else good(body, number))
    predictions = run(fake, benchmark, tmp_path, server={"base_url": fake.url, "concurrency": 1})
    assert predictions.unparsable == 1
    assert predictions.labels.tolist().count(-1) == 1


def test_a_limit_ends_it_and_says_what_is_kept(serve: Serve, benchmark: Benchmark, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the limit of 900 tokens was reached after \d of 6 answers"):
        run(serve(), benchmark, tmp_path, limits={"max_tokens_total": 900})


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ('{"label": "irony"}', 0),
        ('{"label": " Not Irony "}', 1),
        ('```json\n{"label": "irony"}\n```', 0),
        ('<think>{"label": "irony"}</think>{"label": "not irony"}', 1),
        ("Irony.", 0),
        ("It is not irony", 1),
        ("irony or not irony", -1),
        ("ironyish", -1),
        ('{"label": "sarcasm"}', -1),
        ('{"label": null}', -1),
        ('["irony", "not irony"]', -1),
        ("", -1),
    ],
)
def test_label_in(text: str, label: int) -> None:
    assert label_in(text, ("irony", "not irony")) == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("The pair is not equivalent.", 0),
        ('{"label": "not equivalent"}', 0),
        ("Equivalent", 1),
        ("not_equivalent", 0),
        ("They are non-equivalent", -1),
        ("<think>equivalent or not_equivalent?</think>\nequivalent", 1),
    ],
)
def test_negated_labels(text: str, label: int) -> None:
    assert label_in(text, ("not_equivalent", "equivalent")) == label


def test_a_negated_label_is_not_the_label() -> None:
    assert label_in("Non-irony", ("non_irony", "irony")) == 0
    assert label_in("This is not irony", ("non_irony", "irony")) == -1


def test_examples_are_even_and_seeded(benchmark: Benchmark) -> None:
    split = real_splits(benchmark, None)["real_small"]
    first, second = (draw_examples(split, 4, np.random.default_rng(1)) for _ in range(2))
    assert np.array_equal(first, second)
    assert np.bincount(split.labels[first]).tolist() == [2, 2]
    assert len(draw_examples(split, 8, np.random.default_rng(1))) == 6
    assert np.bincount(split.labels[draw_examples(split, 3, np.random.default_rng(1), first=1)]).tolist() == [1, 2]


def test_labels_are_not_shown(serve: Serve, benchmark: Benchmark, tmp_path: Path) -> None:
    fake = serve()
    run(fake, benchmark, tmp_path)
    assert len(fake.bodies) == 6
    for body in fake.bodies:
        *examples, row = shown(body)
        assert [set(example) for example in examples] == [{"text", "label"}] * 4
        assert set(row) == {"text"}
