"""The ledger's results as tables, figures and a page that a careful reader believes."""
