"""Dagster components: a YAML block -> assets.

BatchPipeline   one pipeline: records, results, table
Environment     the four resources they need, from the environment
"""

from batch_etl.components.batch_pipeline import BatchPipeline
from batch_etl.components.environment import Environment

__all__ = ["BatchPipeline", "Environment"]
