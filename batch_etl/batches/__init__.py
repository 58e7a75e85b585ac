"""The engine: records in, one outcome for each out, through the Message Batches API.

Knows the API; knows neither Dagster nor DuckDB. Read :mod:`batch_etl.batches.runner` first: its
``advance`` is the one way a transform moves on.
"""
