"""What each change to the training step gave, and where its time goes before and after.

One pass over generated rows of tweet_sentiment with CE (MiniLM, batch 32, float32), with the changes one on top of the
other:

* stock: transformers' model as it is, batches of similar length, padded to their longest row.
* vocabulary: only the embeddings of tokens that occur (harness.training.vocabulary).
* activations: no padding, and in the last layer only the first token (harness.training.activations).
* dropout: masks from random integers (harness.training.dropout). This is what trials do.

The ways take turns; seconds are medians. Then one pass of the first and of the last way runs under PyTorch's profiler,
which adds up the time of every kind of operation.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile
from training_step import Bench, quiet_transformers

from harness.config.experiment import MethodChoice
from harness.methods import SourceInfo, make_method
from harness.phases import Phase
from harness.training.activations import skip_unused
from harness.training.dropout import replace_dropout
from harness.training.loop import Inputs, Loop
from harness.training.timing import PhaseTimer
from harness.training.vocabulary import TrimmedVocabulary

WAYS = ("stock", "vocabulary", "activations", "dropout")
#: Kind of operation -> its operations in PyTorch's profiler, without the endings of their other forms (_, _backward).
KINDS = {
    "matrix products": ("mm", "addmm"),
    "attention": ("bmm", "_softmax", "_scaled_dot_product", "index_copy", "index_select", "index_add"),
    "dropout masks": ("bernoulli", "random", "native_dropout", "ge"),
    "GELU": ("gelu",),
    "layer norm": ("native_layer_norm",),
    "optimizer and clipping": ("_fused_adamw", "linalg_vector_norm"),
}


def make_loop(bench: Bench, way: str) -> Loop:
    """The training loop of a way, which has not started."""
    level = WAYS.index(way)
    model, tokens = bench.model(), bench.tokens
    if level >= 1:
        tokens = TrimmedVocabulary(model, [tokens]).renumber(tokens)
    if level >= 2:
        skip_unused(model)
    if level >= 3:
        replace_dropout(model)
    method = make_method(MethodChoice(name="ce"))
    method.prepare(SourceInfo(bench.source.labels, bench.classes, None))
    inputs = Inputs(bench.source, tokens, None, None, {})
    return Loop(model, method, inputs, bench.training, 0, bench.group, PhaseTimer(bench.group.device))


def seconds_of(loop: Loop) -> float:
    """Seconds of a pass, without its warm-up."""
    loop.run(lambda entry: None)
    return loop.timer.seconds[Phase.TRAIN]


def seconds_by_kind(loop: Loop) -> dict[str, float]:
    """Seconds of a pass and its warm-up by kind of operation."""
    with profile(activities=[ProfilerActivity.CPU]) as record:
        loop.run(lambda entry: None)
    totals: Counter[str] = Counter()
    for event in record.key_averages():
        name = event.key.removeprefix("aten::")
        kind = next((kind for kind, names in KINDS.items() if any(_is_form_of(name, one) for one in names)), "other")
        totals[kind] += event.self_cpu_time_total / 1e6
    return {kind: totals[kind] for kind in (*KINDS, "other")}


def _is_form_of(name: str, operation: str) -> bool:
    return name == operation or name.startswith(f"{operation}_")


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python experiments/measurements/step_profile.py --json step_profile.json",
    )  # fmt: skip
    parser.add_argument("--rows", type=int, default=320, help="generated rows (default 320: ten steps)")
    parser.add_argument("--repetitions", type=int, default=5, help="passes of each way (default 5)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default 1, as a trial has)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    out = Console(highlight=False)
    with quiet_transformers():
        bench = Bench("tweet_sentiment", args.rows, 32)
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(args.repetitions):
            for way in WAYS:
                times[way].append(seconds_of(make_loop(bench, way)))
        kinds = {way: seconds_by_kind(make_loop(bench, way)) for way in (WAYS[0], WAYS[-1])}
    medians = {way: median(values) for way, values in times.items()}
    facts: dict[str, Any] = {"rows": args.rows, "threads": args.threads, "torch": torch.__version__, "seconds": times}
    table = Table("way", "seconds a pass", "lowest .. highest", "× stock", title=f"{args.rows} rows, CE")
    for way, seconds in medians.items():
        facts[f"{way}_over_stock_ratio"] = seconds / medians[WAYS[0]]
        span = f"{min(times[way]):.2f} .. {max(times[way]):.2f}"
        table.add_row(way, f"{seconds:.2f}", span, f"{seconds / medians[WAYS[0]]:.3f}")
    out.print(table)
    facts["profile_seconds"] = kinds
    shares = Table("operations", *(f"{way}, seconds" for way in kinds), title="a pass and its warm-up, profiled")
    for kind in (*KINDS, "other"):
        cells = (f"{one[kind]:.2f} ({one[kind] / sum(one.values()):.0%})" for one in kinds.values())
        shares.add_row(kind, *cells)
    out.print(shares)
    if args.json:
        args.json.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
