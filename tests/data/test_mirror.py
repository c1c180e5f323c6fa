from __future__ import annotations

import json
from pathlib import Path

import datasets
import numpy as np
import pytest

from harness.config.benchmark import Benchmark, DataSource
from harness.config.schema import parse
from harness.data.benchmarks import load, resolve
from harness.data.near_duplicates import matches
from harness.data.readers import MIRROR, fingerprint, read
from harness.data.split import row_texts
from harness.errors import UserError

REAL = Path(__file__).parents[3] / "shared" / "data"
ROWS = [{"text": "b  b", "label": 1}, {"text": "a a", "label": 0}, {"text": "a a", "label": 0}]
HUB = {"hub": "someone/set", "split": "train", "mirror": "set/train.jsonl", "by_content": True, "rows": 3}


def benchmark(**changes) -> Benchmark:
    splits = {name: {**HUB, **changes} for name in ("real_small", "validation", "test")}
    return Benchmark.model_validate({"name": "tiny", "labels": ("no", "yes"), "splits": splits})


def rows_of(**changes):
    return read(DataSource(**{**HUB, **changes}), "test", benchmark())


@pytest.fixture
def mirror(tmp_path, monkeypatch) -> Path:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    monkeypatch.setenv(MIRROR, str(tmp_path))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("loaded from the hub"))
    return tmp_path


def test_the_mirror_gives_what_the_hub_gives(mirror, monkeypatch):
    local = rows_of()
    hub = datasets.Dataset.from_list([*ROWS[1:], {"text": "b b", "label": 1}])
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: hub)
    monkeypatch.delenv(MIRROR)
    remote = rows_of()
    assert remote.ids == local.ids
    assert remote.labels.tolist() == local.labels.tolist()
    assert sum(id_.endswith("-2") for id_ in remote.ids) == 1, "equal rows are numbered"
    monkeypatch.setenv(MIRROR, str(mirror))
    assert rows_of(mirror=None).ids == local.ids, "a source without a mirror is loaded from the hub"


def test_a_file_missing_in_the_mirror_is_named(mirror):
    with pytest.raises(UserError) as error:
        rows_of(mirror="set/trian.jsonl")
    assert str(error.value) == (
        f"HARNESS_MIRROR is {mirror}, but there is no file set/trian.jsonl in it, the copy of someone/set (default, "
        "split train). Put it there, or unset HARNESS_MIRROR to load from the hub."
    )


def test_the_number_of_rows_is_checked(mirror):
    with pytest.raises(
        UserError, match=r"train.jsonl: expected 4 rows, found 3. Use the file that the benchmark was made for, or"
    ):
        rows_of(rows=4)


def test_the_hub_must_have_the_labels_of_the_benchmark(monkeypatch):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["y", "n"])})
    hub = datasets.Dataset.from_list(ROWS, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: hub)
    with pytest.raises(
        UserError, match=r"expected the labels \['no', 'yes'\], found \['y', 'n'\]. Write the names found"
    ):
        rows_of()


def test_the_fingerprint_covers_the_content_of_the_mirror(mirror, monkeypatch):
    before = fingerprint(benchmark())
    with (mirror / "set" / "train.jsonl").open("a") as stream:
        stream.write("\n")
    assert fingerprint(benchmark()) != before
    monkeypatch.delenv(MIRROR)
    assert fingerprint(benchmark()) != before


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"file": "x.csv", "mirror": "y"}, "expected hub beside mirror, its local copy; without hub, use file alone"),
        ({**HUB, "id": "key"}, "expected id or by_content, found both"),
    ],
)
def test_errors_in_a_source(source, message):
    with pytest.raises(UserError, match=message):
        parse(DataSource, source, "x.yaml")


def test_official_splits_keep_training_rows_from_held_out_ones(tmp_path):
    words = [f"{a} {b} {c} and more" for a in "pqrs" for b in "tuv" for c in "wxyz"]
    pool = [{"text": text, "label": number % 2} for number, text in enumerate(words)]
    for name, rows in (("pool", pool), ("test", pool[:9]), ("large", pool[:20])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = {name: {"file": str(tmp_path / f"{name}.jsonl")} for name in ("pool", "test", "large")}
    splits = {"real_small": {"pool": "all", "rows": 10}, "validation": {"pool": "all", "rows": 10},
              "test": file["test"], "real_large": file["large"]}  # fmt: skip
    spec = {"name": "x", "labels": ("no", "yes"), "pools": {"all": file["pool"]}, "splits": splits}
    rows = load(Benchmark.model_validate({**spec, "near_duplicate": 1.0}), splits)
    assert [len(rows[name]) for name in ("real_small", "validation", "test")] == [10, 10, 9]
    held_out = {*rows["validation"].texts, *rows["test"].texts}
    assert not held_out & {*rows["real_small"].texts, *rows["real_large"].texts}
    assert not {*rows["validation"].texts} & {*rows["test"].texts}


ROW_COUNTS = {
    "financial": {"real_small": 300, "validation": 400, "test": 1000, "real_large": 3056, "generated": 1200},
    "financial_few_shot": {"real_small": 300, "validation": 400, "test": 1000, "real_large": 3056, "generated": 600},
    "tweet_irony": {"real_small": 300, "validation": 955, "test": 784, "real_large": 2560, "generated": 1000},
    "tweet_irony_few_shot": {"real_small": 300, "validation": 955, "test": 784, "real_large": 2560, "generated": 600},
    "mrpc": {"real_small": 300, "validation": 400, "test": 1725, "real_large": 3251, "generated": 1220},
    "mrpc_few_shot": {"real_small": 300, "validation": 400, "test": 1725, "real_large": 3251, "generated": 600},
}


@pytest.mark.skipif(not REAL.exists(), reason="the real benchmarks' files are not beside this checkout")
@pytest.mark.parametrize("name", ROW_COUNTS)
def test_the_papers_benchmarks_and_their_variants(name, monkeypatch):
    monkeypatch.setenv(MIRROR, str(REAL))
    spec = resolve(name)
    assert set(spec.digests) == set(spec.splits)
    splits = load(spec, spec.splits)  # checks the digests
    corrupted = splits.pop("noisy")
    assert {split: len(rows) for split, rows in splits.items()} == ROW_COUNTS[name]
    assert (corrupted.labels != splits["generated"].labels).mean() == 0.4
    assert corrupted.corruptions.count("flip") == 0.4 * len(corrupted)
    assert np.ptp(np.bincount(splits["generated"].labels)) == 0
    held_out = [text for split in ("validation", "test") for text in row_texts(splits[split])]
    for split in ("real_small", "real_large", "generated"):
        assert not matches(row_texts(splits[split]), held_out, 0.8).any()
    assert not matches(row_texts(splits["validation"]), row_texts(splits["test"]), 0.8).any()


def test_the_few_shot_variant_has_the_real_rows_of_its_base():
    base, variant = resolve("mrpc"), resolve("mrpc_few_shot")
    assert {name for name in base.splits if base.digests[name] != variant.digests[name]} == {"generated", "noisy"}
    rows = read(variant.splits["generated"], "generated", variant)
    assert np.bincount(rows.labels).tolist() == [300, 300]
    assert len({*rows.texts}) == len({*rows.pairs}) == len(rows) == 600
