"""How fast this machine trains: a few real steps, for an estimate before the first trial."""

from __future__ import annotations

import torch

from harness.data.tokens import tokenise
from harness.data.types import Split
from harness.methods.ce import CrossEntropy
from harness.store import Store
from harness.training.classifier import load_classifier, load_tokenizer
from harness.training.loop import Inputs, Loop
from harness.training.phases import Phases
from harness.training.workers import Workers
from harness.trials import Trial


def rows_per_second(trial: Trial, source: Split, store: Store, steps: int = 3) -> float | None:
    """Rows that one worker trains on per second, from a few steps after a warm-up; None without the trial's device."""
    if trial.device == "cuda" and not torch.cuda.is_available():
        return None
    before = torch.get_num_threads()
    torch.set_num_threads(trial.threads)
    try:
        rows = source.take(range(min(len(source), steps * trial.training.batch_size)))
        limit = trial.training.max_length
        tokens = tokenise(rows, lambda: load_tokenizer(trial.encoder), trial.encoder_identity, limit, store)
        workers = Workers.here(trial.device)
        model = load_classifier(trial.encoder, len(trial.task.labels), trial.seed, trial.training.attention)
        training = trial.training.model_copy(update={"steps": steps, "epochs": 1})
        phases = Phases(workers.device)
        loop = Loop(
            model.to(workers.device), CrossEntropy(), Inputs(rows, tokens, None, None, {}), training, 0, workers, phases
        )
        outcome = loop.run(lambda entry: None)
        return outcome.rows_trained / phases.seconds["train"]
    finally:
        torch.set_num_threads(before)
