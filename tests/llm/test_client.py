"""The client against real HTTP: retries, waits, limits, forms of JSON, keys, budgets."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from harness.config.benchmark import Benchmark
from harness.errors import UserError
from harness.llm import client
from harness.llm.failures import retry_after
from harness.llm.journal import Journal, read_journal
from harness.llm.keys import Key
from harness.llm.settings import Limits, Sampling, Server
from tests.generation.conftest import records, settings, write
from tests.llm.server import Body, Fake, good, kind

Serve = Callable[..., Fake]
SECRET = "sk-very-secret-0123456789"


def first_fails(*failures: tuple[int, dict[str, str], str] | None) -> Callable[[Body, int], Any]:
    """The first requests fail like this, the rest is good."""
    return lambda body, number: failures[number] if number < len(failures) else good(body, number)


def test_many_requests_run_at_once_and_no_more_than_allowed(serve: Serve, benchmark: Benchmark, tmp_path: Path) -> None:
    fake = serve(latency=0.1)
    corpus, path = write(settings(fake, n=36, server={"concurrency": 4}), benchmark, tmp_path)
    assert corpus.complete
    assert len(records(path)) == 36
    assert len(fake.bodies) == 12
    assert 2 <= fake.most <= 4


@pytest.mark.parametrize("failure", [(500, {}, "oops"), (503, {}, "busy"), (408, {}, "slow"), (409, {}, "clash"), None])
def test_temporary_failures_are_retried(
    failure: tuple[int, dict[str, str], str] | None, serve: Serve, benchmark: Benchmark, tmp_path: Path
) -> None:
    fake = serve(first_fails(failure))
    corpus, _ = write(settings(fake, n=6), benchmark, tmp_path)
    assert corpus.complete
    assert len(fake.bodies) == 3


def test_retry_after_holds_all_requests(serve: Serve, benchmark: Benchmark, tmp_path: Path) -> None:
    fake = serve(first_fails((429, {"Retry-After": "0.6"}, "too many")))
    write(settings(fake, n=12, server={"concurrency": 1}), benchmark, tmp_path)
    assert 0.6 <= fake.times[1] - fake.times[0] < 3.0
    assert len(fake.bodies) == 5


def test_a_longer_wait_than_ten_minutes_ends_the_run(serve: Serve, benchmark: Benchmark, tmp_path: Path) -> None:
    fake = serve(lambda body, number: (429, {"Retry-After": "7200"}, "come back tomorrow"))
    with pytest.raises(UserError, match="asks to wait 7200 s"):
        write(settings(fake), benchmark, tmp_path)


def test_no_quota_left_is_not_retried(serve: Serve, benchmark: Benchmark, tmp_path: Path) -> None:
    error = {"error": {"message": "pay first", "code": "insufficient_quota"}}
    fake = serve(lambda body, number: (429, {}, error))
    with pytest.raises(UserError, match="no quota left"):
        write(settings(fake, server={"concurrency": 1}), benchmark, tmp_path)
    assert len(fake.bodies) == 1


def test_a_slow_answer_is_a_timeout_and_retried(serve: Serve, benchmark: Benchmark, tmp_path: Path) -> None:
    def slow_once(body: Body, number: int) -> Any:
        time.sleep(1.5 if number == 0 else 0.0)
        return good(body, number)

    fake = serve(slow_once)
    start = time.monotonic()
    write(settings(fake, n=6, server={"timeout": 1.0, "concurrency": 1}), benchmark, tmp_path)
    assert time.monotonic() - start < 10
    assert len(fake.bodies) == 3


def test_retries_end(serve: Serve, benchmark: Benchmark, tmp_path: Path) -> None:
    fake = serve(lambda body, number: (500, {}, "always"))
    with pytest.raises(UserError, match=r"500: always \(3 attempts\)\n  0 answers are kept in .*journal"):
        write(settings(fake, server={"retries": 2, "concurrency": 1}), benchmark, tmp_path)
    assert len(fake.bodies) == 3


def test_no_server_at_the_address(serve: Serve, benchmark: Benchmark, tmp_path: Path) -> None:
    fake = Fake()
    fake.url = "http://127.0.0.1:9/v1"
    with pytest.raises(UserError, match=r"connection to http://127.0.0.1:9/v1 failed"):
        write(settings(fake), benchmark, tmp_path)


def test_answers_in_progress_are_kept_when_another_request_fails(
    serve: Serve, benchmark: Benchmark, tmp_path: Path
) -> None:
    other = threading.Event()

    def reply(body: Body, number: int) -> Any:
        if number == 0:
            other.wait(5)
            return good(body, number)
        other.set()
        return 404, {}, "no such model"

    fake = serve(reply)
    with pytest.raises(UserError, match="Check the model \\(fake\\)"):
        write(settings(fake, n=6), benchmark, tmp_path)
    assert len(read_journal(tmp_path / "out.journal.jsonl")[0]) == 1


def test_a_server_that_refuses_schemas_and_json_mode_is_asked_plainly(
    serve: Serve, benchmark: Benchmark, tmp_path: Path
) -> None:
    def reply(body: Body, number: int) -> Any:
        form = body.get("response_format", {}).get("type")
        if form:
            return 400, {}, f"{form} is not supported"
        status, headers, content = good(body, number)
        return status, headers, f"<think>{{hm}}</think>Here you are:\n```json\n{content}\n```"

    fake = serve(reply)
    corpus, _ = write(settings(fake, n=12, server={"concurrency": 1}), benchmark, tmp_path)
    forms = [body.get("response_format", {}).get("type") for body in fake.bodies]
    assert forms == ["json_schema", "json_object", None, None, None, None]  # remembered
    assert corpus.complete
    assert corpus.models == {("fake-1", "plain"): 4}


def test_json_mode_where_only_schemas_are_refused(serve: Serve, benchmark: Benchmark, tmp_path: Path) -> None:
    def reply(body: Body, number: int) -> Any:
        refused = body.get("response_format", {}).get("type") == "json_schema"
        return (422, {}, "schema unknown") if refused else good(body, number)

    fake = serve(reply)
    corpus, _ = write(settings(fake, n=12), benchmark, tmp_path)
    assert set(corpus.models) == {("fake-1", "json")}


@pytest.mark.parametrize(
    ("key_env", "message"), [("MY_KEY", "environment variable MY_KEY"), (None, "requires a key: .* server.key_env")]
)
def test_a_refused_key(key_env: str | None, message: str, serve: Serve, benchmark: Benchmark, tmp_path: Path) -> None:
    fake = serve(lambda body, number: (401, {}, f"Incorrect API key provided: {SECRET}"))
    corpus_settings = settings(fake, server={"key_env": key_env, "concurrency": 1})
    with pytest.raises(UserError, match=message) as caught:
        write(corpus_settings, benchmark, tmp_path, environ={"MY_KEY": SECRET, "OPENAI_API_KEY": SECRET})
    assert len(fake.bodies) == 1
    if key_env:
        assert SECRET not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__
    assert fake.keys == [f"Bearer {SECRET if key_env else 'none'}"]  # a key goes only where it was meant to go


def test_the_key_is_in_nothing_that_is_written(
    serve: Serve, benchmark: Benchmark, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def leak(body: Body, number: int) -> Any:
        if number == 0:
            return 429, {"Retry-After": "0.01"}, f"slow down, {SECRET}"
        status, headers, content = good(body, number)
        return status, headers, content.replace("}]", f'}}, {{"text": "your key is {SECRET}", "label": "positive"}}]')

    class Notes(client.SilentObserver):
        texts: list[str] = []

        def note(self, text: str) -> None:
            self.texts.append(text)

    caplog.set_level("DEBUG")
    fake = serve(leak)
    corpus_settings = settings(fake, server={"key_env": "MY_KEY"})
    write(corpus_settings, benchmark, tmp_path, environ={"MY_KEY": SECRET}, observer=Notes())
    assert set(fake.keys) == {f"Bearer {SECRET}"}
    assert Notes.texts
    shown = [*Notes.texts, *capfd.readouterr(), caplog.text]
    for text in [*shown, *(path.read_text() for path in tmp_path.iterdir() if path.is_file())]:
        assert SECRET not in text
    assert SECRET not in repr(Key(SECRET)) + str(Key(SECRET)) + f"{Key(SECRET)}"


def test_a_missing_key_names_its_variable(benchmark: Benchmark, tmp_path: Path) -> None:
    fake = Fake()
    fake.url = "https://api.openai.com/v1"
    with pytest.raises(UserError, match="OPENAI_API_KEY, which should contain the API key"):
        write(settings(fake), benchmark, tmp_path, environ={})


@pytest.mark.parametrize(
    "url", ["http://me:pass0rd@host/v1", "http://host/v1?key=pass0rd", "host/pass0rd", "ftp://pass0rd/v1", "http://[x"]
)
def test_credentials_in_the_address_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Server(base_url=url)
    assert all("pass0rd" not in error["msg"] for error in caught.value.errors())


def test_a_key_in_place_of_its_variable_is_not_repeated() -> None:
    from harness.config.schema import parse

    with pytest.raises(UserError, match="not the key itself") as caught:
        parse(Server, {"key_env": SECRET}, "server")
    assert SECRET not in str(caught.value)


def test_the_budget_is_never_exceeded(serve: Serve, benchmark: Benchmark, tmp_path: Path) -> None:
    fake = serve()
    limits = {"price_in": 1000.0, "price_out": 1000.0, "budget": 1.0}  # an answer costs 0.15
    corpus_settings = settings(fake, n=60, limits=limits, sampling={"max_tokens": 60})
    corpus, path = write(corpus_settings, benchmark, tmp_path)
    assert not corpus.complete
    assert corpus.stopped == "the budget of 1"
    assert 1 <= len(fake.bodies) <= 6
    assert len(fake.bodies) * 0.15 <= 1.0
    assert "**Incomplete:**" in path.with_suffix(".md").read_text()
    requests = len(fake.bodies)
    write(corpus_settings, benchmark, tmp_path)  # what was spent before counts
    assert len(fake.bodies) == requests
    more = corpus_settings.model_copy(update={"limits": Limits(price_in=1000.0, price_out=1000.0, budget=10.0)})
    assert write(more, benchmark, tmp_path)[0].complete
    assert len(fake.bodies) == 20


def test_the_limit_of_tokens(serve: Serve, benchmark: Benchmark, tmp_path: Path) -> None:
    fake = serve()
    corpus_settings = settings(fake, n=60, limits={"max_tokens_total": 1000}, sampling={"max_tokens": 60})
    corpus, _ = write(corpus_settings, benchmark, tmp_path)
    assert corpus.stopped == "the limit of 1000 tokens"
    assert corpus.usage.tokens_in + corpus.usage.tokens_out <= 1000


def test_a_budget_needs_prices() -> None:
    with pytest.raises(ValidationError, match="a budget needs price_in and price_out"):
        Limits(budget=1.0)


def test_requests_a_minute(serve: Serve, benchmark: Benchmark, tmp_path: Path) -> None:
    fake = serve()
    write(settings(fake, n=18, server={"requests_per_minute": 600}), benchmark, tmp_path)
    assert len(fake.times) == 6
    assert fake.times[-1] - fake.times[0] >= 0.4  # five steps of 0.1 s, minus what the first took to arrive


def test_usage_is_estimated_where_a_server_gives_none(serve: Serve, benchmark: Benchmark, tmp_path: Path) -> None:
    fake = serve()
    fake.usage = False
    corpus, path = write(settings(fake, n=6), benchmark, tmp_path)
    assert corpus.usage.estimated_calls == 2
    assert corpus.usage.tokens_in > 100
    assert "answers without usage, estimated | 2" in path.with_suffix(".md").read_text()


def test_what_is_no_chat_completion(serve: Serve, benchmark: Benchmark, tmp_path: Path) -> None:
    fake = serve(lambda body, number: (200, {}, {"hello": "world"}))
    with pytest.raises(UserError, match="not like an OpenAI-compatible server"):
        write(settings(fake, server={"retries": 1}), benchmark, tmp_path)


def test_without_the_package(
    monkeypatch: pytest.MonkeyPatch, serve: Serve, benchmark: Benchmark, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)  # importing it raises ModuleNotFoundError
    with pytest.raises(UserError, match=r'pip install "harness\[generate\]"'):
        write(settings(serve()), benchmark, tmp_path)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after-ms": "150", "retry-after": "9"}, 0.15),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 40.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:10 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, now=60.0) == (None if seconds is None else pytest.approx(seconds))


def test_a_torn_last_line_is_dropped_and_a_damaged_one_is_named(
    serve: Serve, benchmark: Benchmark, tmp_path: Path
) -> None:
    fake = serve()
    _, path = write(settings(fake, n=6), benchmark, tmp_path)
    journal, card = tmp_path / "out.journal.jsonl", path.with_suffix(".md").read_bytes()
    rows, whole = path.read_bytes(), journal.read_bytes()
    journal.write_bytes(whole + b'{"key": "half a li')
    write(settings(fake, n=6), benchmark, tmp_path)
    assert len(fake.bodies) == 2
    assert (path.read_bytes(), path.with_suffix(".md").read_bytes(), journal.read_bytes()) == (rows, card, whole)
    journal.write_bytes(b"nonsense\n" + whole)
    with pytest.raises(UserError, match=r"out.journal.jsonl, line 1: not an answer"):
        write(settings(fake, n=6), benchmark, tmp_path)


def test_one_run_at_a_time(serve: Serve, benchmark: Benchmark, tmp_path: Path) -> None:
    with Journal(tmp_path / "out.journal.jsonl"), pytest.raises(UserError, match="another run is writing"):
        write(settings(serve()), benchmark, tmp_path)


def test_another_model_parameter_or_sample_is_another_request() -> None:
    request = client.Request("s", "u", {})
    sampling = Sampling(model="fake")
    keys = {
        request.key(sampling),
        request.key(sampling.model_copy(update={"model": "other"})),
        request.key(sampling.model_copy(update={"temperature": 0.5})),
        client.Request("s", "u", {}, sample=1).key(sampling),
        client.Request("s", "u2", {}).key(sampling),
    }
    assert len(keys) == 5


def test_prompts_ask_for_json_and_carry_the_schema(serve: Serve, benchmark: Benchmark, tmp_path: Path) -> None:
    fake = serve()
    write(settings(fake, n=6, attributes=("topic",)), benchmark, tmp_path)
    assert [kind(body) for body in fake.bodies] == ["values", "rows", "rows"]
    schema = fake.bodies[1]["response_format"]["json_schema"]
    assert schema["strict"]
    assert json.dumps(schema["schema"]).count("additionalProperties") == 2
    assert "max_tokens" in fake.bodies[1]
