from __future__ import annotations

import numpy as np
import pytest

from harness.checkers.scores import Scores, join, load_scores, save_scores, scores_exist, scores_key
from harness.data.split import Split
from harness.errors import TrialError
from harness.store import Store

SOURCE = Split("generated", ("a", "b", "c"), ("x", "y", "z"), None, np.array([0, 1, 0]))
DIGESTS = {"generated": SOURCE.digest}
TABLE = np.log(np.float32([[0.9, 0.1], [0.4, 0.6], [0.25, 0.75]]))


def test_round_trip(tmp_path):
    store = Store(str(tmp_path))
    save_scores(Scores("t1", SOURCE.ids, TABLE), DIGESTS, store)
    scores = load_scores("t1", DIGESTS, store)
    assert (scores.checker, scores.ids) == ("t1", SOURCE.ids)
    assert scores.aligned(SOURCE).tobytes() == TABLE.tobytes()


def test_kept_by_checker_and_content(tmp_path):
    store = Store(str(tmp_path))
    save_scores(Scores("t1", SOURCE.ids, TABLE), DIGESTS, store)
    assert scores_exist("t1", [DIGESTS], store)
    for checker, digests in (("t2", DIGESTS), ("t1", {"generated": "other"}), ("t1", {})):
        assert scores_key(checker, digests) != scores_key("t1", DIGESTS)
        assert not scores_exist(checker, [DIGESTS, digests], store)
        with pytest.raises(TrialError) as caught:
            load_scores(checker, digests, store)
        assert str(caught.value) == (
            f"checker {checker} has not scored {', '.join(digests)}: its scores are not in the store"
        )


def test_calibrated_scores_are_kept_beside_the_others(tmp_path):
    store = Store(str(tmp_path))
    save_scores(Scores("t1", SOURCE.ids, TABLE), DIGESTS, store)
    assert not scores_exist("t1", [DIGESTS], store, [DIGESTS])
    with pytest.raises(TrialError, match="checker t1 has not scored generated: its calibrated scores are not in the"):
        load_scores("t1", DIGESTS, store, calibrated=True)
    save_scores(Scores("t1", SOURCE.ids, TABLE[::-1], 1.5), DIGESTS, store)
    assert scores_exist("t1", [DIGESTS], store, [DIGESTS])
    assert load_scores("t1", DIGESTS, store).temperature is None
    assert np.array_equal(load_scores("t1", DIGESTS, store).log_probabilities, TABLE)
    assert load_scores("t1", DIGESTS, store, calibrated=True).temperature == 1.5


def test_alignment_by_id():
    scores = Scores("t1", ("c", "a", "b", "more"), np.vstack([TABLE[[2, 0, 1]], TABLE[:1]]))
    assert np.array_equal(scores.aligned(SOURCE), TABLE)


def test_a_row_without_score_is_named():
    with pytest.raises(TrialError) as caught:
        Scores("t1", ("c", "a"), TABLE[[2, 0]]).aligned(SOURCE)
    assert str(caught.value) == (
        "checker t1 has no score for 1 of 3 rows of generated, first 'b': its scores are of other data"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -9.0])
def test_what_is_no_distribution_is_refused(value):
    table = TABLE.copy()
    table[1, 0] = value
    with pytest.raises(TrialError, match=r"checker t1: the probabilities of row 'b' sum to .*, not 1"):
        Scores("t1", SOURCE.ids, table).aligned(SOURCE)


def test_certain_scores_are_fine():
    table = np.float32([[0.0, -np.inf]] * 3)
    assert np.array_equal(Scores("t1", SOURCE.ids, table).aligned(SOURCE), table)


def test_scores_of_several_checkers_are_joined():
    parts = [Scores("t1", ("c",), TABLE[[2]]), Scores("t2", ("b", "a"), TABLE[[1, 0]])]
    assert np.array_equal(join(parts).aligned(SOURCE), TABLE)
    assert join(parts[:1]) is parts[0]
    with pytest.raises(TrialError) as caught:
        join(parts[:1]).aligned(SOURCE)
    assert "checker t1 has no score for 2 of 3 rows of generated, first 'a'" in str(caught.value)


def test_a_row_that_two_checkers_have_scored():
    with pytest.raises(TrialError) as caught:
        join([Scores("t1", ("c", "a"), TABLE[[2, 0]]), Scores("t2", ("b", "a"), TABLE[[1, 0]])])
    assert str(caught.value) == "checkers t1 and t2 have both scored row 'a'"
