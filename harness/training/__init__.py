"""One fine-tune: encoder, loop, evaluation. Torch only; no Ray, no MLflow."""
