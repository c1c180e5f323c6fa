"""Benchmarks: where rows come from, how they are checked, split, tokenised and batched."""
