"""What the forms of the look ahead say of the same rows: SGD or Adam, linear or exact, few real rows or all.

A classifier is trained with CE on a noisy source, some of whose labels were flipped, for some epochs. Then, without
taking a step, every form is asked for the derivative of each row's weight, batch by batch (all weights one, the same
dropout masks for every form). Printed: how well the derivatives tell corrupted rows from clean ones (area under the ROC
curve within a batch, mean over batches), and how near each form is to the published one (exact, through Adam): rank
correlation, and relative difference |a - b| / |b| (Euclidean), both within a batch and after taking the batch's mean
off: what all of its rows have in common tells none from another.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from harness.config.experiment import load
from harness.data.batches import epoch_batches
from harness.errors import UserError
from harness.methods import make_method
from harness.methods.protocols import Form, Rule
from harness.planning import plan as planning
from harness.store import Store
from harness.training import run_trial
from harness.training.activations import model_inputs
from harness.training.classifier import forward, make_classifier
from harness.training.loop import Inputs, Loop, Report
from harness.training.meta_gradients.lookahead import BatchLookahead, Lookahead
from harness.training.process_group import ProcessGroup
from harness.training.timing import PhaseTimer

FORMS: dict[str, tuple[Rule, Form, int | None]] = {
    "sgd, 32 real rows": ("sgd", "linear", 32),
    "sgd, all real rows": ("sgd", "linear", None),
    "adam linear, 32 real rows": ("adam", "linear", 32),
    "adam linear, all real rows": ("adam", "linear", None),
    "adam exact, all real rows": ("adam", "exact", None),
}
PUBLISHED = "adam exact, all real rows"


class EnoughError(Exception):
    """The training has come as far as it should."""


def stop_after(epochs: int) -> Report:
    """Ends a training after an epoch."""

    def report(entry: dict[str, float]) -> None:
        if entry["epoch"] == epochs:
            raise EnoughError

    return report


def slopes(
    loop: Loop, ahead: Lookahead, batches: list[np.ndarray], forms: list[str]
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Rows of a batch, and what every form says of them."""
    source, device = loop.inputs.source, loop.group.device
    for rows in batches:
        batch = model_inputs(loop.plain, loop.inputs.tokens, rows, device)
        index = torch.from_numpy(rows).to(device)
        labels = loop.labels[index]
        loop.plain.train()
        products = ahead.example_products(batch, labels)
        with products.recording():
            losses = F.cross_entropy(forward(loop.plain, batch, "float32"), labels, reduction="none")
        bound = BatchLookahead(ahead, products, index, losses, len(rows), len(source), True)
        ones = torch.ones(len(rows), device=device)
        answers = {}
        for name in forms:
            rule, form, real = FORMS[name]
            answers[name] = bound.sensitivity(ones, rule, real, form).cpu().numpy().astype(np.float64)
        yield rows, answers


def main() -> None:
    """Trains, compares the forms, prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python experiments/measurements/lookahead_forms.py experiments/flipped_labels.yaml",
    )  # fmt: skip
    parser.add_argument(
        "experiment", type=Path, help="an experiment with CE on the source `noisy`, the first one is used"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 3], help="when to look (default after 1 and 3)")
    parser.add_argument("--batches", type=int, default=6, help="batches to look at (default 6)")
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=list(FORMS), metavar="FORM")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    args = parser.parse_args()
    try:
        plan = planning.make(load(args.experiment, tuple(args.set)), None)
    except UserError as error:
        parser.error(str(error))
    job = next((job for job in plan.jobs if job.trial.source == "noisy" and job.trial.method.name == "ce"), None)
    if job is None:
        sources = ", ".join(dict.fromkeys(job.trial.source for job in plan.jobs))
        parser.error(f"{args.experiment} has no CE on the source noisy: expected it in its grid, found {sources}")
    trial, splits = job.trial, plan.splits[job.trial.task.name]
    real = splits["real_small"]
    store, group = Store("memory://forms"), ProcessGroup.here("cpu")
    torch.set_num_threads(trial.threads)
    source = run_trial.training_rows(trial, splits)
    clean = np.array([not kind for kind in source.corruptions or ()])
    out, facts = Console(highlight=False), {}
    for epochs in args.epochs:
        model = make_classifier(trial.encoder, len(trial.task.labels), trial.seed, trial.training)
        inputs = Inputs(source, run_trial.tokens_of(trial, source, store), None, None, {})
        # the learning rate falls to zero at the end of a training: look in the middle of one of twice the length
        training = trial.training.model_copy(update={"epochs": 2 * epochs})
        loop = Loop(
            model,
            make_method(trial.method),
            inputs,
            training,
            trial.seed,
            group,
            PhaseTimer(group.device),
        )
        with suppress(EnoughError):
            loop.run(stop_after(epochs))
        ahead = Lookahead(
            model, loop.optimizer, (real, run_trial.tokens_of(trial, real, store)), training, trial.seed, group,
            PhaseTimer(group.device),
        )  # fmt: skip
        batches = epoch_batches(inputs.tokens.lengths, training.batch_size, trial.seed, epochs)[: args.batches]
        batch_answers = list(
            track(slopes(loop, ahead, batches, args.forms), f"after epoch {epochs}", total=len(batches))
        )
        table = Table("form", "AUROC", "rank correlation", "relative difference", title=f"after {epochs} epochs of CE")
        for name in args.forms:
            area = np.mean([roc_auc_score(clean[rows], -answers[name]) for rows, answers in batch_answers])
            row = {"auroc": float(area)}
            if PUBLISHED in args.forms:
                pairs = [[v - v.mean() for v in (answers[name], answers[PUBLISHED])] for _, answers in batch_answers]
                row["rank_correlation"] = float(np.mean([spearmanr(a, b).statistic for a, b in pairs]))
                row["relative_difference"] = float(
                    np.median([np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs])
                )
            facts[f"{name}, after {epochs} epochs"] = row
            table.add_row(name, *(f"{value:.3f}" for value in row.values()))
        out.print(table)
    if args.json:
        args.json.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
