"""Dagster components: a YAML block -> assets.

BatchPipeline   one pipeline: records, results, table
Evaluation      variants of a task over labelled records, scored and compared
Environment     the five resources they need, from the environment
Monitoring      the sensors that look after all pipelines of a project
"""

from batch_etl.components.batch_pipeline import BatchPipeline
from batch_etl.components.environment import Environment
from batch_etl.components.evaluation import Evaluation
from batch_etl.components.monitoring import Monitoring

__all__ = ["BatchPipeline", "Environment", "Evaluation", "Monitoring"]
