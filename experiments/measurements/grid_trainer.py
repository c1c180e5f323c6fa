"""One fine-tune as a plain script: transformers' Trainer with dynamic padding and its stock settings.

The baseline of ``grid.py``: nothing of harness is imported. The script reads SPLIT.json files (rows with ``text`` and
``label``), trains on one of them with the weights of a method, evaluates on validation and test rows after every
epoch, and writes the results as JSON. A method that needs a quality checker (trained on real_small) or a diversity
checker (trained on the rows that it weighs) gets its log-probabilities from the files ``--quality`` and
``--diversity``; without them the script trains the checker itself, without evaluating it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

NEEDS_QUALITY = ("imp", "imp_quality", "dimp", "filter")
NEEDS_DIVERSITY = ("imp",)
NEEDS_REAL_LABELS = ("prior",)
METHODS = ("ce", "focal", "prior", *NEEDS_QUALITY)
FOCAL_GAMMA = 2.0
FloatArray = npt.NDArray[np.float32]


class WeightedTrainer(Trainer):
    """Trainer with a weight for every row: the column ``weight``, and for two methods the model's own probability."""

    method = "ce"

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, *_: Any, **__: Any
    ) -> Any:
        """The mean of weight times cross-entropy; plain cross-entropy for rows without weights."""
        labels, weights = inputs.pop("labels"), inputs.pop("weight", None)
        outputs = model(**inputs)
        losses = F.cross_entropy(outputs.logits, labels, reduction="none")
        if weights is not None:
            probability = (-losses.detach()).exp()
            if self.method == "focal":
                weights = (1.0 - probability) ** FOCAL_GAMMA
            elif self.method == "dimp":
                weights = weights / probability
            losses = weights * losses
        return (losses.mean(), outputs) if return_outputs else losses.mean()


class Script:
    """The fine-tunes of one process: the checkers that it needs, then the model itself.

    Args:
        args: the settings; see ``parse``.
        callbacks: more callbacks for the last training.
        prepare: called with the Trainer of the last training; it is trained through what it returns.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        callbacks: Sequence[TrainerCallback] = (),
        prepare: Callable[[Trainer], Trainer] = lambda trainer: trainer,
    ) -> None:
        self.args, self.callbacks, self.prepare = args, list(callbacks), prepare
        self.tokenizer = AutoTokenizer.from_pretrained(args.encoder)

    def run(self) -> dict[str, Any]:
        """Trains, evaluates and writes the results; returns them."""
        rows = self.rows(self.args.source)
        weights = self.weights(rows)
        if weights is not None:
            rows = rows.add_column("weight", weights.tolist())
        evaluation = {name: self.rows(name) for name in ("validation", "test")}
        trainer = self.train(rows, self.args.source, self.args.method, evaluation)
        if self.args.write_scores:
            log_probs = self.log_probs(trainer, self.rows("generated"))
            self.args.write_scores.write_text(json.dumps(log_probs.tolist()), encoding="utf-8")
        history = [entry for entry in trainer.state.log_history if "eval_test_accuracy" in entry]
        results = {
            "test_accuracy": history[-1]["eval_test_accuracy"], "evaluations": len(history),
            "steps": trainer.state.global_step, "threads": torch.get_num_threads(), "history": history,
        }  # fmt: skip
        self.args.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        return results

    def rows(self, split: str) -> Dataset:
        """The rows of a split, tokenized."""
        raw = json.loads((self.args.data / f"{split}.json").read_text(encoding="utf-8"))
        dataset = Dataset.from_list(raw).rename_column("label", "labels")
        return dataset.map(
            lambda batch: self.tokenizer(batch["text"], truncation=True, max_length=self.args.max_length),
            batched=True,
            remove_columns=["text"],
        )

    def weights(self, rows: Dataset) -> FloatArray | None:
        """The part of the weights that is known before training [n]; None for plain cross-entropy."""
        method, labels = self.args.method, np.array(rows["labels"])
        if method == "ce":
            return None
        if method in NEEDS_REAL_LABELS:
            real = np.array(self.rows("real_small")["labels"])
            classes = range(self.args.classes)
            ratios = [(real == c).mean() / max((labels == c).mean(), 1 / len(labels)) for c in classes]
            weights: FloatArray = np.array(ratios, dtype=np.float32)[labels]
            return weights
        weights = np.ones(len(labels), dtype=np.float32)
        if method in NEEDS_QUALITY:
            quality = self.checker(self.args.quality, "real_small", rows)
            if method == "filter":
                weights[quality.argmax(-1) != labels] = 0.0
                return weights
            weights *= np.exp(quality[np.arange(len(labels)), labels])
        if method in NEEDS_DIVERSITY:
            diversity = self.checker(self.args.diversity, self.args.source, rows)
            weights /= np.exp(diversity[np.arange(len(labels)), labels])
        return weights

    def checker(self, file: Path | None, split: str, rows: Dataset) -> FloatArray:
        """Log-probabilities [n, classes] from a file, or of a model that is trained for it on a split."""
        if file is not None:
            return np.array(json.loads(file.read_text(encoding="utf-8")), dtype=np.float32)
        return self.log_probs(self.train(self.rows(split), split, "ce", None), rows)

    def log_probs(self, trainer: Trainer, rows: Dataset) -> FloatArray:
        """The log-probabilities of a trained model [n, classes]."""
        logits = torch.from_numpy(trainer.predict(rows).predictions)
        log_probs: FloatArray = logits.log_softmax(-1).numpy()
        return log_probs

    def train(self, rows: Dataset, split: str, method: str, evaluation: dict[str, Dataset] | None) -> Trainer:
        """A fine-tune of the encoder; without ``evaluation`` it is a checker."""
        args = self.args
        set_seed(args.seed)
        model = AutoModelForSequenceClassification.from_pretrained(args.encoder, num_labels=args.classes)
        steps = args.real_steps if split == "real_small" else -1
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder, seed=args.seed, num_train_epochs=args.epochs, max_steps=steps,
                per_device_train_batch_size=args.batch_size, per_device_eval_batch_size=args.evaluation_batch_size,
                learning_rate=args.learning_rate, warmup_steps=args.warmup, weight_decay=args.weight_decay,
                # a length in steps is evaluated as often as one in epochs
                eval_strategy="no" if evaluation is None else "epoch" if steps < 0 else "steps",
                eval_steps=max(1, steps // args.epochs), save_strategy="no", logging_strategy="no", report_to=[],
                remove_unused_columns=False, disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False,
            )  # fmt: skip
            weighted = WeightedTrainer(
                model, arguments, train_dataset=rows, eval_dataset=evaluation, compute_metrics=accuracy,
                data_collator=DataCollatorWithPadding(self.tokenizer),
            )  # fmt: skip
            weighted.method = method
            trainer: Trainer = weighted
            if evaluation is not None:
                for callback in self.callbacks:
                    trainer.add_callback(callback)
                trainer = self.prepare(trainer)
            trainer.train()
        return trainer


def accuracy(prediction: Any) -> dict[str, float]:
    """The share of rows whose label has the largest logit."""
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The settings on a command line; None for that of this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="has a file SPLIT.json per split")
    parser.add_argument("--encoder", required=True, help="a folder or a hub name")
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument("--source", required=True, help="the split to train on")
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--real-steps", type=int, required=True, help="steps of a training on real_small")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--evaluation-batch-size", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--warmup", type=float, required=True, help="as a share of the steps")
    parser.add_argument("--weight-decay", type=float, required=True)
    parser.add_argument("--max-length", type=int, required=True, help="most tokens of a row")
    parser.add_argument("--quality", type=Path, metavar="FILE", help="read a quality checker's log-probabilities")
    parser.add_argument("--diversity", type=Path, metavar="FILE", help="read a diversity checker's log-probabilities")
    parser.add_argument("--write-scores", type=Path, metavar="FILE", help="score the generated rows as a checker")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="for the results")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    Script(parse()).run()
