"""Programs that reproduce the figures of the two papers: ``python -m experiments``."""
