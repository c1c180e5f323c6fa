"""What every method promises, shown for each one that the registry finds."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.methods import methods
from tests.methods.steps import make, make_step

#: those that give weights without asking anybody (tests/training/test_look_ahead.py has the others)
NAMES = sorted(name for name, kind in methods.entries.items() if kind.trains and "gradients" not in kind.needs)
CLASSES = 3
every_method = pytest.mark.parametrize("name", NAMES)

logit = st.one_of(
    st.floats(-30, 30, width=32), st.sampled_from([0.0, 1e4, -1e4, 3e38, -3e38, 88.0, -88.0, 104.0, -104.0])
)
#: probabilities of one row: anything, and exactly 0 and 1
weight = st.one_of(st.floats(0.0, 1.0, width=32), st.sampled_from([0.0, 1e-30, 1e-45]))


@st.composite
def steps(draw):
    rows = draw(st.integers(1, 5))

    def log_probabilities():
        out = []
        for _ in range(rows):
            if draw(st.booleans()):
                certain = draw(st.integers(0, CLASSES - 1))
                out.append([0.0 if c == certain else -np.inf for c in range(CLASSES)])
            else:
                shares = np.array([draw(weight) + (1e-3 if c == 0 else 0.0) for c in range(CLASSES)])
                with np.errstate(divide="ignore"):
                    out.append(np.log(shares / shares.sum()).tolist())
        return out

    logits = [[draw(logit) for _ in range(CLASSES)] for _ in range(rows)]
    labels = [draw(st.integers(0, CLASSES - 1)) for _ in range(rows)]
    return make_step(logits, labels, log_probabilities(), log_probabilities(), probabilities=False)


def ordinary_step(rows: int = 16, seed: int = 0):
    rng = np.random.Generator(np.random.PCG64(seed))
    quality, diversity = (rng.dirichlet(np.ones(CLASSES), rows) for _ in range(2))
    return make_step(rng.normal(size=(rows, CLASSES)), rng.integers(0, CLASSES, rows), quality, diversity)


def test_the_methods_of_the_paper_are_found():
    assert {"ce", "focal", "imp", "imp_quality", "dimp", "filter", "prior"} <= set(NAMES)


@every_method
@settings(max_examples=60, deadline=None)
@given(step=steps())
def test_shape_finite_and_not_negative(name, step):
    for options in ({}, {"clip": 0.5}, {"clip": 1e30}):
        weights = make(name, **options).checked_weights(step)
        assert weights.shape == step.labels.shape
        assert weights.dtype == torch.float32
        assert bool(weights.isfinite().all()), weights
        assert bool((weights >= 0).all()), weights
        assert bool((weights <= options.get("clip", np.inf) * (1 + 1e-6)).all())


@every_method
def test_deterministic_and_blind_to_the_rest_of_the_batch(name):
    step, method = ordinary_step(), make(name)
    first = method.weights(step)
    assert torch.equal(first, method.weights(ordinary_step()))
    assert torch.equal(first, make(name).weights(ordinary_step()))
    method.weights(ordinary_step(seed=1))
    assert torch.equal(first, method.weights(ordinary_step()))


@every_method
def test_no_draws_from_global_generators(name):
    def states():
        kind, keys, *rest = np.random.get_state()
        return torch.get_rng_state().tolist(), (kind, keys.tolist(), *rest), random.getstate()

    make(name).weights(ordinary_step())  # libraries that are imported on the first call may draw
    before = states()
    make(name).weights(ordinary_step())
    assert states() == before


@every_method
def test_no_gradient_flows_through_the_weights(name):
    step = ordinary_step()
    assert step.logits.requires_grad
    assert not make(name).weights(step).requires_grad


@every_method
def test_targets_are_distributions_without_gradient(name):
    step = ordinary_step()
    targets = make(name).checked_targets(step)
    if targets is not None:
        assert not targets.requires_grad
        assert bool((targets >= 0).all())
        torch.testing.assert_close(targets.sum(-1), torch.ones(len(step.labels)))


@every_method
def test_inputs_are_not_changed(name):
    step = ordinary_step()
    tensors = (step.rows, step.labels, step.logits, step.quality, step.diversity)
    before = [tensor.detach().clone() for tensor in tensors]
    make(name, clip=0.3).checked_weights(step)
    assert all(torch.equal(old, new) for old, new in zip(before, tensors, strict=True))


@every_method
def test_only_what_it_declares_is_needed(name):
    full, needs = ordinary_step(), methods.get(name).needs
    bare = make_step(
        full.logits.tolist(),
        full.labels,
        full.quality.tolist() if "quality" in needs else None,
        full.diversity.tolist() if "diversity" in needs else None,
        probabilities=False,
    )
    assert torch.equal(make(name).weights(bare), make(name).weights(full))
    assert needs <= {"quality", "diversity", "out_of_fold", "real", "embeddings", "inner_training"}


@every_method
def test_settings_default_to_no_clipping_and_no_normalisation(name):
    chosen = methods.get(name).settings_type()()
    assert (chosen.clip, chosen.normalize) == (None, False)
    assert make(name).settings == chosen


@pytest.mark.parametrize("options", [{"lag": "epoch"}, {"lag": "first"}])
def test_in_the_first_epoch_a_lag_changes_nothing(options):
    step = ordinary_step()
    assert torch.equal(make("dimp", **options).weights(step), make("dimp").weights(step))


def test_the_score_of_rho_is_the_log_of_dimps_weight():
    step = ordinary_step()
    assert torch.equal(make("rho").scores(step).exp(), make("dimp").weights(step))


@pytest.mark.parametrize(
    ("name", "options", "quality", "diversity"),
    [
        ("focal", {"gamma": 0}, None, None),
        ("imp", {}, "any", "same"),
        ("dimp", {}, "model", None),
        ("imp_quality", {}, "certain", None),
        ("filter", {}, "certain", None),
        ("prior", {}, None, None),
        ("gce", {"q": 0}, None, None),
        ("power", {}, None, None),
        ("power", {"a": 1}, "certain", None),
        ("power", {"a": 1, "b": -1}, "model", None),
        ("rho", {"share": 1}, "any", None),
        ("mix", {"alpha": 0.5}, None, None),
        ("relabel", {}, "any", None),
        ("confident", {}, None, "certain"),
        ("ratio", {"tau": 0}, None, None),
        ("ratio", {"tau": 0, "times_imp": True}, "any", "same"),
    ],
)
def test_identities_with_cross_entropy(name, options, quality, diversity):
    step = ordinary_step()
    given_labels = torch.nn.functional.one_hot(step.labels, CLASSES).float()
    tables = {"any": step.quality, "same": step.quality, "model": step.logits.log_softmax(-1)}
    tables["certain"] = given_labels.log()
    quality, diversity = (None if key is None else tables[key].tolist() for key in (quality, diversity))
    method = make(name, **options)
    if name == "prior":  # real labels shared out like the source's
        from harness.methods import SourceInfo

        method.prepare(SourceInfo(np.array([0, 0, 1, 2] * 5), CLASSES, np.array([0, 0, 1, 2])))
    if name == "confident":
        from harness.methods import SourceInfo

        labels = step.labels.numpy()
        method.prepare(SourceInfo(labels, CLASSES, None, diversity=np.array(diversity, np.float32)))
    same = make_step(step.logits.tolist(), step.labels, quality, diversity, probabilities=False)
    weights, ones = method.weights(same), make("ce").weights(same)
    tolerance = 0.0 if name not in ("dimp", "power") else 1e-6
    torch.testing.assert_close(weights, ones, rtol=tolerance, atol=tolerance)


def test_a_checker_that_knows_nothing_gives_equal_weights():
    uniform = np.full((16, CLASSES), 1 / CLASSES)
    step = ordinary_step()
    same = make_step(step.logits.tolist(), step.labels, uniform, uniform)
    torch.testing.assert_close(make("imp_quality").weights(same), torch.full((16,), 1 / CLASSES))
    assert torch.equal(make("imp").weights(same), torch.ones(16))
    expected = (1 / CLASSES) / step.log_model.detach().exp()
    torch.testing.assert_close(make("dimp").weights(same), expected, rtol=1e-5, atol=0.0)


def test_a_ratio_of_1_times_imp_is_imp():
    step = ordinary_step()
    assert torch.equal(make("ratio", tau=0, times_imp=True).weights(step), make("imp").weights(step))


def test_imp_of_the_model_as_diversity_checker_is_dimp():
    step = ordinary_step()
    same = make_step(
        step.logits.tolist(), step.labels, step.quality.tolist(), step.logits.log_softmax(-1).tolist(), False
    )
    torch.testing.assert_close(make("imp").weights(same), make("dimp").weights(same), rtol=1e-6, atol=0.0)
