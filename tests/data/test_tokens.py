from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.split import Split
from harness.data.tokens import Tokens, tokenize
from harness.store import Store
from harness.training.classifier import load_tokenizer

CLS, SEP, PAD = 2, 3, 0


def split(texts, pairs=None) -> Split:
    ids = tuple(map(str, range(len(texts))))
    return Split("test", ids, tuple(texts), None if pairs is None else tuple(pairs), np.zeros(len(texts), np.int64))


@pytest.fixture
def encode(tiny_encoder, tmp_path):
    store = Store(str(tmp_path))

    def run(rows: Split, max_length: int = 32) -> Tokens:
        return tokenize(rows, lambda: load_tokenizer(str(tiny_encoder)), "tiny", max_length, store)

    return run


def row(tokens: Tokens, number: int) -> list[int]:
    return tokens.input_ids[tokens.offsets[number] : tokens.offsets[number + 1]].tolist()


def test_rows_are_flat_and_padded_on_demand(encode, tiny_encoder):
    tokens = encode(split(["good", "a very good flight", "bad day"]))
    vocabulary = load_tokenizer(str(tiny_encoder)).get_vocab()
    words = [vocabulary[word] for word in ("a", "very", "good", "flight")]
    assert tokens.lengths.tolist() == [3, 6, len(row(tokens, 2))]
    assert row(tokens, 0) == [CLS, vocabulary["good"], SEP]
    padded = tokens.padded([1, 0])
    assert padded["input_ids"].tolist() == [[CLS, *words, SEP], [CLS, words[2], SEP, PAD, PAD, PAD]]
    assert padded["attention_mask"].tolist() == [[1] * 6, [1, 1, 1, 0, 0, 0]]
    assert padded["token_type_ids"].tolist() == [[0] * 6] * 2
    assert {values.dtype for values in padded.values()} == {np.dtype(np.int64)}
    assert tokens.padded(np.array([0]))["input_ids"].shape == (1, 3), "no longer than its longest row"


def test_pairs_have_types(encode):
    tokens = encode(split(["good flight", "bad"], ["a gate", "the report on time"]))
    padded = tokens.padded([0])
    assert padded["input_ids"][0, [0, 3, 6]].tolist() == [CLS, SEP, SEP]
    assert padded["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 1]]
    assert not np.array_equal(encode(split(["good flight", "bad"])).input_ids, tokens.input_ids)


def test_long_rows_are_truncated_pairs_at_their_longer_text(encode):
    assert encode(split(["good " * 50]), 8).lengths.tolist() == [8]
    tokens = encode(split(["good bad", "good"], ["the " * 30, "bad"]), 10)
    assert tokens.lengths.tolist() == [10, 5]
    padded = tokens.padded([0])
    assert padded["token_type_ids"][0].tolist() == [0] * 4 + [1] * 6
    assert padded["input_ids"][0, -1] == SEP


def test_tokenized_once_for_each_content_encoder_and_length(tiny_encoder, tmp_path):
    store, calls = Store(str(tmp_path)), []

    def tokenizer():
        calls.append(1)
        return load_tokenizer(str(tiny_encoder))

    rows = split(["good", "bad"])
    first = tokenize(rows, tokenizer, "tiny", 8, store)
    again = tokenize(rows, lambda: pytest.fail("tokenized although stored"), "tiny", 8, store)
    for name in ("input_ids", "token_type_ids", "offsets"):
        assert getattr(first, name).dtype == getattr(again, name).dtype
        assert np.array_equal(getattr(first, name), getattr(again, name))
    tokenize(rows, tokenizer, "tiny", 9, store)
    tokenize(rows, tokenizer, "other", 8, store)
    tokenize(split(["good", "bad."]), tokenizer, "tiny", 8, store)
    assert len(calls) == 4


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.data())
def test_padding_gives_back_every_row(lengths, data):
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.arange(1, offsets[-1] + 1, dtype=np.int32)
    tokens = Tokens(ids, (ids % 2).astype(np.int8), offsets)
    rows = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=8))
    padded = tokens.padded(rows)
    assert padded["input_ids"].shape == (len(rows), max(lengths[i] for i in rows))
    for position, number in enumerate(rows):
        mask = padded["attention_mask"][position].astype(bool)
        assert padded["input_ids"][position][mask].tolist() == row(tokens, number)
        assert padded["token_type_ids"][position][mask].tolist() == [i % 2 for i in row(tokens, number)]
        assert not padded["input_ids"][position][~mask].any()
        assert mask.tolist() == sorted(mask.tolist(), reverse=True)


@given(st.lists(st.integers(0, 3), max_size=6))
def test_rows_may_be_taken_before_padding(numbers):
    flat = np.arange(10, dtype=np.int32)
    tokens = Tokens(flat, flat.astype(np.int8), np.array([0, 3, 3, 7, 10]))
    part = tokens.take(np.array(numbers, dtype=np.int64))
    assert [row(part, i) for i in range(len(numbers))] == [row(tokens, i) for i in numbers]
    assert part.lengths.tolist() == tokens.lengths[numbers].tolist() if numbers else len(part.lengths) == 0
    assert part.input_ids.dtype == np.int32
    if numbers:
        padded, expected = part.padded(range(len(numbers))), tokens.padded(numbers)
        assert all(np.array_equal(padded[name], expected[name]) for name in expected)
