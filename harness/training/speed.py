"""Training speed of this machine, measured with a few real steps: for estimates before the first trial."""

from __future__ import annotations

import torch

from harness.data.split import Split
from harness.data.tokens import tokenize
from harness.methods.ce import CrossEntropy
from harness.phases import Phase
from harness.planning.trials import Trial
from harness.store import Store
from harness.training.classifier import load_tokenizer, make_classifier
from harness.training.loop import Inputs, Loop
from harness.training.process_group import ProcessGroup
from harness.training.timing import PhaseTimer

#: How much faster bfloat16 must be than float32 to be worth it; accuracies are alike (results/precision).
MUCH_FASTER = 1.25


def in_precision(trial: Trial, precision: str) -> Trial:
    """The same trial in another precision."""
    stages = tuple(
        stage.model_copy(update={"training": stage.training.model_copy(update={"precision": precision})})
        for stage in trial.stages
    )
    return trial.model_copy(update={"stages": stages})


def rows_per_second(trial: Trial, source: Split, store: Store, steps: int = 3) -> float | None:
    """Rows per second of one process, over a few steps after a warm-up; None without the trial's device."""
    if trial.device == "cuda" and not torch.cuda.is_available():
        return None
    before = torch.get_num_threads()
    torch.set_num_threads(trial.threads)
    try:
        rows = source.take(range(min(len(source), steps * trial.training.batch_size)))
        limit = trial.training.max_length
        tokens = tokenize(rows, lambda: load_tokenizer(trial.encoder), trial.encoder_identity, limit, store)
        group = ProcessGroup.here(trial.device)
        model = make_classifier(trial.encoder, len(trial.task.labels), trial.seed, trial.training)
        training = trial.training.model_copy(update={"steps": steps, "epochs": 1})
        timer = PhaseTimer(group.device)
        loop = Loop(
            model.to(group.device), CrossEntropy(), Inputs(rows, tokens, None, None, {}), training, 0, group, timer
        )
        outcome = loop.run(lambda entry: None)
        return outcome.rows_trained / timer.seconds[Phase.TRAIN]
    finally:
        torch.set_num_threads(before)
