"""Small trials: jobs and stores made from the tiny benchmark and the tiny encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.config.experiment import Training, load
from harness.data.split import IntArray, Split
from harness.data.split_files import save_split
from harness.data.tokens import Tokens, tokenize
from harness.planning import plan as planning
from harness.planning.plan import Plan
from harness.planning.trials import Job
from harness.store import Store
from harness.training.classifier import load_tokenizer, make_classifier
from harness.training.loop import Inputs, Loop
from harness.training.process_group import ProcessGroup
from harness.training.timing import PhaseTimer

HERE = ProcessGroup(torch.device("cpu"))
CLASSES = 3


def make_plan(file: Path) -> Plan:
    return planning.make(load(file), None)


def fill(plan: Plan, folder: Path) -> Store:
    """A store with the plan's splits and nothing else."""
    store = Store(str(folder))
    for splits in plan.splits.values():
        for split in splits.values():
            save_split(split, store)
    return store


def find(plan: Plan, source: str, label: str, seed: int = 0) -> Job:
    """The job of the grid's cell."""
    jobs = [job for job in plan.jobs if (job.trial.source, job.label, job.trial.seed) == (source, label, seed)]
    assert len(jobs) == 1, [job.label for job in plan.jobs]
    return jobs[0]


def log_scores(rows: int, seed: int) -> np.ndarray:
    """Log-probabilities float32 [n, C] drawn from a Dirichlet distribution."""
    rng = np.random.Generator(np.random.PCG64(seed))
    return np.log(rng.dirichlet(np.full(CLASSES, 2.0), rows)).astype(np.float32)


def tokens_of(split: Split, encoder: Path, store: Store) -> Tokens:
    return tokenize(split, lambda: load_tokenizer(str(encoder)), "tiny", 32, store)


def make_loop(
    method: Any,
    split: Split,
    tokens: Tokens,
    encoder: Path,
    training: Training,
    group: ProcessGroup = HERE,
    **more: Any,
) -> Loop:
    """A loop on the rows of ``split`` with made-up checker scores, evaluated on them too."""
    torch.set_num_threads(1)
    model = make_classifier(str(encoder), CLASSES, 0, training)
    scores: dict[str, IntArray] = {"quality": log_scores(len(split), 1), "diversity": log_scores(len(split), 2)}
    inputs = Inputs(split, tokens, scores["quality"], scores["diversity"], {"test": (split, tokens)}, **more)
    return Loop(model, method, inputs, training, 0, group, PhaseTimer(group.device))
