"""Is the answer of `harness weigh` right? Simulated users, with a large labeled set as judge.

A user has human rows drawn from a benchmark, and its generated rows: as they are, with 40 % of the labels flipped, or
with half of the texts off topic. `harness weigh` answers without a test set. Then every way to train is trained on all
of the user's rows and judged on the benchmark's test split, which no user has seen:

- regret: accuracy of the best way minus that of the recommended one, in points; also of the fixed policies (always
  human rows alone, always both, always DIMP, always confident learning)
- harm: share of the users who are told to use their written rows although that costs a point or more
- worth: whether the interval contains the number of human rows that really reaches the accuracy, by training on more
- suspicious rows: AUROC and precision at 50 of flipped labels, against scores that need no human rows (cleanlab)

Finished users are kept, so the same command continues. Those of a benchmark share its generated and test rows, and
those that differ only in what was done to the generated rows share their human rows, so intervals over users are too
narrow. Reduced here: the encoder is cut to its first layers (--layers), so that twenty users are hours and not days.
Needs cleanlab (extra `dev`).

    python experiments/measurements/weigh.py --users 20 --home FOLDER --json results/runtime/weigh.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from simulated_users import BENCHMARKS, load_rows, shuffled, write_csv
from wrong_labels import METRICS, compare

from harness import driver
from harness.cli.progress import Progress
from harness.config.benchmark import Benchmark, CorruptedSplit
from harness.data.benchmarks import load, resolve
from harness.data.corruptions import corrupt
from harness.data.split import Split
from harness.files import write_atomically
from harness.paths import Paths
from harness.seeds import generator
from harness.store import Store
from harness.weigh.analysis import Evidence
from harness.weigh.candidates import CANDIDATES, NULL, WRITTEN, Candidate
from harness.weigh.checks import find_duplicates
from harness.weigh.folds import write_benchmark
from harness.weigh.reading import read
from harness.weigh.result import VERSION
from harness.weigh.rounds import Run, outcomes, plan_round
from harness.weigh.session import Answer, Session
from harness.weigh.settings import WeighSettings, from_files
from harness.weigh.worth import rows_for

SIZES = (100, 300)
KINDS = ("as they are", "40 % flipped", "half off topic")
CONFIDENT = Candidate("both", "confident", "both, pruned by confident learning")
#: A true gain so low is harm.
HARM = -0.01
POLICIES = {
    "always human rows": NULL.key, "always both": "both:ce", "always DIMP": "both:dimp",
    "always confident learning": CONFIDENT.key,
}  # fmt: skip
#: Human rows for the true learning curve, as multiples of a user's.
MULTIPLES = (0.2, 0.4, 0.8, 1.6, 3.2)
TEST_ROWS = 1000
TRUTH_SEEDS = (0, 1)
#: Accuracy on every other test row, and on the others.
Halves = tuple[float, float]


@dataclass(frozen=True)
class User:
    """A simulated user."""

    benchmark: str
    rows: int
    kind: str
    draw: int

    @property
    def name(self) -> str:
        """For files and experiments."""
        return f"{self.benchmark}-{self.rows}-{KINDS.index(self.kind)}-{self.draw}"


def users(count: int) -> list[User]:
    """The first users: every combination of size, kind and benchmark once, in a mixed order, then further draws."""
    every = [User(*parts[:3], 0) for parts in itertools.product(BENCHMARKS, SIZES, KINDS)]
    order = generator(0, "users").permutation(len(every))
    mixed = [every[i] for i in order]
    return [User(u.benchmark, u.rows, u.kind, n // len(mixed)) for n in range(count) for u in [mixed[n % len(mixed)]]]


def make_rows(user: User) -> tuple[Benchmark, Split, Split, Split, dict[str, str]]:
    """Benchmark, further human rows (the user's come first), written rows, test rows, true label of flipped rows."""
    benchmark, pool, written, test = load_rows(user.benchmark)
    people = shuffled(pool, user.rows, user.draw, user.benchmark).take(np.arange(round(user.rows * max(MULTIPLES))))
    truth = {}
    if user.kind == KINDS[1]:
        flipped = corrupt(
            written, CorruptedSplit(of="generated", flip=0.4, seed=user.draw), benchmark.labels, "written"
        )
        truth = {
            str(k): benchmark.labels[label]
            for k, (label, kind) in enumerate(zip(written.labels.tolist(), flipped.corruptions or (), strict=True))
            if kind
        }
        written = flipped
    elif user.kind == KINDS[2]:
        written = off_topic(written, user)
    return benchmark, people, written, test.take(np.arange(min(TEST_ROWS, len(test)))), truth


def off_topic(written: Split, user: User) -> Split:
    """Half of the rows with texts of another benchmark; the labels stay."""
    other = BENCHMARKS[(BENCHMARKS.index(user.benchmark) + 3) % len(BENCHMARKS)]
    foreign = load(resolve(other), ["generated"])["generated"].texts
    replaced = generator(user.draw, "off topic", user.name).permutation(len(written))[: len(written) // 2]
    texts = list(written.texts)
    pairs = None if written.pairs is None else list(written.pairs)
    for k, row in enumerate(replaced.tolist()):
        texts[row] = foreign[(2 * k) % len(foreign)]
        if pairs is not None:
            pairs[row] = foreign[(2 * k + 1) % len(foreign)]
    return Split("written", written.ids, tuple(texts), None if pairs is None else tuple(pairs), written.labels)


class Study:
    """A user's answer and the truth."""

    def __init__(self, user: User, home: Path, budget: str, layers: int | None, console: Console) -> None:
        self.user, self.folder, self.console = user, home / "users" / user.name, console
        self.paths = Paths.at(home)
        self.store = Store(self.paths.store)
        self.benchmark, self.more, self.written, self.test, self.flipped = make_rows(user)
        self.people = self.more.take(np.arange(user.rows))
        write_csv(self.people, self.benchmark.labels, self.folder / "people.csv")
        write_csv(self.written, self.benchmark.labels, self.folder / "written.csv")
        # few layers need a larger rate (results/weigh_settings)
        overrides = () if layers is None else (f"training.layers={layers}", "training.learning_rate=5.0e-4")
        options = {"budget": budget, "name": user.name}
        self.settings: WeighSettings = from_files(
            self.folder / "people.csv", self.folder / "written.csv", options, overrides
        )

    def run(self) -> dict[str, Any]:
        """Answer, truth, and their comparison."""
        started = time.perf_counter()
        session = Session(
            self.settings, self.paths, self.folder / "out", None, "experiments/measurements/weigh.py",
            lambda: Progress(self.console), lambda line: self.console.print(line, markup=False, soft_wrap=True),
        )  # fmt: skip
        answer = session.run()
        seconds = time.perf_counter() - started
        accuracy, curve, at_half = self.truth(session, answer.result.best)
        out: dict[str, Any] = {
            "user": asdict(self.user), "version": VERSION, "verdict": answer.result.verdict, "best": answer.result.best,
            "recommended": answer.result.recommended, "gain": answer.result.gain.mean,
            "gain_interval": answer.result.gain.interval, "sure": answer.result.score.sure,
            "expected_accuracy": asdict(answer.result.accuracy), "accuracy": accuracy,
            "steps": session.lengths.steps, "real_steps": session.lengths.real_steps, "seconds": seconds,
            "worth": self.worth(answer, curve, at_half),
            "predictions": predictions(session.evidence),
        }  # fmt: skip
        if self.flipped:
            out["suspicious"] = self.suspicious(answer)
        return out

    def truth(self, session: Session, best: str) -> tuple[dict[str, Halves], dict[str, float], float]:
        """Test accuracy: of every candidate on all rows, of human rows alone by size, of the best with 0.4 of them."""
        inputs = read(self.settings)
        order = np.array([inputs.labels.index(label) for label in self.benchmark.labels])  # `read` sorts the labels
        test, people = (replace(split, labels=order[split.labels]) for split in (self.test, self.more))
        duplicates = find_duplicates(inputs.people, inputs.written)
        kept = [k for k, id_ in enumerate(inputs.written.ids) if id_ not in duplicates.of_people]
        written = inputs.written.take(kept)  # the benchmark has left out near-duplicates of its test rows
        splits = {"real_small": inputs.people, "generated": written, "validation": written.take([0]), "test": test}
        name = self.user.name
        all_rows = write_benchmark(f"{name}.truth", splits, inputs, self.folder / "truth")
        more = write_benchmark(f"{name}.more", splits | {"real_small": people}, inputs, self.folder / "more")
        settings = self.settings.model_copy(
            update={"experiment": self.settings.experiment | {"checkers": {"diversity": {"folds": 5}}}}
        )
        rows: list[tuple[Candidate, Sequence[int]]] = [(candidate, TRUTH_SEEDS) for candidate in (NULL, *CANDIDATES)]
        candidates = self.trained(session, settings, "truth", all_rows, [*rows, (CONFIDENT, TRUTH_SEEDS)])
        shares = tuple(multiple / max(MULTIPLES) for multiple in MULTIPLES)
        curve = self.trained(session, settings, "more", more, [(NULL, TRUTH_SEEDS)], shares)
        half, share = candidates, 1.0
        if best != WRITTEN.key:  # it has no human rows to take a share of
            share = 0.4
            best_rows = [(c, TRUTH_SEEDS) for c in CANDIDATES if c.key == best]
            half = self.trained(session, settings, "half", all_rows, best_rows, (share,))
        by_size = {f"{size * len(self.more):.0f}": _mean(curve, NULL.key, size) for size in shares}
        keys = [candidate.key for candidate, _ in rows] + [CONFIDENT.key]
        halves = {key: (_mean(candidates, key, 1.0, 0), _mean(candidates, key, 1.0, 1)) for key in keys}
        return halves, by_size, _mean(half, best, share)

    def trained(
        self, session: Session, settings: WeighSettings, name: str, benchmark: Benchmark,
        rows: Sequence[tuple[Candidate, Sequence[int]]], shares: Sequence[float] = (1.0,),
    ) -> dict[Run, Any]:  # fmt: skip
        """For every trial of a grid, 1 or 0 for each test row."""
        cache, resources = self.paths.cache, session.resources
        plan = plan_round(
            settings, name, [benchmark], rows, session.lengths, session.encoder, cache, shares, resources
        )  # fmt: skip
        summary = driver.execute(plan, self.paths, None, "experiments/measurements/weigh.py", Progress(self.console))
        assert not summary.failed, summary.failed
        return {run: outcome.correct for run, outcome in outcomes(plan, self.store).items()}

    def worth(self, answer: Answer, curve: Mapping[str, float], at_half: float) -> dict[str, Any]:
        """The interval beside half of the human rows, and the number that the true learning curve gives."""
        middle = answer.result.worth[-2]
        people = np.array([float(size) for size in curve])
        true = float(rows_for(people, np.array([list(curve.values())]), np.array([at_half]))[0]) - 0.4 * self.user.rows
        return {
            "people": middle.people, "clear": middle.clear, **asdict(middle.rows), "true": true,
            "covered": middle.rows.low <= true <= middle.rows.high, "curve": dict(curve), "at_half": at_half,
        }  # fmt: skip

    def suspicious(self, answer: Answer) -> dict[str, dict[str, float]]:
        """AUROC and precision at 50 of the flipped labels, by score."""
        inputs = read(self.settings)
        rows = answer.rows[[f"written-{id_}" in answer.views.q for id_ in answer.rows["id"]]]
        classes = {label: k for k, label in enumerate(answer.result.settings["labels"])}
        people, written = (
            answer.views.of(ids) for ids in (inputs.people.ids, [f"written-{id_}" for id_ in rows["id"]])
        )
        wrong = rows["id"].isin(self.flipped).to_numpy()
        labels = rows["label"].map(classes).to_numpy(np.int64)
        return compare(wrong, people, inputs.people.labels, written, labels)


def predictions(evidence: Evidence) -> dict[str, Any]:
    """Fold -> the true classes of its human rows, and by candidate and seed their log-probabilities times 100, rounded.

    With these, other rules of decision can be judged without training anything again.
    """
    out: dict[str, Any] = {}
    for run, outcome in evidence.outcomes.items():
        if run.share == 1.0:
            fold = out.setdefault(run.benchmark, {"truth": outcome.truth.tolist()})
            values = (100 * outcome.log_probs).round().astype(np.int64)
            fold.setdefault(run.candidate, {})[run.seed] = values.tolist()
    return out


def _mean(correct: Mapping[Run, Any], candidate: str, share: float, half: int | None = None) -> float:
    """Accuracy over seeds; of every other test row with ``half``."""
    rows = [values for run, values in correct.items() if run.candidate == candidate and abs(run.share - share) < 1e-9]
    assert rows, (candidate, share)
    return float(np.mean([values if half is None else values[half::2] for values in rows]))


def regret(accuracy: Mapping[str, Sequence[float]], key: str) -> float:
    """Accuracy of the best way minus that of another, in points.

    One half of the test rows says which way is best, the other what it is worth, both ways round: the best of several
    noisy accuracies on the same rows would look better than it is. So a regret may be negative.
    """
    ways = [name for name in accuracy if name != CONFIDENT.key]
    best = [max(ways, key=lambda name: accuracy[name][half]) for half in (0, 1)]
    return 100 * float(np.mean([accuracy[best[1 - half]][half] - accuracy[key][half] for half in (0, 1)]))


def true_gain(result: Mapping[str, Any], key: str) -> float:
    """Accuracy of a way minus that of human rows alone."""
    return float(np.mean(result["accuracy"][key]) - np.mean(result["accuracy"][NULL.key]))


def summary(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all users say together. Coverages are against a truth that is itself measured on some 1,000 rows."""
    from scipy.stats import binomtest

    regrets = {"harness weigh": [regret(result["accuracy"], result["recommended"]) for result in results]}
    regrets |= {name: [regret(result["accuracy"], key) for result in results] for name, key in POLICIES.items()}
    harmed = sum(result["verdict"] == "use" and true_gain(result, result["recommended"]) <= HARM for result in results)
    means = {name: float(np.mean(values)) for name, values in regrets.items()}
    clear = [result["worth"] for result in results if result["worth"]["clear"]]
    interval = binomtest(harmed, len(results)).proportion_ci(0.8, "wilson")
    gains = [r["gain_interval"][0] <= true_gain(r, r["best"]) <= r["gain_interval"][1] for r in results]
    tested = [result["suspicious"] for result in results if "suspicious" in result]
    return {
        "users": len(results),
        "verdicts": dict(Counter(result["verdict"] for result in results)),
        "mean_regret_points": means,
        "regret_over_best_policy_ratio": means["harness weigh"] / min(means[name] for name in POLICIES),
        "harmed_share": harmed / len(results),
        "harmed_interval_80": [interval.low, interval.high],
        "worth_told_share": len(clear) / len(results),
        "worth_covered_share": float(np.mean([worth["covered"] for worth in clear])) if clear else None,
        "gain_covered_share": float(np.mean(gains)),
        "suspicious": {
            score: {metric: float(np.mean([one[score][metric] for one in tested])) for metric in METRICS}
            for score in (tested[0] if tested else ())
        },
    }


def show(results: Sequence[Mapping[str, Any]], total: Mapping[str, Any], console: Console) -> None:
    """The tables."""
    table = Table("user", "answer", "gain, points", "true gain of it", "regret", title="Simulated users")
    for result in results:
        user = result["user"]
        table.add_row(
            f"{user['benchmark']}, {user['rows']}, {user['kind']}", f"{result['verdict']}: {result['best']}",
            f"{100 * result['gain']:+.1f}", f"{100 * true_gain(result, result['best']):+.1f}",
            f"{regret(result['accuracy'], result['recommended']):.1f}",
        )  # fmt: skip
    console.print(table)
    console.print_json(json.dumps(total))


def compact(content: Mapping[str, Any]) -> str:
    """JSON with a line for each user."""
    rest = {name: value for name, value in content.items() if name != "results"}
    users_ = ",\n".join(json.dumps(result) for result in content["results"])
    return f'{json.dumps(rest, indent=1)[:-2]},\n "results": [\n{users_}\n]}}'


def main() -> None:
    """Runs the users that are not finished, and shows what all say together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--home", type=Path, default=Path(".harness-weigh"), help="for trials and finished users")
    parser.add_argument("--budget", default="10m", help="of one answer")
    parser.add_argument("--layers", type=int, default=2, help="transformer layers that are kept; 0 for all")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no further user after this time")
    parser.add_argument("--json", type=Path, help="write every number to this file; users in it are not run again")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    started = time.monotonic()
    results = []
    known = (
        json.loads(arguments.json.read_text(encoding="utf-8")) if arguments.json and arguments.json.is_file() else {}
    )
    if known and (known["layers"], known["budget"]) != (arguments.layers, arguments.budget):
        parser.error(f"{arguments.json} is of {known['layers']} layers and a budget of {known['budget']}")
    finished = {
        User(**result["user"]): result for result in known.get("results", ()) if result.get("version") == VERSION
    }
    for user in users(arguments.users):
        if user in finished:
            results.append(finished[user])
            continue
        file = arguments.home.resolve() / "users" / user.name / f"result-{VERSION}.json"
        if not file.is_file():
            if time.monotonic() - started > 60 * arguments.minutes:
                continue
            console.rule(user.name)
            study = Study(user, arguments.home.resolve(), arguments.budget, arguments.layers or None, console)
            write_atomically(file, json.dumps(study.run(), indent=1).encode())
        results.append(json.loads(file.read_text(encoding="utf-8")))
    if not results:
        return console.print("no user is finished")
    total = summary(results)
    show(results, total, console)
    if arguments.json:
        content = {"layers": arguments.layers, "budget": arguments.budget, **total, "results": results}
        write_atomically(arguments.json, (compact(content) + "\n").encode())


if __name__ == "__main__":
    main()
