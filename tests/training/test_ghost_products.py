"""⟨v, ∇ℓ_i⟩ put together from layers, against forward mode and against a backward pass for every example."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import transformers

from harness.training.meta_gradients.forward_mode import inner_products, parameters_of
from harness.training.meta_gradients.ghost_products import GhostProducts
from tests.training.test_forward_mode import make_batch, make_direction, make_model, one_by_one

SIZES = {
    "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "embedding_size": 16, "max_position_embeddings": 40, "num_labels": 3, "initializer_range": 0.3, "pad_token_id": 0,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout_prob": 0.0,
}  # fmt: skip
DISTILBERT = {
    "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "dropout": 0.0, "attention_dropout": 0.0,
    "seq_classif_dropout": 0.0,
}  # fmt: skip


class Shifted(torch.nn.Module):
    """A head with another layer, whose output all rows share."""

    def __init__(self, head):
        super().__init__()
        self.head, self.shift = head, torch.nn.Linear(1, head.out_features).to(head.weight.dtype)

    def forward(self, hidden):
        return self.head(hidden) + self.shift(torch.ones(1, 1, dtype=hidden.dtype))


class Beside(torch.nn.Module):
    """A head with another layer, whose output goes nowhere."""

    def __init__(self, head):
        super().__init__()
        self.head, self.idle = head, torch.nn.Linear(head.in_features, 2).to(head.weight.dtype)

    def forward(self, hidden):
        self.idle(hidden)
        return self.head(hidden)


def watched(model, precision="float32"):
    """The batch's losses, and inner products for them."""
    batch, labels = make_batch()
    products = GhostProducts(model, len(labels), precision)
    with products.recording(), torch.autocast("cpu", torch.bfloat16, precision == "bfloat16"):
        logits = model(**batch).logits
    return F.cross_entropy(
        logits.to(torch.promote_types(logits.dtype, torch.float32)), labels, reduction="none"
    ), products


def make(name, **settings):
    torch.manual_seed(3)
    config = getattr(transformers, f"{name}Config")(**SIZES | settings)
    return getattr(transformers, f"{name}ForSequenceClassification")(config).double().train()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_same_as_a_backward_pass_for_each_example(attention, dtype, tolerance):
    exact = make_model(attention="eager")
    batch, labels = make_batch()
    expected = one_by_one(exact, batch, labels, make_direction(exact))
    model = make_model(attention=attention, dtype=dtype)
    losses, products = watched(model)
    actual = products.inner_products(losses, make_direction(model))
    assert products.is_exact()
    assert (actual - expected).abs().max() / expected.abs().max() < tolerance
    assert not actual.requires_grad


@pytest.mark.parametrize(
    ("name", "settings"), [("Roberta", {}), ("Electra", {}), ("Albert", {}), ("DistilBert", DISTILBERT)]
)
def test_same_as_forward_mode_for_other_encoders(name, settings):
    model = make(name, **settings)
    batch, labels = make_batch()
    losses, products = watched(model)
    direction = make_direction(model)
    assert products.is_exact()
    expected = inner_products(model, batch, labels, direction)
    torch.testing.assert_close(products.inner_products(losses, direction), expected, rtol=1e-11, atol=1e-11)


def test_an_encoder_whose_rows_share_layers_is_told_and_left_to_forward_mode():
    model = make("DebertaV2", relative_attention=True, pos_att_type=["c2p", "p2c"], type_vocab_size=2)
    assert not watched(model)[1].is_exact()
    batch, labels = make_batch()
    direction = make_direction(model)
    expected = one_by_one(model, batch, labels, direction)
    torch.testing.assert_close(inner_products(model, batch, labels, direction), expected, rtol=1e-5, atol=1e-7)


def test_a_parameter_of_two_layers_is_told():
    model = make_model()
    layers = model.bert.encoder.layer
    layers[1].attention.self.query.weight = layers[0].attention.self.query.weight
    assert not watched(model)[1].is_exact()


def test_an_output_changed_in_place_is_told():
    model = make_model()
    model.bert.encoder.layer[0].output.LayerNorm = torch.nn.Sequential(
        torch.nn.LayerNorm(16, dtype=torch.float64), torch.nn.ReLU(inplace=True)
    )
    assert not watched(model)[1].is_exact()


def test_a_layer_whose_output_nobody_uses_counts_for_nothing():
    model = make_model()
    model.classifier = Beside(model.classifier)
    losses, products = watched(model)
    assert products.is_exact()
    direction = make_direction(model)
    expected = inner_products(model, *make_batch(), direction)
    torch.testing.assert_close(products.inner_products(losses, direction), expected, rtol=1e-11, atol=1e-11)
    assert not products.gradient(losses, torch.ones(5))["classifier.idle.weight"].any()


def test_rows_that_share_a_layers_output_are_told():
    model = make_model()
    model.classifier = Shifted(model.classifier)
    assert not watched(model)[1].is_exact()


def test_a_layer_of_an_unknown_kind_is_told():
    model = make_model()
    model.bert.encoder.layer[0].output.dropout = torch.nn.PReLU(dtype=torch.float64)
    assert not watched(model)[1].is_exact()


def test_a_parameter_that_no_layer_was_asked_for_is_told():
    model = make_model()
    model.register_module("extra", torch.nn.Linear(2, 2))
    assert not watched(model)[1].is_exact()


@pytest.mark.parametrize("weights", [[1.0, 0.3, 2.0, 1e-5, 0.7], [1.0, 0.0, 2.0, 1e-5, 0.7]])
def test_the_weighted_gradient_and_what_its_pass_leaves_for_the_products(weights):
    weights = torch.tensor(weights, dtype=torch.float64) / 5
    model = make_model(dropout=0.3)
    direction = make_direction(model)
    losses, products = watched(model)
    named = dict(model.named_parameters())
    own = [torch.autograd.grad(loss, list(named.values()), retain_graph=True) for loss in losses]
    actual = products.gradient(losses, weights)
    assert list(actual) == list(named)
    for place, name in enumerate(named):
        expected = sum(w * values[place] for w, values in zip(weights, own, strict=True))
        torch.testing.assert_close(actual[name], expected, rtol=1e-10, atol=1e-12)
    expected = [sum((g * direction[n]).sum() for n, g in zip(named, values, strict=True)) for values in own]
    for _ in range(2):
        torch.testing.assert_close(
            products.inner_products(losses, direction), torch.stack(expected), rtol=1e-9, atol=1e-11
        )
    losses.sum().backward()  # the graph is still there


def test_parameters_that_are_not_trained_count_for_nothing():
    model = make_model()
    embeddings = model.bert.embeddings
    for frozen in (embeddings.word_embeddings.weight, embeddings.LayerNorm.bias, model.classifier.bias):
        frozen.requires_grad_(False)
    losses, products = watched(model)
    direction = make_direction(model)
    assert products.is_exact()
    expected = inner_products(model, *make_batch(), direction)
    assert len(direction) == len(parameters_of(model)) == len(list(model.parameters())) - 3
    torch.testing.assert_close(products.inner_products(losses, direction), expected, rtol=1e-11, atol=1e-11)


def test_under_bfloat16_it_is_close():
    model = make_model(dtype=torch.float32)
    direction = make_direction(model)
    actual = {}
    for precision in ("float32", "bfloat16"):
        losses, products = watched(model, precision)
        products.gradient(losses, torch.tensor([1.0, 0.5, 1.0, 2.0, 0.1]))
        actual[precision] = products.inner_products(losses, direction)
    assert actual["bfloat16"].dtype == torch.float32
    assert (actual["bfloat16"] - actual["float32"]).abs().max() / actual["float32"].abs().max() < 0.05


def test_nothing_is_left_on_the_model():
    model = make_model()
    watched(model)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
