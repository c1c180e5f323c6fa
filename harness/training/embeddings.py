"""Frozen embeddings of texts: the mean of the encoder's last hidden states, before any training."""

from __future__ import annotations

import numpy as np
import torch

from harness.config.experiment import Training
from harness.data.batches import evaluation_batches
from harness.data.split import Split
from harness.data.tokens import Tokens
from harness.planning.trials import Trial
from harness.store import Store, digest
from harness.training.classifier import load_encoder
from harness.training.evaluation import FloatArray


def embed(trial: Trial, split: Split, tokens: Tokens, store: Store, device: torch.device) -> FloatArray:
    """The embeddings of a split by a trial's encoder, read from the store, or computed and stored: float32 [n, D].

    Args:
        trial: whose encoder, layers, attention, threads and device are used; with the texts, they are the key.
        split: the n rows.
        tokens: their tokens.
        store: where embeddings are stored.
        device: of the trial.
    """
    training = trial.training
    settings = [training.layers, training.attention, training.max_length, training.evaluation_batch_size]
    key = digest("embeddings", split.digest, trial.encoder_identity, *settings, trial.threads, trial.device)
    blob = store.get("embeddings", key, replaceable=True)
    if blob is None:
        blob = {"embeddings": compute(trial.encoder, training, tokens, device)}
        store.put("embeddings", key, **blob)
    return blob["embeddings"]


@torch.no_grad()
def compute(encoder: str, training: Training, tokens: Tokens, device: torch.device) -> FloatArray:
    """The mean over the tokens of each row of the last hidden states, in float32 [n, D]."""
    model = load_encoder(encoder, training.attention, training.layers).to(device).eval()
    out: FloatArray = np.zeros((len(tokens.lengths), int(model.config.hidden_size)), dtype=np.float32)  # type: ignore[union-attr, arg-type]
    for rows in evaluation_batches(tokens.lengths, training.evaluation_batch_size):
        batch = {name: torch.from_numpy(values).to(device) for name, values in tokens.padded(rows).items()}
        hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None].to(hidden.dtype)
        out[rows] = ((hidden * mask).sum(dim=1) / mask.sum(dim=1)).cpu().numpy()
    return out
