"""Requests to an OpenAI-compatible language model: each is sent once, answers are kept."""
