from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertModel,
)

from harness.config.experiment import Training
from harness.errors import TrialError
from harness.training.classifier import (
    linear_schedule,
    load_classifier,
    load_encoder,
    make_classifier,
    make_optimizer,
)
from harness.training.mean_pooling import MEAN_SCALE


@pytest.mark.parametrize(
    ("steps", "warmup", "expected"),
    [
        (10, 0.2, [0, 0.5, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0]),
        (4, 0.0, [1, 0.75, 0.5, 0.25, 0]),
        (10, 0.04, [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0]),  # less than half a step is none
        (1, 0.1, [1, 0]),
        (2, 0.5, [0, 1, 0]),
        (3, 0.99, [0, 1 / 3, 2 / 3, 0, 0]),  # a rise over all steps ends at once
    ],
)
def test_linear_schedule(steps, warmup, expected):
    factor = linear_schedule(steps, warmup)
    np.testing.assert_allclose([factor(step) for step in range(len(expected))], expected)


def test_decay_spares_biases_and_layer_norms(tiny_encoder):
    model = load_classifier(str(tiny_encoder), 3, 0, "sdpa")
    optimizer, schedule = make_optimizer(model, Training(weight_decay=0.3, learning_rate=0.1, warmup=0.0), 4)
    decayed, plain = optimizer.param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    assert all(names[id(p)].endswith("bias") or "LayerNorm" in names[id(p)] for p in plain["params"])
    assert not any(names[id(p)].endswith("bias") or "LayerNorm" in names[id(p)] for p in decayed["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(names)
    optimizer.step()
    schedule.step()
    assert schedule.get_last_lr() == pytest.approx([0.075, 0.075])


def test_an_encoder_without_the_attention_asked_for_is_told(tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    DebertaV2Model(DebertaV2Config(vocab_size=50, **sizes)).save_pretrained(tmp_path)
    with pytest.raises(TrialError, match=r"has no attention of the kind 'sdpa': expected training.attention eager"):
        load_classifier(str(tmp_path), 3, 0, "sdpa")
    assert load_classifier(str(tmp_path), 3, 0, "eager").config.num_labels == 3


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_the_first_layers_of_an_encoder(kind, tiny_encoder, tmp_path):
    folder = str(tiny_encoder)
    if kind == "distilbert":
        folder = str(tmp_path)
        DistilBertModel(DistilBertConfig(vocab_size=50, dim=16, n_layers=2, n_heads=2, hidden_dim=16)).save_pretrained(
            folder
        )
    full, cut = (load_classifier(folder, 3, 0, "sdpa", layers) for layers in (None, 1))
    weights, kept = full.base_model.state_dict(), cut.base_model.state_dict()
    last = {name for name in weights if "layer.1." in name}
    assert last
    assert set(kept) == set(weights) - last
    assert all(torch.equal(kept[name], weights[name]) for name in kept)
    assert cut.config.num_hidden_layers == 1
    for name, weight in load_classifier(folder, 3, 0, "sdpa", 2).state_dict().items():
        assert torch.equal(weight, full.state_dict()[name])


def test_more_layers_than_the_encoder_has(tiny_encoder):
    with pytest.raises(TrialError, match=r"has 2 layers: expected at most as many, found 3"):
        make_classifier(str(tiny_encoder), 3, 0, Training(layers=3))


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra"])
def test_mean_pooling_starts_as_the_mean_over_the_tokens(kind, tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = AutoConfig.for_model(kind, vocab_size=50, pad_token_id=0, initializer_range=0.2, **sizes)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    ids = torch.tensor([[2, 7, 5, 9], [3, 8, 0, 0]])
    for layers in (None, 1):
        before = load_encoder(str(tmp_path), "sdpa", layers).eval()
        model = load_classifier(str(tmp_path), 3, 0, "sdpa", layers, "mean").eval()
        torch.nn.init.zeros_(model.base_model.encoder.layer[-1].attention.self.query.weight)  # quite even attention
        inputs = {"input_ids": ids, "attention_mask": (ids != 0).long()}
        hidden, pooled = (part(**inputs).last_hidden_state for part in (before, model.base_model))
        mean = torch.stack([hidden[0].mean(dim=0), hidden[1, :2].mean(dim=0)])
        expected = F.layer_norm(hidden[:, 0] + MEAN_SCALE * mean, (16,))
        torch.testing.assert_close(pooled[:, 0], expected, atol=1e-4, rtol=1e-4)


def test_mean_pooling_starts_with_nearly_even_attention(tiny_encoder):
    layer = load_classifier(str(tiny_encoder), 3, 0, "sdpa", pooling="mean").base_model.encoder.layer[-1]
    hidden = torch.randn(5, layer.intermediate.dense.in_features, generator=torch.Generator().manual_seed(0))
    attention = layer.attention.self
    weights = (attention.query(hidden) @ attention.key(hidden).T * attention.scaling).softmax(-1)
    assert ((weights - 0.2).abs() < 0.02).all()
    assert attention.query.weight.std() > 0, "so that it learns"


def test_a_model_with_mean_pooling_belongs_to_its_seed_and_is_one_of_transformers(tiny_encoder, tmp_path):
    first, again, other = (load_classifier(str(tiny_encoder), 3, seed, "sdpa", 1, "mean") for seed in (0, 0, 1))
    states = [model.state_dict() for model in (first, again, other)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not all(torch.equal(value, states[2][name]) for name, value in states[0].items())
    first.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert loaded.config.num_hidden_layers == 2
    assert all(torch.equal(value, states[0][name]) for name, value in loaded.state_dict().items())


def test_mean_pooling_needs_layers_like_those_of_bert(tmp_path):
    DistilBertModel(DistilBertConfig(vocab_size=50, dim=16, n_layers=2, n_heads=2, hidden_dim=16)).save_pretrained(
        tmp_path
    )
    with pytest.raises(TrialError, match=r"is of the kind 'distilbert'; expected one of bert, .*pooling first"):
        load_classifier(str(tmp_path), 3, 0, "sdpa", pooling="mean")


def test_initialisation_belongs_to_the_seed(tiny_encoder):
    def head(seed):
        torch.manual_seed(torch.randint(1000, ()).item())  # whatever the process did before
        return load_classifier(str(tiny_encoder), 3, seed, "sdpa").classifier.weight.detach()

    assert torch.equal(head(0), head(0))
    assert not torch.equal(head(0), head(1))


def test_the_encoder_is_the_one_on_disk_in_float32(tiny_encoder):
    from transformers import BertModel

    model, stored = load_classifier(str(tiny_encoder), 5, 3, "eager"), BertModel.from_pretrained(tiny_encoder)
    assert model.classifier.out_features == 5
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, stored.embeddings.word_embeddings.weight)
    assert model.config._attn_implementation == "eager"
