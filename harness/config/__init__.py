"""Configuration: experiments, benchmarks and sources as typed, frozen models."""
