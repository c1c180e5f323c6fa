"""The worth of written rows in human rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.weigh.worth import MOST, Curves, next_rows, rows_for, slopes, worth

PEOPLE = np.array([60.0, 120.0, 240.0])


def line(base, slope, people=PEOPLE):
    return base + slope * np.log(np.asarray(people) / PEOPLE[0])


def test_slopes_of_a_straight_line():
    assert slopes(PEOPLE, line(0.5, 0.1)[None]) == pytest.approx([0.1])


@pytest.mark.parametrize("people", [60.0, 75.0, 120.0, 200.0, 240.0, 480.0, 30.0])
def test_rows_for_inverts_a_rising_line(people):
    """Between the measured sizes and, by the fitted line, outside them."""
    target = line(0.5, 0.1, people)
    assert rows_for(PEOPLE, line(0.5, 0.1)[None], np.array([target])) == pytest.approx([people])


def test_between_sizes_the_measured_curve_counts_and_not_the_line():
    curve = np.array([[0.5, 0.7, 0.72]])
    assert rows_for(PEOPLE, curve, np.array([0.6])) == pytest.approx([60.0 * np.sqrt(2)])


def test_a_falling_stretch_is_made_level():
    curve = np.array([[0.5, 0.7, 0.66]])  # isotonic: 0.5, 0.68, 0.68
    assert rows_for(PEOPLE, curve, np.array([0.59])) == pytest.approx([60.0 * np.sqrt(2)])


def test_on_a_level_stretch_the_middle_counts():
    curve = np.array([[0.7, 0.7, 0.8], [0.6, 0.8, 0.8]])
    assert rows_for(PEOPLE, curve, np.array([0.7, 0.8])) == pytest.approx([60 * np.sqrt(2), 120 * np.sqrt(2)])


def test_a_curve_that_does_not_rise_needs_infinitely_many_rows_or_none():
    curve = np.array([[0.6, 0.6, 0.6]])
    assert rows_for(PEOPLE, curve, np.array([0.7])) == pytest.approx([MOST * 240])
    assert rows_for(PEOPLE, curve, np.array([0.5])) == [0.0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.2, 0.9), min_size=3, max_size=3), st.floats(0.0, 1.0), st.floats(0.0, 0.2))
def test_a_higher_accuracy_never_needs_fewer_rows(curve, accuracy, more):
    rows = rows_for(PEOPLE, np.array([curve, curve]), np.array([accuracy, accuracy + more]))
    assert 0 <= rows[0] <= rows[1] * (1 + 1e-9)


def simulated(rng, alone, both, rows=4000, folds=3):
    """Curves of rows that are right with these probabilities."""
    parts = [[], []]
    for _ in range(folds):
        for part, accuracy in zip(parts, (alone, both), strict=True):
            luck = rng.random(rows)  # the same rows are easy at all sizes
            part.append((luck < np.asarray(accuracy)[:, None]).astype(float))
    return Curves(PEOPLE, parts[0], parts[1], 0.25)


def test_the_worth_of_rows_that_double_the_human_ones():
    """With written rows, n human rows are as good as 2 n without."""
    rng = np.random.default_rng(0)
    curves = simulated(rng, line(0.5, 0.1), line(0.5, 0.1, 2 * PEOPLE))
    quarter, half, whole = worth(curves, rng)
    for result, people in ((quarter, 60), (half, 120), (whole, 240)):
        assert result.people == people
        assert result.clear
        assert result.rows.low < result.rows.value < result.rows.high
        assert result.rows.value == pytest.approx(people, rel=0.25)
    assert not quarter.extrapolated
    assert whole.extrapolated


def test_rows_that_harm_have_a_negative_worth():
    rng = np.random.default_rng(0)
    half = worth(simulated(rng, line(0.5, 0.1), line(0.5, 0.1, PEOPLE / 2)), rng)[1]
    assert half.rows.value == pytest.approx(-60, rel=0.25)
    assert half.rows.high < 0


def test_what_lies_outside_the_measured_sizes_is_extrapolated():
    rng = np.random.default_rng(0)
    harmful = worth(simulated(rng, line(0.5, 0.1), line(0.5, 0.1, PEOPLE / 1.5)), rng)
    assert [result.extrapolated for result in harmful] == [True, False, False]
    helpful = worth(simulated(rng, line(0.5, 0.1), line(0.5, 0.1, 1.5 * PEOPLE)), rng)
    assert [result.extrapolated for result in helpful] == [False, False, True]


def test_few_rows_cannot_tell():
    rng = np.random.default_rng(0)
    curves = simulated(rng, line(0.5, 0.02), line(0.52, 0.02), rows=12)
    assert not any(result.clear for result in worth(curves, rng))


def test_the_gain_of_further_rows():
    rng = np.random.default_rng(0)
    curves = simulated(rng, line(0.5, 0.1), line(0.6, 0.0))
    more = next_rows(curves, False, 300, 300, rng)
    assert more.value == pytest.approx(0.1 * np.log(2), abs=0.01)
    assert more.low < more.value < more.high
    assert next_rows(curves, True, 300, 300, rng).value == pytest.approx(0.0, abs=0.01)
