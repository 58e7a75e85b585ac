"""What the commands of ``batch-etl`` do, a module each; ``batch_etl.cli`` is their front door."""
