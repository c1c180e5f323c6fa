"""The classifier: a pretrained encoder with a fresh head, and its optimizer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from harness.config.experiment import Training
from harness.encoders import locate, why_no_mean
from harness.errors import TrialError
from harness.seeds import derive
from harness.training.activations import skip_unused
from harness.training.dropout import replace_dropout
from harness.training.mean_pooling import start_as_mean

NO_DECAY = ("bias", "LayerNorm.weight", "layer_norm.weight")


def _split_revision(encoder: str) -> tuple[str, dict[str, Any]]:
    folder = locate(encoder)
    if folder == encoder and "@" in encoder:
        name, revision = encoder.split("@", 1)
        return name, {"revision": revision}
    return folder, {}


def _config(encoder: str) -> Any:
    path, revision = _split_revision(encoder)
    return AutoConfig.from_pretrained(path, **revision)


def load_tokenizer(encoder: str) -> Any:
    """The encoder's fast tokenizer."""
    path, revision = _split_revision(encoder)
    return AutoTokenizer.from_pretrained(path, use_fast=True, **revision)


def load_classifier(
    encoder: str, classes: int, seed: int, attention: str, layers: int | None = None, pooling: str = "first"
) -> nn.Module:  # fmt: skip
    """The encoder with a new head for C classes, initialized from the seed's stream "initialisation"; float32.

    Seeds the global random generators; later parts of a trial seed them again from their own streams.

    Args:
        encoder: see ``harness.encoders.locate``.
        classes: number of classes C.
        seed: the trial's seed.
        attention: ``sdpa`` or ``eager``.
        layers: how many transformer layers are kept, counted from the input; None for all.
        pooling: ``first``; or ``mean``, which adds a layer: see ``harness.training.mean_pooling``.

    Raises:
        TrialError: the encoder does not support this attention or pooling, or has fewer layers.
    """
    torch.manual_seed(derive(seed, "initialisation"))
    kind: Any = AutoModelForSequenceClassification
    if pooling == "first":
        return _load(kind, encoder, attention, layers, num_labels=classes)
    config = _config(encoder)
    if problem := why_no_mean(encoder, config.model_type):
        raise TrialError(problem)
    more = {"num_hidden_layers": (layers or config.num_hidden_layers) + 1}
    model = _load(kind, encoder, attention, layers, num_labels=classes, **more)
    start_as_mean(model)
    return model


def load_encoder(encoder: str, attention: str, layers: int | None = None) -> nn.Module:
    """The pretrained encoder without a head, float32; see ``load_classifier``. Leaves random generators as they are.

    Raises:
        TrialError: the encoder does not support this attention, or has fewer layers.
    """
    with torch.random.fork_rng([]):  # weights that a checkpoint lacks are drawn
        return _load(AutoModel, encoder, attention, layers)


def _load(kind: Any, encoder: str, attention: str, layers: int | None, **options: Any) -> nn.Module:
    path, revision = _split_revision(encoder)
    options |= revision
    if layers is not None:
        known = getattr(_config(encoder), "num_hidden_layers", 0)
        if layers > known:
            raise TrialError(f"the encoder {encoder!r} has {known} layers: expected at most as many, found {layers}")
        options.setdefault("num_hidden_layers", layers)  # the weights of the other layers are not loaded
    try:
        with quiet():
            model: nn.Module = kind.from_pretrained(path, attn_implementation=attention, dtype=torch.float32, **options)
    except ValueError as error:
        if "attn_implementation" not in str(error):
            raise
        raise TrialError(
            f"the encoder {encoder!r} has no attention of the kind {attention!r}: expected training.attention eager"
        ) from error
    return model


def make_classifier(encoder: str, classes: int, seed: int, training: Training) -> nn.Module:
    """The classifier that trials train: as loaded, but faster.

    Raises:
        TrialError: the encoder does not support this attention or pooling, or has fewer layers than
            ``training.layers``.
    """
    model = load_classifier(encoder, classes, seed, training.attention, training.layers, training.pooling)
    if training.activations == "used":
        skip_unused(model)
    replace_dropout(model)
    return model


def forward(model: nn.Module, batch: dict[str, Tensor], precision: str) -> Tensor:
    """Logits in float32 [B, C]; the encoder runs under autocast for ``bfloat16``."""
    device = batch["input_ids"].device.type
    with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
        logits: Tensor = model(**batch).logits
    return logits.float()


def make_optimizer(
    model: nn.Module, training: Training, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """Fused AdamW without decay on biases and layer norms, and a linear schedule with warm-up."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for name, p in trained if not name.endswith(NO_DECAY)]
    plain = [p for name, p in trained if name.endswith(NO_DECAY)]
    groups = [{"params": decayed, "weight_decay": training.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=training.learning_rate, fused=True)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, linear_schedule(steps, training.warmup))


def linear_schedule(steps: int, warmup: float) -> Callable[[int], float]:
    """Factor of the learning rate at step t: up from 0 over ``warmup * steps`` steps, then down to 0 at ``steps``."""
    rising = round(warmup * steps)

    def factor(step: int) -> float:
        if step < rising:
            return step / max(1, rising)
        return max(0.0, (steps - step) / max(1, steps - rising))

    return factor


@contextlib.contextmanager
def quiet() -> Any:
    """Hides the progress bar and the report of missing head weights: a new head is expected."""
    level, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bar:
            transformers_logging.enable_progress_bar()
