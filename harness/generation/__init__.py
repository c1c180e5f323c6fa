"""Corpora written by a language model, and few-shot classification, through any OpenAI-compatible server."""
