"""Records through Claude's Message Batches API, with Dagster: nothing paid twice, nothing lost."""

__version__ = "0.1.0"
