"""Instances only: the ready pipelines and the resources they run on."""
