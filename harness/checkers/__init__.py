"""Checkers: classifiers whose probability of the given label scores every row of a source.

A checker is no model of its own kind: it is the trial "CE on real_small" (quality) or "CE on the source" (diversity),
whose scores are kept.
"""
