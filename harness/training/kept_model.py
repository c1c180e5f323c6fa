"""A trained model that is kept: its weights in the store, and a folder that transformers loads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from harness.errors import TrialError
from harness.planning.trials import Trial
from harness.store import Store
from harness.training.classifier import load_classifier, load_tokenizer, quiet

KIND = "models"


def check(trial: Trial) -> None:
    """Raises a TrialError if the trial trains only a part of its vocabulary: the model would lack the rest."""
    if trial.training.vocabulary != "full":
        raise TrialError("a model that is kept needs all of its vocabulary: set training.vocabulary to full")


def keep(trial: Trial, model: nn.Module, store: Store) -> None:
    """Stores the weights of a trained model."""
    store.put(KIND, trial.id, **{name: value.cpu().numpy() for name, value in model.state_dict().items()})


def is_kept(trial: Trial, store: Store) -> bool:
    """True if the store has the weights of the trial's model."""
    return store.has(KIND, trial.id)


def write(trial: Trial, labels: Sequence[str], store: Store, folder: Path, temperature: float = 1.0) -> None:
    """Writes a kept model as a folder for ``AutoModelForSequenceClassification.from_pretrained``.

    Args:
        trial: whose model.
        labels: names of the classes.
        store: where its weights are.
        folder: gets config.json, model.safetensors and the files of the tokenizer.
        temperature: by which the logits are divided, in the weights of the last layer.

    Raises:
        TrialError: the store does not have the weights.
    """
    arrays = store.get(KIND, trial.id)
    if arrays is None:
        raise TrialError(f"the store has no model of the trial {trial.id}")
    training = trial.training
    model = load_classifier(
        trial.encoder, len(labels), trial.seed, training.attention, training.layers, training.pooling
    )
    model.load_state_dict({name: torch.from_numpy(values) for name, values in arrays.items()})
    last = [layer for layer in model.modules() if isinstance(layer, nn.Linear) and layer.out_features == len(labels)][
        -1
    ]
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.div_(temperature)
    model.config.id2label = dict(enumerate(labels))  # type: ignore[union-attr]
    model.config.label2id = {label: index for index, label in enumerate(labels)}  # type: ignore[union-attr]
    with quiet():
        model.save_pretrained(folder)  # type: ignore[operator]
    tokenizer = load_tokenizer(trial.encoder)
    tokenizer.model_max_length = training.max_length
    tokenizer.save_pretrained(folder)
