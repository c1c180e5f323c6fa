from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config.benchmark import Benchmark, CorruptedSplit
from harness.config.schema import parse
from harness.data.benchmarks import load, summary
from harness.data.corruptions import corrupt, kind
from harness.data.split import Split
from harness.errors import UserError

LABELS = ("a", "b", "c")


def rows_of(labels: list[int], pairs: bool = False) -> Split:
    ids = tuple(f"generated-{i}" for i in range(len(labels)))
    seconds = tuple(f"second {id_}" for id_ in ids) if pairs else None
    return Split("generated", ids, tuple(f"text {id_}" for id_ in ids), seconds, np.array(labels, dtype=np.int64))


def spoil(rows: Split, **shares) -> Split:
    return corrupt(rows, CorruptedSplit(of="generated", **shares), LABELS, "noisy")


def spoiled(split: Split, what: str) -> list[int]:
    return [i for i, id_ in enumerate(split.ids) if kind(id_) == what]


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), min_size=20, max_size=60), st.booleans(), st.integers(0, 3))
def test_every_kind_is_exact_disjoint_and_touches_nothing_else(labels, pairs, seed):
    rows = rows_of(labels, pairs)
    out = spoil(rows, flip=0.3, unrelated=0.2, duplicate=0.1, seed=seed)
    count = {what: int(np.floor(share * len(rows) + 0.5)) for what, share in
             (("flip", 0.3), ("unrelated", 0.2), ("duplicate", 0.1))}  # fmt: skip
    assert {what: len(spoiled(out, what)) for what in count} == count
    assert len(out) == len(rows) + count["duplicate"]
    assert len(set(out.ids)) == len(out)
    origin = [rows.ids.index(id_.removeprefix("noisy-").partition("+")[0]) for id_ in out.ids]
    assert origin[: len(rows)] == list(range(len(rows)))
    for i, source in enumerate(origin):
        same_text = out.texts[i] == rows.texts[source]
        assert same_text is (kind(out.ids[i]) != "unrelated")
        assert (out.labels[i] == rows.labels[source]) == (kind(out.ids[i]) != "flip")
        if out.pairs and rows.pairs:
            assert out.pairs[i] == f"second {out.texts[i].removeprefix('text ')}"
    doubled = {origin[i] for i in spoiled(out, "duplicate")}
    assert all(kind(out.ids[i]) == "original" for i in doubled)


def test_swapped_labels_keep_the_classes_sizes():
    rows = rows_of([0] * 30 + [1] * 6 + [2] * 4)
    out = spoil(rows, swap=0.4)
    assert len(spoiled(out, "swap")) == 16
    assert np.bincount(out.labels).tolist() == [30, 6, 4]
    changed = np.flatnonzero(out.labels != rows.labels)
    assert changed.tolist() == spoiled(out, "swap")


def test_flips_reach_every_other_label_and_are_nested():
    rows = rows_of([0, 1, 2] * 100)
    small, large = spoil(rows, flip=0.2), spoil(rows, flip=0.4)
    assert set(spoiled(small, "flip")) < set(spoiled(large, "flip"))
    same = spoiled(small, "flip")
    assert small.labels[same].tolist() == large.labels[same].tolist()
    assert {(a, b) for a, b in zip(rows.labels, large.labels, strict=True) if a != b} == {
        (a, b) for a in range(3) for b in range(3) if a != b
    }


def test_confusion_counts_are_exact():
    rows = rows_of([0] * 50 + [1] * 20 + [2] * 30)
    out = spoil(rows, confusion={"a": {"b": 0.2, "c": 0.1}, "c": {"a": 0.5}})
    table = np.zeros((3, 3), dtype=int)
    np.add.at(table, (rows.labels, out.labels), 1)
    assert table.tolist() == [[35, 10, 5], [0, 20, 0], [15, 0, 15]]


def test_the_seed_decides():
    rows = rows_of([0, 1, 2] * 20)
    assert spoil(rows, flip=0.5).digest == spoil(rows, flip=0.5).digest
    assert spoil(rows, flip=0.5).digest != spoil(rows, flip=0.5, seed=1).digest


def test_too_many():
    with pytest.raises(UserError, match=r"^splits.noisy: swap needs 20 rows of generated, but only 11 fit that are"):
        spoil(rows_of([0] * 19 + [1]), swap=1.0)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"of": "generated"}, "splits.noisy: the shares must add up to more than 0 and at most 1, got 0"),
        ({"of": "generated", "flip": 0.7, "swap": 0.4}, "at most 1, got 1.1"),
        ({"of": "generated", "flip": 0.1, "confusion": {"a": {"b": 0.1}}}, "give flip or confusion, not both"),
        ({"of": "generated", "confusion": {"a": {"a": 0.1}}}, "confusion.a: expected shares of other labels"),
        ({"of": "generated", "confusion": {"a": {"d": 0.1}}}, "unknown label 'd' in splits.noisy.confusion."),
        ({"of": "real_large", "flip": 0.1}, "splits.noisy: takes the rows of real_large, which is not there"),
        ({"of": "generated", "flop": 0.1}, "unknown key 'flop' in splits.noisy. Did you mean 'flip'?"),
    ],
)
def test_faults_of_the_yaml(part, message):
    files = {name: {"file": "x.csv"} for name in ("real_small", "validation", "test", "generated")}
    with pytest.raises(UserError) as error:
        parse(Benchmark, {"name": "x", "labels": LABELS, "splits": {**files, "noisy": part}}, "x.yaml")
    assert message in str(error.value)
    with pytest.raises(UserError, match="for training only"):
        parse(Benchmark, {"name": "x", "labels": LABELS, "splits": {**files, "test": {"of": "generated", "flip": 0.1}}},
              "x.yaml")  # fmt: skip


def test_a_noisy_split_of_a_benchmark(tmp_path):
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
    assert summary(again, tmp_path / "cache")[-1].notes == ("noisy: 2 duplicate, 7 original",)
