"""The ledger: which trial is finished, with what result. The only importer of MLflow."""
