"""The ledger: which trial is done, with what result. The only importer of MLflow."""
