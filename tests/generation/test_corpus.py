"""Corpora: rejects, balance, rounds, pairs, attributes, prompts, resuming after a kill, estimates."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.config.benchmark import Benchmark
from harness.data.benchmarks import load
from harness.errors import UserError
from harness.generation.corpus import estimate, preview
from harness.llm.journal import read_journal
from harness.llm.prompts import Prompts
from tests.generation.conftest import real_rows, records, settings, write
from tests.llm.server import Body, Fake, good, json_objects, prompt, requested_label, sentence, shown

Serve = Callable[..., Fake]
ROOT = Path(__file__).parents[2]


def answering(*entries: Any) -> Callable[[Body, int], Any]:
    """The first answer has these rows (or is this text), later ones are good."""

    def reply(body: Body, number: int) -> Any:
        if number:
            return good(body, number)
        return 200, {}, entries[0] if isinstance(entries[0], str) else json.dumps({"rows": entries})

    return reply


def row(text: Any, label: str = "negative", **more: Any) -> dict[str, Any]:
    """An entry of an answer."""
    return {"text": text, "label": label} | more


FINE = sentence(77)


@pytest.mark.parametrize(
    ("entries", "rejects"),
    [
        (('{"rows": [{"text": "cut',), {"malformed JSON": 1}),
        (("I would rather not.",), {"malformed JSON": 1}),
        (('{"rows": "none"}',), {"malformed JSON": 1}),
        ((row(FINE, "positive"), row(FINE, "angry"), {"text": FINE}), {"wrong label": 3}),
        ((row(""), row("  \n"), row(7)), {"empty text": 3}),
        ((row("broken \ud83d here"), row("and \x00 here")), {"broken characters": 2}),
        ((row(FINE), row(FINE.upper() + "!"), row(FINE)), {"duplicate": 2}),
        ((row(real_rows("test")[0]["text"]), row(real_rows("validation")[1]["text"])),
         {"overlap with validation": 1, "overlap with test": 1}),
        ((row(real_rows("real_small")[0]["text"]),), {"overlap with real_small": 1}),
        (("[" + json.dumps(row(FINE)) + "]",), {}),
        ((row(f" {FINE}\n", " NEGATIVE "),), {}),
    ],
)  # fmt: skip
def test_rejects_are_counted_and_replaced(
    entries: tuple[Any, ...], rejects: dict[str, int], serve: Serve, benchmark: Benchmark, tmp_path: Path
) -> None:
    fake = serve(answering(*entries))
    corpus, path = write(settings(fake, n=6, server={"concurrency": 1}), benchmark, tmp_path)
    assert corpus.rejects == rejects
    assert Counter(record["label"] for record in records(path)) == {"negative": 3, "positive": 3}
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    assert all(f"| {reason} | {count} |" in card for reason, count in rejects.items())
    real = {entry["text"] for split in ("real_small", "validation", "test") for entry in real_rows(split)}
    assert not real & {record["text"] for record in records(path)}


@pytest.mark.parametrize(
    ("entries", "rejects"),
    [
        (({"a": FINE, "label": "negative"},), {"wrong pair form": 1}),
        (({"a": [FINE], "b": FINE, "label": "negative"},), {"wrong pair form": 1}),
        (({"a": FINE, "b": FINE, "label": "negative"},), {"wrong pair form": 1}),
        (({"a": FINE, "b": " ", "label": "negative"},), {"empty text": 1}),
        (({"a": FINE, "b": sentence(78), "label": "negative"},), {}),
    ],
)
def test_pairs(
    entries: tuple[Any, ...], rejects: dict[str, int], serve: Serve, pairs: Benchmark, tmp_path: Path
) -> None:
    fake = serve(answering(*entries))
    corpus, path = write(settings(fake, n=6, server={"concurrency": 1}), pairs, tmp_path)
    assert corpus.rejects == rejects
    assert set(records(path)[0]) == {"id", "a", "b", "label"}


def test_a_label_that_fails_more_often_gets_more_rounds(serve: Serve, benchmark: Benchmark, tmp_path: Path) -> None:
    def reply(body: Body, number: int) -> Any:
        return (200, {}, "no") if requested_label(body) == "negative" and number % 2 else good(body, number)

    corpus, path = write(settings(serve(reply), n=24, max_rounds=12), benchmark, tmp_path)
    assert corpus.complete
    assert corpus.rounds > 1
    labels = [record["label"] for record in records(path)]
    assert Counter(labels) == {"negative": 12, "positive": 12}
    assert Counter(labels[:6]) == {"negative": 3, "positive": 3}
    assert [record["id"] for record in records(path)][:2] == ["generated-0001", "generated-0002"]


def test_rounds_end_and_the_corpus_says_so(serve: Serve, benchmark: Benchmark, tmp_path: Path) -> None:
    def reply(body: Body, number: int) -> Any:
        return (200, {}, "no") if requested_label(body) == "negative" else good(body, number)

    corpus, path = write(settings(serve(reply), n=6, max_rounds=2), benchmark, tmp_path)
    assert (corpus.complete, corpus.rounds) == (False, 2)
    assert "3 of 6 rows; 2 rounds were not enough" in path.with_suffix(".md").read_text()


def test_nothing_usable_writes_nothing(serve: Serve, benchmark: Benchmark, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no row was written .*malformed JSON"):
        write(settings(serve(lambda body, number: (200, {}, "no")), n=6, max_rounds=2), benchmark, tmp_path)
    assert not (tmp_path / "out.jsonl").exists()


def test_two_steps(serve: Serve, benchmark: Benchmark, tmp_path: Path) -> None:
    fake = serve()
    corpus, path = write(settings(fake, n=12, attributes=("topic", "style")), benchmark, tmp_path)
    assert corpus.values == {name: ["weather", "sports", "music"] for name in ("topic", "style")}
    assert len(fake.bodies) == 2 + 4
    assert {record["topic"] for record in records(path)} <= {"weather", "sports", "music"}
    assert any(value in prompt(fake.bodies[-1]) for value in ("weather", "sports", "music"))
    assert len(shown(fake.bodies[-1])) == 2
    card = path.with_suffix(".md").read_text()
    assert "- topic: weather" in card
    assert not any(entry["text"] in card for entry in real_rows("real_small"))


def test_no_usable_attributes(serve: Serve, benchmark: Benchmark, tmp_path: Path) -> None:
    fake = serve(lambda body, number: (200, {}, '{"values": ["one"]}'))
    with pytest.raises(UserError, match="no usable list of values for the attribute 'topic' in 3 attempts"):
        write(settings(fake, attributes=("topic",)), benchmark, tmp_path)
    assert len(fake.bodies) == 3


def test_an_attribute_may_not_be_called_like_a_column(serve: Serve, benchmark: Benchmark, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has a column of that name"):
        write(settings(serve(), attributes=("label",)), benchmark, tmp_path)


def test_the_harness_reads_what_it_wrote(serve: Serve, benchmark: Benchmark, tmp_path: Path) -> None:
    _, path = write(settings(serve(), n=12, attributes=("topic",)), benchmark, tmp_path)
    origin = benchmark.splits["generated"].model_copy(update={"file": str(path), "id": "id"})
    splits = load(benchmark.model_copy(update={"splits": {**benchmark.splits, "generated": origin}}), ["generated"])
    assert len(splits["generated"]) == 12


def test_killed_and_started_again_it_pays_for_nothing_twice(serve: Serve, benchmark: Benchmark, tmp_path: Path) -> None:
    fake = serve(latency=0.3)
    corpus_settings = settings(fake, n=60, server={"concurrency": 3})
    (tmp_path / "settings.json").write_text(corpus_settings.model_dump_json())
    (tmp_path / "benchmark.json").write_text(benchmark.model_dump_json())
    script = (
        "from pathlib import Path; from harness.config.benchmark import Benchmark; "
        "from harness.generation.settings import Generation; "
        "from tests.generation.conftest import write; import sys; folder = Path(sys.argv[1])\n"
        "write(Generation.model_validate_json((folder / 'settings.json').read_text()),"
        " Benchmark.model_validate_json((folder / 'benchmark.json').read_text()), folder)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, env={**os.environ})
    deadline = time.monotonic() + 120
    while len(fake.bodies) < 9 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before, kept = len(fake.bodies), len(read_journal(tmp_path / "out.journal.jsonl")[0])
    assert 0 < kept < 20
    fake.latency = 0.0
    corpus, path = write(corpus_settings, benchmark, tmp_path)
    assert corpus.complete
    assert len(records(path)) == 60
    assert len(fake.bodies) - before == 20 - kept  # requests with an answer in the journal are not sent again
    assert before - kept <= 2 * 3  # lost: answers in progress, or not yet on the disk


def test_estimate_asks_nothing(serve: Serve, benchmark: Benchmark, tmp_path: Path) -> None:
    fake = serve()
    limits = {"price_in": 1.0, "price_out": 2.0}
    corpus_settings = settings(fake, n=30, attributes=("topic",), limits=limits)
    expected = estimate(corpus_settings, benchmark, tmp_path / "out.jsonl")
    assert (expected.calls, expected.done) == (11, 0)
    assert expected.cost == pytest.approx((expected.tokens_in + 2 * expected.tokens_out) / 1e6)
    assert expected.tokens_out <= expected.max_tokens_out == 11 * 2000
    assert not fake.bodies
    write(corpus_settings, benchmark, tmp_path)
    assert estimate(corpus_settings, benchmark, tmp_path / "out.jsonl").done == 11


def test_zero_shot_shows_no_row_and_preview_asks_nothing(benchmark: Benchmark) -> None:
    fake = Fake()
    fake.url = "http://127.0.0.1:9/v1"
    prompts = dict(preview(settings(fake, shots=0, attributes=("topic",)), benchmark))
    assert list(prompts) == ["system", "step one, topic", "rows, negative", "rows, positive"]
    assert [list(content) for content in json_objects(prompts["rows, negative"])] == [["rows"]], "the form alone"
    assert "<a topic from step one>" in prompts["rows, negative"]
    few = dict(preview(settings(fake, shots=4), benchmark))
    examples = [content for content in json_objects(few["rows, positive"]) if "text" in content]
    assert len(examples) == 4
    assert all(example in real_rows("real_small") for example in examples)
    assert Counter(example["label"] for example in examples) == {"positive": 2, "negative": 2}


def test_own_prompts_and_descriptions(benchmark: Benchmark, tmp_path: Path) -> None:
    folder = tmp_path / "prompts"
    folder.mkdir()
    with pytest.raises(UserError, match="no template in it"):
        Prompts(folder)
    (folder / "rows.txt").write_text("{{ rows }} of {{ label }}: {{ labels[0].description }}\n{{ form }}")
    fake = Fake()
    fake.url = "http://127.0.0.1:9/v1"
    corpus_settings = settings(fake, prompts=str(folder), descriptions={"negative": "a complaint"})
    assert dict(preview(corpus_settings, benchmark))["rows, negative"].startswith("3 of negative: a complaint\n")
    with pytest.raises(UserError, match=r"Did you mean 'negative'\?"):
        preview(settings(fake, descriptions={"negativ": "x"}), benchmark)
    (folder / "rows.txt").write_text("{{ rowz }}")
    with pytest.raises(UserError, match=r"rows.txt: 'rowz' is undefined. Values to use in it: .*rows"):
        preview(corpus_settings, benchmark)
    (folder / "rows.txt").write_text("one\n{% if %}")
    with pytest.raises(UserError, match=r"rows.txt, line 2"):
        preview(corpus_settings, benchmark)
    (folder / "row.txt").write_text("x")
    with pytest.raises(UserError, match="unknown prompt 'row'"):
        Prompts(folder)
    with pytest.raises(UserError, match="there is no such folder"):
        Prompts(tmp_path / "nowhere")
