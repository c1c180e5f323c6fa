from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config.benchmark import Benchmark, CorruptedSplit
from harness.config.schema import parse
from harness.data import split_files
from harness.data.benchmarks import load, summary
from harness.data.corruptions import KINDS, corrupt
from harness.data.partition import limit
from harness.data.split import Split, concatenate
from harness.errors import UserError
from harness.store import Store

LABELS = ("a", "b", "c")


def rows_of(labels: list[int], pairs: bool = False) -> Split:
    ids = tuple(f"generated-{i}" for i in range(len(labels)))
    seconds = tuple(f"second {id_}" for id_ in ids) if pairs else None
    return Split("generated", ids, tuple(f"text {id_}" for id_ in ids), seconds, np.array(labels, dtype=np.int64))


def corrupted(rows: Split, **shares) -> Split:
    return corrupt(rows, CorruptedSplit(of="generated", **shares), LABELS, "noisy")


def rows_with(split: Split, kind: str) -> list[int]:
    return [i for i, corruption in enumerate(split.corruptions) if corruption == kind]


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), min_size=20, max_size=60), st.booleans(), st.integers(0, 3))
def test_every_kind_has_its_exact_share_and_changes_nothing_else(labels, pairs, seed):
    rows = rows_of(labels, pairs)
    split = corrupted(rows, flip=0.3, unrelated=0.2, duplicate=0.1, seed=seed)
    counts = {kind: int(np.floor(share * len(rows) + 0.5)) for kind, share in
              (("flip", 0.3), ("unrelated", 0.2), ("duplicate", 0.1))}  # fmt: skip
    assert {kind: len(rows_with(split, kind)) for kind in counts} == counts
    assert len(split) == len(rows) + counts["duplicate"]
    assert len(set(split.ids)) == len(split)
    origins = [rows.ids.index(id_.removeprefix("noisy-").removesuffix("-copy")) for id_ in split.ids]
    assert origins[: len(rows)] == list(range(len(rows)))
    for i, origin in enumerate(origins):
        same_text = split.texts[i] == rows.texts[origin]
        assert same_text is (split.corruptions[i] != "unrelated")
        assert (split.labels[i] == rows.labels[origin]) == (split.corruptions[i] != "flip")
        if split.pairs and rows.pairs:
            assert split.pairs[i] == f"second {split.texts[i].removeprefix('text ')}"
    copied = {origins[i] for i in rows_with(split, "duplicate")}
    assert all(split.corruptions[i] == "" for i in copied)


def test_swapped_labels_keep_the_size_of_every_class():
    rows = rows_of([0] * 30 + [1] * 6 + [2] * 4)
    split = corrupted(rows, swap=0.4)
    assert len(rows_with(split, "swap")) == 16
    assert np.bincount(split.labels).tolist() == [30, 6, 4]
    changed = np.flatnonzero(split.labels != rows.labels)
    assert changed.tolist() == rows_with(split, "swap")


def test_flips_reach_every_other_label_and_are_nested():
    rows = rows_of([0, 1, 2] * 100)
    small, large = corrupted(rows, flip=0.2), corrupted(rows, flip=0.4)
    assert set(rows_with(small, "flip")) < set(rows_with(large, "flip"))
    same = rows_with(small, "flip")
    assert small.labels[same].tolist() == large.labels[same].tolist()
    assert {(a, b) for a, b in zip(rows.labels, large.labels, strict=True) if a != b} == {
        (a, b) for a in range(3) for b in range(3) if a != b
    }


def test_the_drawn_rows_are_pinned():
    split = corrupted(rows_of([0, 1, 2] * 4), flip=0.25, unrelated=0.2, duplicate=0.2)
    assert split.labels.tolist() == [1, 1, 2, 0, 0, 2, 2, 1, 2, 0, 1, 2, 0, 1]
    assert {kind: rows_with(split, kind) for kind in KINDS} == {
        "flip": [0, 4, 6], "swap": [], "unrelated": [2, 9], "duplicate": [12, 13],
    }  # fmt: skip
    assert split.ids[-2:] == ("noisy-generated-3-copy", "noisy-generated-7-copy")


def test_confusion_counts_are_exact():
    rows = rows_of([0] * 50 + [1] * 20 + [2] * 30)
    split = corrupted(rows, confusion={"a": {"b": 0.2, "c": 0.1}, "c": {"a": 0.5}})
    table = np.zeros((3, 3), dtype=int)
    np.add.at(table, (rows.labels, split.labels), 1)
    assert table.tolist() == [[35, 10, 5], [0, 20, 0], [15, 0, 15]]


def test_the_seed_decides():
    rows = rows_of([0, 1, 2] * 20)
    assert corrupted(rows, flip=0.5).digest == corrupted(rows, flip=0.5).digest
    assert corrupted(rows, flip=0.5).digest != corrupted(rows, flip=0.5, seed=1).digest


def test_too_many():
    with pytest.raises(UserError) as error:
        corrupted(rows_of([0] * 19 + [1]), swap=1.0)
    assert str(error.value) == (
        "splits.noisy: swap needs 20 rows of generated, but only 11 suitable ones are still clean. "
        "Ask for a smaller share."
    )


def test_the_id_of_a_copy_is_new_even_among_ids_that_end_alike():
    rows = replace(rows_of([0, 1]), ids=("x", "x-copy"))
    split = corrupted(rows, duplicate=1.0)
    assert split.ids == ("noisy-x", "noisy-x-copy", "noisy-x-copy-copy", "noisy-x-copy-copy-copy")
    assert split.texts[2:] == rows.texts


def test_corruptions_follow_their_rows():
    clean = rows_of([0, 1, 2] * 4)
    split = corrupted(clean, flip=0.25, duplicate=0.25)
    backwards = np.arange(len(split))[::-1]
    assert split.take(backwards).corruptions == split.corruptions[::-1]
    assert clean.take([0]).corruptions is None
    assert concatenate("both", [clean, split]).corruptions == ("",) * 12 + split.corruptions
    assert concatenate("both", [clean, replace(clean, name="other")]).corruptions is None
    few = limit(split, 9)
    column = dict(zip(split.ids, split.corruptions, strict=True))
    assert few.corruptions == tuple(column[id_] for id_ in few.ids)


def test_a_digest_covers_corruptions_and_is_unchanged_without_them():
    clean = rows_of([0, 1])
    digest = "ee6738f09158b827c05ca0d6366660c313a7dbcb98b8fcb5261bbc9d84b46a54"
    assert clean.digest == digest
    marked = replace(clean, corruptions=("", "flip"))
    assert len({digest, marked.digest, replace(clean, corruptions=("", "swap")).digest}) == 3


@pytest.mark.parametrize("pairs", [False, True])
def test_corruptions_survive_files_and_store(tmp_path, pairs):
    clean, store = rows_of([0, 1, 2] * 4, pairs), Store(str(tmp_path / "store"))
    for split in (clean, corrupted(clean, flip=0.25, duplicate=0.25)):
        split_files.write(tmp_path / "split.json", split, ["a note"])
        copy, notes = split_files.read(tmp_path / "split.json")
        assert (copy.corruptions, copy.digest, notes) == (split.corruptions, split.digest, ["a note"])
        split_files.save_split(split, store)
        copy = split_files.load_split(split.digest, store)
        assert (copy.corruptions, copy.pairs) == (split.corruptions, split.pairs)


def test_splits_stored_without_the_column_are_read(tmp_path):
    split, store = rows_of([0, 1]), Store(str(tmp_path))
    text = json.dumps([split.name, split.ids, split.texts, split.pairs])
    store.put("splits", split.digest, labels=split.labels, text=np.frombuffer(text.encode(), np.uint8))
    assert split_files.load_split(split.digest, store).corruptions is None


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"of": "generated"}, "splits.noisy: expected shares that add up to more than 0 and at most 1, found 0"),
        ({"of": "generated", "flip": 0.7, "swap": 0.4}, "at most 1, found 1.1"),
        ({"of": "generated", "flip": 0.1, "confusion": {"a": {"b": 0.1}}}, "expected flip or confusion, found both"),
        ({"of": "generated", "confusion": {"a": {"a": 0.1}}}, "confusion.a: expected shares of other labels"),
        ({"of": "generated", "confusion": {"a": {"d": 0.1}}}, "unknown label 'd' in splits.noisy.confusion."),
        ({"of": "real_large", "flip": 0.1}, "splits.noisy: expected a clean split in `of`, but real_large is missing"),
        ({"of": "generated", "flop": 0.1}, "unknown key 'flop' in splits.noisy. Did you mean 'flip'?"),
    ],
)
def test_errors_in_the_yaml(part, message):
    files = {name: {"file": "x.csv"} for name in ("real_small", "validation", "test", "generated")}
    with pytest.raises(UserError) as error:
        parse(Benchmark, {"name": "x", "labels": LABELS, "splits": {**files, "noisy": part}}, "x.yaml")
    assert message in str(error.value)
    with pytest.raises(UserError, match=r"splits\.test: only training splits may be corrupted: real_small, "):
        parse(Benchmark, {"name": "x", "labels": LABELS, "splits": {**files, "test": {"of": "generated", "flip": 0.1}}},
              "x.yaml")  # fmt: skip


def test_a_corrupted_split_of_a_benchmark(tmp_path):
    lines = [
        f"row number {word},{i % 3}" for i, word in enumerate(["one", "two", "three", "four", "five", "six", "seven"])
    ]
    (tmp_path / "rows.csv").write_text("text,label\n" + "\n".join(lines))
    splits = {name: {"file": str(tmp_path / "rows.csv")} for name in ("real_small", "validation", "test", "generated")}
    spec = {"name": "x", "labels": LABELS, "splits": {**splits, "noisy": {"of": "generated", "duplicate": 0.3}}}
    benchmark = Benchmark.model_validate({**spec, "near_duplicate": None})
    again = Benchmark.model_validate(benchmark.model_dump(mode="json"))
    assert again == benchmark
    noisy = load(benchmark, ["noisy"], tmp_path / "cache")["noisy"]
    assert len(noisy) == 9
    assert noisy.ids[0] == "noisy-generated-2"
    assert [id_.endswith("-copy") for id_ in noisy.ids] == [kind == "duplicate" for kind in noisy.corruptions]
    assert summary(again, tmp_path / "cache")[-1].notes == ("noisy: 7 clean, 2 duplicate",)
