"""Checkers: classifiers whose probability of the given label scores every row of a source.

A checker is an ordinary trial: "CE on real_small" (quality) or "CE on the weighed rows" (diversity), whose scores are
stored.
"""
