"""Trials on Ray: Tune fans them out, Train runs each. The only importers of ray."""
