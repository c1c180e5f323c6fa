"""A trimmed vocabulary changes nothing but the size of the embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.checkers.scores import load_scores
from harness.config.experiment import Training
from harness.training import run_trial
from harness.training.activations import model_inputs
from harness.training.classifier import load_classifier, make_optimizer
from harness.training.evaluation import predict
from harness.training.vocabulary import TrimmedVocabulary, decayed
from tests.training.small import HERE, fill, find, make_plan

METHODS = ["ce", "dimp", {"name": "hu", "warm_up": 0}, {"name": "sungen", "rounds": 1, "outer": "real"}]


def results(experiment_file, folder, vocabulary, gradient_norm):
    training = {"epochs": 2, "batch_size": 16, "learning_rate": 5e-3, "weight_decay": 0.1}
    training |= {"vocabulary": vocabulary, "gradient_norm": gradient_norm}
    grid = [{"source": "real_small", "methods": ["ce"]}, {"source": "generated", "methods": METHODS}]
    plan = make_plan(experiment_file(training=training, seeds=[0], grid=grid))
    store = fill(plan, folder)
    trials = [run_trial.run(job, store, lambda entry: None) for job in plan.jobs]
    checker = find(plan, "real_small", "ce")
    (digests,) = checker.scores.values()
    return trials, load_scores(checker.trial.id, digests, store).log_probabilities


def test_without_clipping_all_bits_are_those_of_the_full_vocabulary(experiment_file, tmp_path):
    """A norm of gradients sums them in an order that depends on their number; a factor of 1 does not."""
    full, full_scores = results(experiment_file, tmp_path / "full", "full", 1e9)
    used, used_scores = results(experiment_file, tmp_path / "used", "used", 1e9)
    for one, other in zip(full, used, strict=True):
        assert one.history == other.history
        for name, values in one.arrays.items():
            np.testing.assert_array_equal(values, other.arrays[name], err_msg=name)
    np.testing.assert_array_equal(full_scores, used_scores)


def test_with_clipping_results_are_equal_up_to_rounding(experiment_file, tmp_path):
    full, _ = results(experiment_file, tmp_path / "full", "full", 0.1)
    used, _ = results(experiment_file, tmp_path / "used", "used", 0.1)
    for one, other in zip(full, used, strict=True):
        np.testing.assert_allclose(one.arrays["test"], other.arrays["test"], atol=1e-4)


def test_only_the_tokens_of_the_rows_have_embeddings(tiny_encoder, tokens):
    model = load_classifier(str(tiny_encoder), 3, 0, "sdpa")
    before = model.get_input_embeddings().weight.detach().clone()
    few = tokens.take(np.arange(5))
    vocabulary = TrimmedVocabulary(model, [few])
    ids = sorted({0, *few.input_ids.tolist()})
    assert vocabulary.ids.tolist() == ids
    assert model.get_input_embeddings().num_embeddings == len(ids) < len(before)
    renumbered = vocabulary.renumber(few)
    assert vocabulary.ids[renumbered.input_ids].tolist() == few.input_ids.tolist()
    assert (renumbered.padded([0, 1])["input_ids"] == 0).sum() == (few.padded([0, 1])["input_ids"] == 0).sum()
    torch.testing.assert_close(model.get_input_embeddings().weight.detach(), before[ids], rtol=0, atol=0)


def test_rows_with_tokens_that_training_never_met_are_scored_as_by_the_full_model(tiny_encoder, tokens):
    training, steps = Training(learning_rate=5e-3, weight_decay=0.1, warmup=0.0, steps=6), 6
    few, group = tokens.take(np.arange(2)), HERE
    assert len(np.setdiff1d(tokens.input_ids, few.input_ids)) > 10, "otherwise nothing is tested"
    scores = {}
    for kind in ("full", "used"):
        model = load_classifier(str(tiny_encoder), 3, 0, "sdpa")
        vocabulary = TrimmedVocabulary(model, [few]) if kind == "used" else None
        trained = vocabulary.renumber(few) if vocabulary else few
        optimizer, schedule = make_optimizer(model, training, steps)
        for _ in range(steps):
            optimizer.zero_grad()
            model(**model_inputs(model, trained, np.arange(2), group.device)).logits.square().sum().backward()
            optimizer.step()
            schedule.step()
        for _ in range(2):  # a second extension changes nothing
            rows = vocabulary.extend(tokens, [(training, steps)]) if vocabulary else tokens
            scores[kind] = predict(model, rows, 3, 16, "float32", group)
    np.testing.assert_array_equal(scores["used"], scores["full"])


def test_special_tokens_keep_their_ids(tiny_encoder, tokens):
    """A model that looks for the end of a text by its id must find it, whatever tokens occur."""
    model = load_classifier(str(tiny_encoder), 3, 0, "sdpa")
    model.config.eos_token_id = [3, 17]
    vocabulary = TrimmedVocabulary(model, [tokens.take(np.arange(2))])
    assert vocabulary.ids[:18].tolist() == list(range(18))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_unmet_embeddings_decay_as_a_whole_training_decays_them(weight_decay, tiny_encoder):
    training = Training(learning_rate=5e-3, weight_decay=weight_decay, warmup=0.2, steps=20)
    model = load_classifier(str(tiny_encoder), 3, 0, "sdpa")
    embeddings = model.get_input_embeddings().weight
    unmet = slice(40, None)
    expected = embeddings.detach()[unmet].clone()
    optimizer, schedule = make_optimizer(model, training, 20)
    for step in range(20):
        optimizer.zero_grad()
        ids = torch.randint(1, 40, (4, 6), generator=torch.Generator().manual_seed(step))
        model(input_ids=ids).logits.sum().backward()
        optimizer.step()
        schedule.step()
    assert torch.equal(decayed(expected, training, 20), embeddings.detach()[unmet])
    assert torch.equal(expected, embeddings.detach()[unmet]) == (weight_decay == 0.0)
