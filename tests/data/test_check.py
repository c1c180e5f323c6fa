from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console

from harness.cli.data_check import tables
from harness.config.benchmark import Benchmark
from harness.data.bag_of_words import BagOfWords
from harness.data.benchmarks import load
from harness.data.check import check
from harness.data.distributions import conditional_entropy
from harness.data.text_statistics import distinct, jaccard, lengths, ngrams, self_bleu, vocabulary_overlap, words


def test_words_and_lengths():
    assert words("It's 5 % off, really!") == ["it's", "5", "%", "off", ",", "really", "!"]
    counts = lengths(["a", "a b c", "a b"])
    assert (counts.least, counts.median, counts.mean, counts.most) == (1, 2.0, 2.0, 3)


def test_variety_worked_by_hand():
    texts = [["a", "b", "a"], ["a", "b"]]
    assert ngrams(texts[0], 2) == [("a", "b"), ("b", "a")]
    assert [distinct(texts, order) for order in (1, 2, 3, 4)] == [2 / 5, 2 / 3, 1.0, 0.0]
    assert vocabulary_overlap(texts, [["a", "c"]]) == (1 / 2, 3 / 5)
    assert jaccard("ab", "bc") == 1 / 3
    assert jaccard("", "") == 1.0


def test_self_bleu_worked_by_hand():
    assert self_bleu([list("abcde")] * 3) == pytest.approx(1.0)
    # precisions 4/5, 3/4, 2/3, 1/2 both ways, equal lengths
    assert self_bleu([list("abcde"), list("abcdf")]) == pytest.approx((4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    # "aab" against "ab": 2/3, 1/2, then 0.1/1 twice; "ab" against "aab": 1, 1, 0.1, 0.1 and penalty e^(1 - 3/2)
    longer, shorter = (2 / 3 * 1 / 2 * 0.01) ** 0.25, 0.01**0.25 * np.exp(-0.5)
    assert self_bleu([list("aab"), list("ab")]) == pytest.approx((longer + shorter) / 2)
    # the largest count in one other text clips, not the sum over them
    assert self_bleu([list("aa"), list("a"), list("a")]) < self_bleu([list("aa"), list("aa"), list("a")])
    with pytest.raises(ValueError, match="expected at least two texts, got 1"):
        self_bleu([["a"]])


def tiny(folder, pairs: bool = False) -> Benchmark:
    good, bad = ["good", "fine", "great", "lovely"], ["bad", "poor", "awful", "nasty"]
    things = ["film", "book", "song", "meal", "trip", "room"]
    splits = {}
    for number, name in enumerate(("real_small", "validation", "test", "generated")):
        rows = [
            {"text": f"the {thing} was {word} {name}", "second": f"a {word} {thing}", "label": label}
            for label, group in enumerate((bad, good))
            for word in group
            for thing in things[number:]
        ]
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        splits[name] = {"file": str(path)}
    splits["noisy"] = {"of": "generated", "flip": 0.5}
    text = ("text", "second") if pairs else "text"
    return Benchmark.model_validate({"name": "tiny", "labels": ("no", "yes"), "text": text, "splits": splits})


@pytest.mark.parametrize("pairs", [False, True])
def test_check_of_any_benchmark(tmp_path, pairs):
    statistics = check(tiny(tmp_path, pairs), tmp_path / "cache")
    assert [row.split for row in statistics.splits] == ["real_small", "validation", "test", "generated"]
    assert statistics.sample == 24
    real, generated = statistics.splits[0], statistics.splits[-1]
    assert (real.rows, real.shares, real.equal) == (48, {"no": 0.5, "yes": 0.5}, 0)
    assert generated.words.mean == (8 if pairs else 5)
    assert bool(generated.pair_overlap) is pairs
    assert [row.split for row in statistics.overlaps] == ["real_small", "validation", "test"]
    assert statistics.overlaps[0].equal == 0
    if not pairs:
        accuracy = {(row.trained, row.tested): row.accuracy for row in statistics.transfers}
        assert accuracy["generated", "test"] == accuracy["real_small", "generated"] == 1.0
    assert statistics == check(tiny(tmp_path, pairs))
    assert json.loads(json.dumps(statistics.as_json()))["splits"][0]["near"]["0.8"] == 0


def test_the_distance_grows_when_generated_labels_mean_something_else(tmp_path):
    benchmark = tiny(tmp_path)
    same = check(benchmark).distance
    path = tmp_path / "generated.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row | {"label": 1 - row["label"]}) + "\n" for row in rows))
    inverted = check(benchmark).distance
    assert same.kl_real_generated == pytest.approx(0.0, abs=0.05)
    assert same.kl_generated_real == pytest.approx(0.0, abs=0.05)
    assert inverted.kl_real_generated > 1
    assert inverted.kl_generated_real > 1
    assert inverted.entropy_real == same.entropy_real


def test_generated_rows_are_scored_by_classifiers_not_trained_on_them(tmp_path):
    benchmark = tiny(tmp_path)
    path = tmp_path / "generated.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    labels = np.random.default_rng(0).integers(0, 2, len(rows))  # random labels can be memorized, not learned
    relabeled = [
        {"text": f"{row['text']} word{i}", "label": int(label)}
        for i, (row, label) in enumerate(zip(rows, labels, strict=False))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in relabeled))
    generated = load(benchmark, ["generated"])["generated"]
    training_entropy = conditional_entropy(BagOfWords(generated).log_probabilities(generated))
    assert check(benchmark).distance.kl_generated_real > 0
    assert check(benchmark).distance.entropy_generated > 1.2 * training_entropy


def test_without_a_class_there_is_no_distance(tmp_path):
    benchmark = tiny(tmp_path)
    path = tmp_path / "generated.jsonl"
    path.write_text("".join(line + "\n" for line in path.read_text().splitlines() if '"label": 1' in line))
    statistics = check(benchmark)
    assert statistics.distance is None
    assert "Label distributions" not in {str(table.title) for table in tables(statistics)}


def test_tables(tmp_path):
    out = Console(width=150, file=io.StringIO())
    for table in tables(check(tiny(tmp_path))):
        out.print(table)
    text = out.file.getvalue()
    for part in ("tiny: sizes", "no: 50%, 5.0", "distinct-n and self-BLEU on 24 rows", "A bag-of-words classifier",
                 "KL(P‖Q)"):  # fmt: skip
        assert part in text
