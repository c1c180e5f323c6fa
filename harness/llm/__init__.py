"""Requests to language models behind an OpenAI-compatible API: prompts, client, journal of answers, limits."""
