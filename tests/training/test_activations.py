"""Skipping padding and unread outputs changes no logit and no gradient, for every kind of encoder that it supports."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers

from harness.data.tokens import Tokens
from harness.encoders import BERT_LIKE
from harness.training.activations import Rows, model_inputs, skip_unused
from harness.training.meta_gradients.forward_mode import inner_products, losses_at, parameters_of
from harness.training.meta_gradients.ghost_products import GhostProducts
from tests.training.test_forward_mode import make_direction
from tests.training.test_ghost_products import SIZES

CPU = torch.device("cpu")
LABELS = torch.tensor([0, 2, 1, 1])
CONFIGS = {
    "bert": "Bert",
    "electra": "Electra",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "camembert": "Camembert",
}


def make_model(kind, attention="sdpa", **settings):
    torch.manual_seed(3)
    # RoBERTa numbers positions from the id of padding, which is 1 in its checkpoints
    settings = {"pad_token_id": 0 if kind in ("bert", "electra") else 1, "type_vocab_size": 2} | settings
    config = getattr(transformers, f"{CONFIGS[kind]}Config")(**SIZES | settings)
    config._attn_implementation = attention
    return getattr(transformers, f"{CONFIGS[kind]}ForSequenceClassification")(config).double().train()


def make_tokens(lengths):
    total = sum(lengths)
    ids = np.random.default_rng(0).integers(2, 50, total).astype(np.int32)
    types = np.random.default_rng(1).integers(0, 2, total).astype(np.int8)
    return Tokens(ids, types, np.concatenate([[0], np.cumsum(lengths)]))


def pair(kind="bert", attention="sdpa", **settings):
    """The same model twice; the second one skips what it can."""
    full, skipping = (make_model(kind, attention, **settings) for _ in range(2))
    assert skip_unused(skipping)
    return full, skipping


def results(model, tokens):
    """The logits of four rows, and the gradient of their loss."""
    logits = model(**model_inputs(model, tokens, np.arange(len(LABELS)), CPU)).logits
    loss = F.cross_entropy(logits, LABELS)
    return logits, torch.autograd.grad(loss, list(parameters_with_gradients(model).values()), allow_unused=True)


def parameters_with_gradients(model):
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("lengths", [(9, 4, 7, 2), (5, 5, 5, 5), (1, 1, 1, 3)])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", BERT_LIKE)
def test_logits_and_gradients_are_those_of_the_whole_computation(kind, attention, lengths):
    full, skipping = pair(kind, attention)
    tokens = make_tokens(lengths)
    assert list(parameters_with_gradients(full)) == list(parameters_with_gradients(skipping))
    (logits, gradients), (others, other_gradients) = results(full, tokens), results(skipping, tokens)
    torch.testing.assert_close(others, logits, rtol=1e-12, atol=1e-12)
    for name, one, other in zip(parameters_with_gradients(full), gradients, other_gradients, strict=True):
        assert one is not None or name.startswith("none"), f"{name} has a gradient"
        torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-12, msg=name)


def test_a_checkpoint_fits_both():
    full, skipping = pair()
    assert skipping.load_state_dict(full.state_dict()).missing_keys == []


def test_only_tokens_are_computed_and_in_the_last_layer_only_first_ones():
    _, model = pair()
    shapes = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda _, inputs, out, name=name: shapes.update({name: tuple(out.shape[:2])}))
    results(model, make_tokens((9, 4, 7, 2)))
    layer = "bert.encoder.layer.{}.{}.dense"
    assert shapes[layer.format(0, "intermediate")] == (1, 22)
    assert shapes[layer.format(1, "intermediate")] == (4, 1)
    assert shapes["bert.encoder.layer.1.attention.self.key"] == (1, 22)


def test_dropout_is_applied_with_the_settings_of_the_model():
    """The mean of many passes with dropout is near the pass without, and single passes differ from it."""
    _, model = pair(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.3, initializer_range=0.1)
    tokens, rows = make_tokens((9, 4, 7, 2)), np.arange(4)
    inputs = model_inputs(model, tokens, rows, CPU)
    torch.manual_seed(0)
    with torch.no_grad():
        passes = torch.stack([model(**inputs).logits for _ in range(400)])
        exact = model.eval()(**inputs).logits
    assert passes.std(0).min() > 1e-3
    assert ((passes.mean(0) - exact).abs() < 6 * passes.std(0) / 20).all()


@pytest.mark.parametrize("settings", [{"hidden_dropout_prob": 0.3}, {"attention_probs_dropout_prob": 0.3}])
def test_both_kinds_of_dropout_act(settings):
    _, model = pair(**settings)
    inputs = model_inputs(model, make_tokens((9, 4, 7, 2)), np.arange(4), CPU)
    assert not torch.equal(model(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize("kind", ["DistilBert", "Albert"])
def test_other_encoders_are_left_as_they_are(kind):
    torch.manual_seed(0)
    sizes = {"DistilBert": {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32}, "Albert": SIZES}[kind]
    config = getattr(transformers, f"{kind}Config")(**sizes)
    model = getattr(transformers, f"{kind}ForSequenceClassification")(config)
    before = str(model)
    assert not skip_unused(model)
    assert str(model) == before
    assert model_inputs(model, make_tokens((3, 1)), np.arange(2), CPU)["input_ids"].shape == (2, 3)


def test_rows_are_put_into_a_rectangle_and_back():
    rows = Rows(np.array([2, 3, 1]), CPU)
    values = torch.arange(1.0, 7.0)[None, :, None]
    assert rows.pad(values)[..., 0].tolist() == [[1, 2, 0], [3, 4, 5], [6, 0, 0]]
    assert torch.equal(rows.unpad(rows.pad(values)), values)
    assert rows.first(values)[..., 0].tolist() == [[1], [3], [6]]
    assert rows.of_token.tolist() == [0, 0, 1, 1, 1, 2]


@pytest.mark.parametrize("kind", BERT_LIKE)
def test_inner_products_of_single_rows(kind):
    full, skipping = pair(kind)
    tokens = make_tokens((9, 4, 7, 2))
    direction = make_direction(full)
    expected = inner_products(full, model_inputs(full, tokens, np.arange(4), CPU), LABELS, direction)
    inputs = model_inputs(skipping, tokens, np.arange(4), CPU)
    actual = inner_products(skipping, inputs, LABELS, direction)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-11)
    products = GhostProducts(skipping, 4, "float32", inputs["rows"])
    with products.recording():
        losses = F.cross_entropy(skipping(**inputs).logits, LABELS, reduction="none")
    assert products.is_exact()
    torch.testing.assert_close(products.inner_products(losses, direction), expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("first_weights", [None, (0.5, 2.0, 1.0, 0.1), (0.0, 1.0, 1.0, 1.0)])
@pytest.mark.parametrize("skips", [True, False])
def test_the_gradient_for_other_weights_comes_from_the_same_pass(skips, first_weights):
    model = pair("bert", hidden_dropout_prob=0.2)[skips]
    inputs = model_inputs(model, make_tokens((9, 4, 7, 2)), np.arange(4), CPU)
    products = GhostProducts(model, 4, "float32", inputs.get("rows"))
    with products.recording():
        losses = F.cross_entropy(model(**inputs).logits, LABELS, reduction="none")
    assert not products.ready
    if first_weights is not None:
        products.gradient(losses, torch.tensor(first_weights, dtype=torch.float64))
    products.inner_products(losses, make_direction(model))
    assert products.ready
    weights = torch.tensor([1.5, 0.0, 0.3, 2.0], dtype=torch.float64)
    named = parameters_with_gradients(model)
    expected = torch.autograd.grad((weights * losses).sum(), list(named.values()), retain_graph=True)
    for _ in range(2):  # the second one is added to the first
        products.backward(weights)
    for (name, parameter), value in zip(named.items(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, 2 * value, rtol=1e-9, atol=1e-12, msg=name)


def test_bfloat16_runs_without_padding():
    _, model = pair()
    model.float()
    inputs = model_inputs(model, make_tokens((9, 4, 7, 2)), np.arange(4), CPU)
    point = parameters_of(model)
    low, high = (losses_at(model, inputs, LABELS, precision)(point) for precision in ("bfloat16", "float32"))
    torch.testing.assert_close(low, high, rtol=0.1, atol=0.1)
    assert not torch.equal(low, high)
