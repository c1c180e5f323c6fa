"""From an experiment to its trials: pure, without data, torch, Ray or MLflow."""
