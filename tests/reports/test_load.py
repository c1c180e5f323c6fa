"""What a report takes from the ledger's files, of this version and of the one before."""

from __future__ import annotations

import pandas as pd

from harness.ledger.artifacts import History, Scores, Texts, Weights, best_epoch, from_parquet, to_parquet
from harness.ledger.legacy import upgrade_weights

FRAME = pd.DataFrame({"id": ["a", "b"], "label": ["x", "y"], "corruption": ["", "flip"]}).assign(
    weight_1=[1.0, 1.0], weight_2=[0.0, float("nan")], weight_3=[2.0, 3.0]
)


def test_a_row_has_its_last_weight_and_its_mean_one() -> None:
    rows = Weights.from_frame(from_parquet(to_parquet(FRAME))).summary()
    assert rows["weight"].tolist() == [2.0, 3.0]
    assert rows["mean_weight"].tolist() == [1.0, 2.0], "epochs in which a row was not seen do not count"
    assert rows["corruption"].tolist() == ["", "flip"]


def test_of_several_stages_the_first_one_gives_the_weights() -> None:
    nan = float("nan")
    frame = pd.DataFrame({"id": ["g", "r"], "label": ["x", "x"], "corruption": ["", ""]}).assign(
        weight_1=[0.5, nan], weight_2=[0.25, nan], weight_3=[nan, 1.0]
    )
    rows = Weights.from_frame(frame).summary()
    assert rows["weight"].iloc[0] == 0.25


def test_weights_of_version_1_have_texts_and_marked_ids() -> None:
    old = pd.DataFrame({"id": ["noisy-a", "noisy-b+flip", "a+b"], "label": ["x", "y", "x"], "text": ["1", "2", "3"]})
    old = old.assign(pair=["eins", "zwei", "drei"], weight_1=[1.0, 1.0, 1.0])
    weights = Weights.from_frame(upgrade_weights(old))
    assert weights.frame["corruption"].tolist() == ["", "flip", ""]
    assert weights.texts is not None
    assert weights.texts.iloc[0] == "1  //  eins"
    assert upgrade_weights(FRAME) is FRAME, "later versions have the column"


def test_a_history_of_version_1_is_a_list() -> None:
    entries = [{"epoch": 1.0, "validation_accuracy": 0.5}, {"epoch": 2.0, "validation_accuracy": 0.5}]
    assert History.from_bytes(b'[{"epoch": 1.0}]').entries == [{"epoch": 1.0}]
    history = History.from_bytes(History(entries).to_bytes())
    assert history.entries == entries
    assert history.chosen("last")["epoch"] == 2.0
    assert history.chosen("best_validation")["epoch"] == 1.0
    assert best_epoch(entries) == 1, "the first of equals"


def test_scores_and_texts_survive_their_files() -> None:
    import numpy as np

    table = np.log(np.float32([[0.9, 0.1], [0.4, 0.6]]))
    frame = from_parquet(to_parquet(Scores.to_frame(["a", "b"], ["no", "yes"], table)))
    ids, log_probs = Scores.from_frame(frame).log_probs(["no", "yes"])
    assert ids == ("a", "b")
    np.testing.assert_array_equal(log_probs, table.astype(np.float64))
    texts = from_parquet(to_parquet(Texts.to_frame(["a"], ["one"], ["two"])))
    assert Texts.from_frame(texts) == {"a": "one  //  two"}
