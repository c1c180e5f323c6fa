from __future__ import annotations

import pytest
import torch
from torch import nn

from harness.training.dropout import LEVELS, Dropout, dropout, mask_like, replace_dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_shares_and_mean_of_a_mask(p):
    torch.manual_seed(0)
    mask = mask_like(torch.empty(1000, 1000), p)
    values = mask.unique()
    assert values.tolist() == [0.0, pytest.approx(1 / (1 - p), rel=1e-3)]
    share = (mask == 0).double().mean().item()
    assert abs(share - round(p * LEVELS) / LEVELS) < 5 * (p * (1 - p)) ** 0.5 / 1000
    assert mask.double().mean().item() == pytest.approx(1.0, abs=5 * (p / (1 - p)) ** 0.5 / 1000)
    # neighbors come from the same integer and must not depend on each other
    kept = (mask != 0).double()
    for step in (1, 2, 3, 4):
        correlation = torch.corrcoef(torch.stack([kept[:, step:].flatten(), kept[:, :-step].flatten()]))[0, 1]
        assert abs(correlation) < 5e-3


@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 4, 4), (0, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_masks_have_the_shape_and_type_of_the_values(shape, dtype):
    mask = mask_like(torch.empty(shape, dtype=dtype), 0.3)
    assert mask.shape == shape
    assert mask.dtype == dtype


def test_a_state_of_the_generator_repeats_the_mask():
    values = torch.ones(50, 7)
    state = torch.get_rng_state()
    first, second = dropout(values, 0.5), dropout(values, 0.5)
    torch.set_rng_state(state)
    assert torch.equal(dropout(values, 0.5), first)
    assert not torch.equal(first, second)


def test_gradients_pass_where_values_passed():
    values = torch.ones(40, 3, requires_grad=True)
    out = dropout(values, 0.4)
    out.sum().backward()
    assert torch.equal(values.grad, out.detach())


def test_modules_are_replaced_and_only_drop_while_training():
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Dropout(0.5), nn.ReLU()), nn.Dropout(0.0))
    replace_dropout(model)
    inner, last = model[1][0], model[2]
    assert type(inner) is Dropout
    assert (inner.p, last.p) == (0.5, 0.0)
    values = torch.ones(100)
    assert torch.equal(last(values), values)
    assert set(inner(values).tolist()) == {0.0, 2.0}
    assert torch.equal(model.eval()[1][0](values), values)
