"""Writing a corpus of labeled rows with a language model."""
