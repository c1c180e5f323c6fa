"""Planning: from an experiment to its trials, without torch, Ray or MLflow."""
