"""⟨v, ∇ℓ_i⟩ in one forward-mode pass, against a backward pass for every example."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from harness.training.meta_gradients.forward_mode import inner_products, losses_at, parameters_of, plain_attention


def make_model(dropout: float = 0.0, attention: str = "sdpa", dtype: torch.dtype = torch.float64) -> torch.nn.Module:
    """A BERT of two layers, random."""
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, num_labels=3,
        initializer_range=0.3, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
    )  # fmt: skip
    config._attn_implementation = attention
    return BertForSequenceClassification(config).to(dtype).train()


def make_batch() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Five rows of different lengths, and their labels."""
    generator = torch.Generator().manual_seed(4)
    lengths = torch.tensor([9, 4, 7, 2, 9])
    mask = (torch.arange(9) < lengths[:, None]).long()
    ids = torch.randint(1, 50, (5, 9), generator=generator) * mask
    batch = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    return batch, torch.tensor([0, 2, 1, 1, 0])


def make_direction(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {n: torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p) for n, p in
            parameters_of(model).items()}  # fmt: skip


def one_by_one(model, batch, labels, direction):
    """The reference: a backward pass for each example."""
    out = []
    for row in range(len(labels)):
        model.zero_grad()
        loss = losses_at(model, {k: v[row : row + 1] for k, v in batch.items()}, labels[row : row + 1], "float32")
        parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        gradients = torch.autograd.grad(loss(parameters).sum(), list(parameters.values()))
        out.append(sum((g * direction[n]).sum() for n, g in zip(parameters, gradients, strict=True)))
    return torch.stack(out).detach()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_same_as_a_backward_pass_for_each_example(attention, dtype, tolerance):
    exact = make_model(attention="eager")
    batch, labels = make_batch()
    expected = one_by_one(exact, batch, labels, make_direction(exact))
    model = make_model(attention=attention, dtype=dtype)
    products = inner_products(model, batch, labels, make_direction(model))
    assert (products - expected).abs().max() / expected.abs().max() < tolerance
    assert not products.requires_grad


def test_finite_differences_along_the_direction():
    model, (batch, labels) = make_model(), make_batch()
    direction, start = make_direction(model), parameters_of(model)
    losses = losses_at(model, batch, labels, "float32")
    step = 1e-6
    ends = [losses({n: p + sign * step * direction[n] for n, p in start.items()}) for sign in (1, -1)]
    products = inner_products(model, batch, labels, direction)
    torch.testing.assert_close(products, (ends[0] - ends[1]).detach() / (2 * step), rtol=1e-6, atol=1e-6)


def test_the_same_generator_state_gives_the_masks_of_an_ordinary_forward_pass():
    model, (batch, labels) = make_model(dropout=0.3), make_batch()
    direction = make_direction(model)
    parameters = {n: p for n, p in model.named_parameters()}
    state = torch.get_rng_state()
    with plain_attention():
        losses = losses_at(model, batch, labels, "float32")(parameters)
    expected = []
    for loss in losses:
        gradients = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True)
        expected.append(sum((g * direction[n]).sum() for n, g in zip(parameters, gradients, strict=True)))
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    products = inner_products(model, batch, labels, direction)
    torch.testing.assert_close(products, torch.stack(expected).detach(), rtol=1e-10, atol=1e-12)
    assert torch.equal(torch.get_rng_state(), after)
    other = inner_products(model, batch, labels, direction)
    assert not torch.allclose(other, products), "other masks, other numbers"


def test_under_bfloat16_it_is_close():
    model, (batch, labels) = make_model(dtype=torch.float32), make_batch()
    direction = make_direction(model)
    exact, rough = (inner_products(model, batch, labels, direction, p) for p in ("float32", "bfloat16"))
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().max() / exact.abs().max() < 0.05
