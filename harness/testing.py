"""A tiny encoder and a tiny benchmark, so that whole experiments run in seconds: for measurements and for the tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

_WORDS = {
    "negative": "awful bad broken delayed hate late lost never rude terrible worst waste",
    "neutral": "flight gate monday new number phone report says ticket today update version",
    "positive": "amazing best brilliant enjoy friendly good great love nice perfect thanks wonderful",
    "": "the a my your it is was on at with and so very this that for from to",
}
WORDS = {label: words.split() for label, words in _WORDS.items() if label}
FILLERS = _WORDS[""].split()


def make_encoder(folder: Path) -> Path:
    """A BERT of two layers and 32 dimensions with random weights and no dropout, as files."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = sorted({w for group in WORDS.values() for w in group} | set(FILLERS) | set("abcdefghijklmnopqrstuvwxyz"))
    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    fast.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, initializer_range=0.2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    return folder


def make_rows(rng: np.random.Generator, per_class: int, noise: float) -> list[tuple[str, str]]:
    """Distinct little sentences; a share of the labels is wrong."""
    rows = []
    for label, words in WORDS.items():
        for _ in range(per_class):
            parts = [*rng.choice(FILLERS, rng.integers(3, 12)), *rng.choice(words, 2)]
            row_label = label if rng.random() >= noise else str(rng.choice(list(WORDS)))
            rows.append((" ".join(rng.permutation(parts)), row_label))
    return [rows[i] for i in rng.permutation(len(rows))]


def make_benchmark(folder: Path, sizes: Mapping[str, tuple[int, float]] | None = None) -> Path:
    """The YAML file of a benchmark with three classes in CSV files.

    Args:
        folder: where the files go.
        sizes: split -> rows of each class, and the share of wrong labels.
    """
    sizes = sizes or {"real_small": (10, 0.0), "generated": (16, 0.3), "validation": (8, 0.0), "test": (12, 0.0)}
    rng = np.random.Generator(np.random.PCG64(5))
    for split, (per_class, noise) in sizes.items():
        lines = [f'"{text}",{label}' for text, label in make_rows(rng, per_class, noise)]
        (folder / f"{split}.csv").write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
    entries = "\n".join(f"  {split}: {{file: {split}.csv}}" for split in sizes)
    (folder / "tiny.yaml").write_text(
        f"name: tiny\nlabels: [negative, neutral, positive]\nsplits:\n{entries}\n", encoding="utf-8"
    )
    return folder / "tiny.yaml"
