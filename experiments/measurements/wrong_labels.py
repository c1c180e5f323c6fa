"""Does `harness weigh` find wrong labels among written rows? Against scores that need no human rows (cleanlab).

The labels of a benchmark's generated rows are made wrong in four ways:

- uniform: 40 % of the rows get another label, each with the same probability
- asymmetric: 40 % of the rows of every label but the last get the next label
- class-dependent: a random share of every label's rows (5 to 75 %) get another label, with random preferences
- instance-dependent: the 30 % of the rows of which a classifier of other human rows is least sure get its second guess

Models of the human rows (five folds) and of the other written rows (five folds) then give every written row the two
views that `harness weigh` fuses. Shown are AUROC and precision at 50 of the rows made wrong, and what the probability
of a wrong label says: the estimated share of wrong labels, and how many of the rows called suspicious are wrong.
Labels that the language model itself got wrong count as right, for all scores. Needs cleanlab (extra `test`).

    python experiments/measurements/wrong_labels.py --home FOLDER --json results/runtime/wrong_labels.json
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from simulated_users import BENCHMARKS, load_rows, shuffled, write_csv

from harness import driver
from harness.cli.progress import Progress
from harness.config.benchmark import Benchmark, CorruptedSplit
from harness.data.corruptions import corrupt
from harness.data.split import Split, concatenate
from harness.files import write_atomically
from harness.paths import Paths
from harness.seeds import generator
from harness.store import Store
from harness.weigh.candidates import NULL, WRITTEN, Candidate
from harness.weigh.checks import find_duplicates
from harness.weigh.folds import fold_name, write_benchmarks
from harness.weigh.lengths import Lengths
from harness.weigh.reading import Inputs, read
from harness.weigh.rounds import Run, outcomes, plan_round
from harness.weigh.row_table import Views, suspicion, views
from harness.weigh.settings import FOLDS, default_encoder, from_files
from harness.weigh.suspicion import RowViews, doubt, fuse

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
SIZES = (100, 300)
NOISES = ("uniform", "asymmetric", "class-dependent", "instance-dependent")
SHARE, INSTANCE_SHARE = 0.4, 0.3
OURS = "both, fused (ours)"
PRODUCT = "product of both"
HUMAN = "model of human rows alone"
METRICS = ("auroc", "precision_at_50")
COMMAND = "experiments/measurements/wrong_labels.py"


def make_wrong(rows: Split, others: Split, benchmark: Benchmark, noise: str) -> IntArray:
    """The labels of written rows, some of them made wrong.

    Args:
        rows: written rows.
        others: human rows that no user has, for a classifier.
        benchmark: for the names of its labels.
        noise: one of ``NOISES``.
    """
    names = benchmark.labels
    if noise == "uniform":
        spec = CorruptedSplit(of="generated", flip=SHARE)
    elif noise == "asymmetric":
        spec = CorruptedSplit(of="generated", confusion={a: {b: SHARE} for a, b in itertools.pairwise(names)})
    elif noise == "class-dependent":
        spec = CorruptedSplit(of="generated", confusion=confusion(names, benchmark.name))
    else:
        return second_guesses(rows, others)
    return corrupt(rows, spec, names, "written").labels


def confusion(names: Sequence[str], benchmark: str) -> dict[str, dict[str, float]]:
    """Random shares of every label that get each other label."""
    rng = generator(0, "class-dependent noise", benchmark)
    out = {}
    for name in names:
        others = [other for other in names if other != name]
        shares = rng.uniform(0.05, 0.75) * rng.dirichlet(np.ones(len(others)))
        out[name] = dict(zip(others, shares.tolist(), strict=True))
    return out


def second_guesses(rows: Split, others: Split) -> IntArray:
    """Labels in which the least certain rows have the second guess of a linear classifier on TF-IDF of other rows."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts = [split.texts if split.pairs is None else list(map(" ".join, zip(split.texts, split.pairs, strict=True)))
             for split in (others, rows)]  # fmt: skip
    classifier = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10.0))
    log_p = classifier.fit(texts[0], others.labels).predict_log_proba(texts[1])
    own = log_p[np.arange(len(rows)), rows.labels]
    log_p[np.arange(len(rows)), rows.labels] = -np.inf
    margin = own - log_p.max(axis=1)
    # of the rows whose label the classifier agrees with, the least certain; then, if need be, the others
    order = np.lexsort((np.abs(margin), margin < 0))
    changed = order[: round(INSTANCE_SHARE * len(rows))]
    labels = rows.labels.copy()
    labels[changed] = log_p[changed].argmax(axis=1)
    return labels


def compare(
    wrong: npt.NDArray[np.bool_], people: RowViews, truth: IntArray, written: RowViews, labels: IntArray
) -> dict[str, Any]:
    """AUROC and precision at 50 of wrong labels, by score.

    Args:
        wrong: which labels of n written rows are wrong [n].
        people: of m human rows.
        truth: their classes [m].
        written: of the written rows.
        labels: their classes [n].
    """
    from cleanlab.rank import get_label_quality_scores  # type: ignore[import-untyped]
    from scipy.special import log_softmax
    from sklearn.metrics import roc_auc_score

    q = np.exp(written.q)
    q /= q.sum(axis=1, keepdims=True)
    posterior = fuse(people, truth, written, labels).posterior(written, labels)
    scores = {
        OURS: 1 - posterior[np.arange(len(labels)), labels],
        PRODUCT: doubt(log_softmax(written.p + written.q, axis=1), labels),
        HUMAN: doubt(written.p, labels),
    }
    for title in ("self confidence", "normalized margin", "confidence weighted entropy"):
        method = title.replace(" ", "_")
        scores[f"cleanlab, {title}"] = 1 - get_label_quality_scores(labels, q, method=method, adjust_pred_probs=False)
    return {
        name: {
            "auroc": float(roc_auc_score(wrong, values)),
            "precision_at_50": float(wrong[np.argsort(-values, kind="stable")[:50]].mean()),
        }
        for name, values in scores.items()
    }


class Case:
    """A benchmark and a number of human rows."""

    def __init__(
        self, benchmark: str, rows: int, home: Path, steps: int, layers: int, more: Sequence[str], console: Console
    ) -> None:
        self.rows, self.console, self.paths = rows, console, Paths.at(home)
        self.folder = home / "files" / f"{benchmark}-{rows}"
        self.lengths = Lengths(steps, max(60, steps), (0,), (), 0.0)
        # few layers need a larger rate (results/weigh_settings)
        few = (f"training.layers={layers}", "training.learning_rate=5.0e-4") if layers else ()
        self.overrides = (*few, *more)
        self.benchmark, people, self.written, test = load_rows(benchmark)
        people = shuffled(people, rows, 0, benchmark)
        self.people = people.take(np.arange(rows))
        self.others = concatenate("others", [people.take(np.arange(rows, len(people))), test])

    def run(self) -> list[dict[str, Any]]:
        """The figures of every noise."""
        _, of_people = self.trained("as written", self.written.labels, (NULL,))
        out = []
        for noise in NOISES:
            labels = make_wrong(self.written, self.others, self.benchmark, noise)
            inputs, noisy = self.trained(noise, labels, (WRITTEN,))
            # human rows have not changed, so neither have their models
            both = Views(of_people.p, noisy.q)
            ids, judged = suspicion(inputs, both)
            row = [int(id_.partition("-")[2]) for id_ in ids]
            wrong = (labels != self.written.labels)[row]
            classes = dict(zip(inputs.written.ids, inputs.written.labels.tolist(), strict=True))
            people = both.of(inputs.people.ids)
            given = np.array([classes[id_] for id_ in ids])
            found = judged.suspicious
            out.append({
                "benchmark": self.benchmark.name, "people": self.rows, "noise": noise, "share": float(wrong.mean()),
                "estimated_share": judged.share, "suspicious": int(found.sum()),
                "wrong_among_suspicious": float(wrong[found].mean()) if found.any() else None,
                "scores": compare(wrong, people, inputs.people.labels, both.of(ids), given),
            })  # fmt: skip
        return out

    def trained(self, noise: str, labels: IntArray, candidates: Sequence[Candidate]) -> tuple[Inputs, Views]:
        """The rows as `harness weigh` reads them, and the views of its models."""
        folder = self.folder / noise
        write_csv(self.people, self.benchmark.labels, folder / "people.csv")
        write_csv(replace(self.written, labels=labels), self.benchmark.labels, folder / "written.csv")
        title = f"{self.benchmark.name}-{self.rows}-{noise.replace(' ', '-')}"
        settings = from_files(folder / "people.csv", folder / "written.csv", {"name": title}, self.overrides)
        inputs = read(settings)
        benchmarks = write_benchmarks(inputs, find_duplicates(inputs.people, inputs.written), title, folder / "data")
        folds = [benchmarks[fold_name(fold)] for fold in range(FOLDS)]
        plan = plan_round(
            settings, "labels", folds, [(candidate, (0,)) for candidate in candidates], self.lengths,
            default_encoder(), self.paths.cache, resources={"cpus": 1},
        )  # fmt: skip
        self.console.print(f"{self.benchmark.name}, {self.rows} human rows, {noise}")
        result = driver.execute(plan, self.paths, None, COMMAND, Progress(self.console))
        assert not result.failed, result.failed
        found: dict[Run, Any] = outcomes(plan, Store(self.paths.store))
        return inputs, views(found)


def summary(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over benchmarks and sizes, by noise."""
    out: dict[str, Any] = {}
    for noise in NOISES:
        rows = [result for result in results if result["noise"] == noise]
        if not rows:
            continue
        scores = {
            name: {metric: float(np.mean([row["scores"][name][metric] for row in rows])) for metric in METRICS}
            for name in rows[0]["scores"]
        }
        best = max(scores[name]["auroc"] for name in scores if name.startswith("cleanlab"))
        gains = [
            row["scores"][OURS]["auroc"]
            - max(values["auroc"] for name, values in row["scores"].items() if name.startswith("cleanlab"))
            for row in rows
        ]
        told = [row for row in rows if row["wrong_among_suspicious"] is not None]
        out[noise] = {
            "scores": scores,
            "auroc_over_best_cleanlab": scores[OURS]["auroc"] - best,
            "auroc_over_best_cleanlab_of_each": float(np.mean(gains)),
            "share": float(np.mean([row["share"] for row in rows])),
            "estimated_share": float(np.nanmean([row["estimated_share"] for row in rows])),
            "wrong_among_suspicious": float(np.mean([row["wrong_among_suspicious"] for row in told])) if told else None,
        }
    return out


def show(total: Mapping[str, Any], console: Console) -> None:
    """The tables."""
    table = Table("score", *total, title="AUROC of wrong labels (precision at 50)")
    for name in next(iter(total.values()))["scores"]:
        cells = [f"{noise['scores'][name]['auroc']:.3f} ({noise['scores'][name]['precision_at_50']:.2f})"
                 for noise in total.values()]  # fmt: skip
        table.add_row(name, *cells)
    table.add_row(
        "ours over cleanlab's best", *[f"{noise['auroc_over_best_cleanlab']:+.3f}" for noise in total.values()]
    )
    console.print(table)
    table = Table("", *total, title="What the probability of a wrong label says")
    for key, title in (
        ("share", "share of wrong labels"), ("estimated_share", "estimated"),
        ("wrong_among_suspicious", "wrong among the suspicious"),
    ):  # fmt: skip
        table.add_row(title, *["–" if noise[key] is None else f"{noise[key]:.2f}" for noise in total.values()])
    console.print(table)


def main() -> None:
    """Runs every case, and shows what all say together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmarks", nargs="+", default=BENCHMARKS)
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES, help="numbers of human rows")
    parser.add_argument("--steps", type=int, default=60, help="of a training")
    parser.add_argument("--layers", type=int, default=0, help="transformer layers that are kept; 0 for all")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in `harness weigh`")
    parser.add_argument(
        "--home", type=Path, default=Path(".harness-wrong-labels"), help="for trials; finished ones stay"
    )
    parser.add_argument("--json", type=Path, help="write every number to this file")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    results: list[dict[str, Any]] = []
    for rows, benchmark in itertools.product(arguments.rows, arguments.benchmarks):
        case = Case(
            benchmark, rows, arguments.home.resolve(), arguments.steps, arguments.layers, arguments.set, console
        )
        results += case.run()
        total = summary(results)
        if arguments.json:
            content = {
                "layers": arguments.layers,
                "steps": arguments.steps,
                "set": arguments.set,
                **total,
                "results": results,
            }
            write_atomically(arguments.json, (json.dumps(content, indent=1) + "\n").encode())
    show(total, console)


if __name__ == "__main__":
    main()
