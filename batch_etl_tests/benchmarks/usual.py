"""The usual way: what people write with pandas and the official SDK.

``iterrows``, ``str.format``, a dict a request, ``client.messages.batches``, results by iteration,
pydantic for the answers, a merge, ``to_parquet`` and DuckDB's append. Everything is in memory, and
a crash loses it.
"""

from __future__ import annotations

import time
from typing import Any, Literal

import anthropic
import duckdb
import pandas as pd
import pydantic

from batch_etl_tests.benchmarks import workload
from batch_etl_tests.benchmarks.programs import Order, parsed
from batch_etl_tests.benchmarks.watch import Watch


class Answer(pydantic.BaseModel):
    """What is asked of the model."""

    topic: Literal["garden", "repair", "kitchen", "other"]
    tone: Literal["friendly", "neutral", "angry"]
    confidence: float
    reference: int


def run(order: Order, watch: Watch) -> object:
    """Records -> answers -> table; what is in the table."""
    client = anthropic.Anthropic(base_url=order.url, api_key=workload.KEY)
    with watch.stage("plan"):
        posts = pd.read_parquet(order.records)
        requests = [_request(row) for _, row in posts.iterrows()]
    batch_ids: list[str] = []
    with watch.stage("submit"):
        for at in range(0, len(requests), workload.BATCH_REQUESTS):
            part: Any = requests[at : at + workload.BATCH_REQUESTS]
            batch_ids.append(client.messages.batches.create(requests=part).id)
    watch.prepare()
    with watch.stage("collect"):
        rows = [row for batch_id in batch_ids for row in _results(client, batch_id)]
    with watch.stage("finish"):
        labelled = posts[[workload.ID, *workload.SHOWN]].merge(pd.DataFrame(rows), on=workload.ID)
        labelled.to_parquet(order.folder / "results.parquet")
    with watch.stage("load"):
        return _load(labelled, order)


def _request(row: Any) -> dict[str, Any]:
    prompt = workload.PROMPT.replace("{{ ", "{").replace(" }}", "}").rstrip("\n")
    return {
        "custom_id": row["post_id"],
        "params": {
            "model": workload.MODEL,
            "max_tokens": workload.MAX_TOKENS,
            "system": workload.SYSTEM,
            "output_config": {"format": {"type": "json_schema", "schema": workload.SCHEMA}},
            "messages": [{"role": "user", "content": prompt.format(**row)}],
        },
    }


def _results(client: anthropic.Anthropic, batch_id: str) -> list[dict[str, Any]]:
    while client.messages.batches.retrieve(batch_id).processing_status != "ended":
        time.sleep(0.1)
    return [_row(line) for line in client.messages.batches.results(batch_id)]


def _row(line: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"post_id": line.custom_id, "kind": line.result.type}
    if line.result.type == "succeeded":
        message = line.result.message
        row |= {
            "message_id": message.id,
            "model": message.model,
            "stop_reason": message.stop_reason,
            "input_tokens": message.usage.input_tokens,
            "output_tokens": message.usage.output_tokens,
        }
        try:
            row |= Answer.model_validate_json(message.content[0].text).model_dump()
        except pydantic.ValidationError as error:
            row["reason"] = str(error)
    elif line.result.type == "errored":
        row["reason"] = line.result.error.error.message
    return row


def _load(labelled: pd.DataFrame, order: Order) -> object:
    connection = duckdb.connect(str(order.folder / "usual.duckdb"))
    connection.execute("CREATE TABLE posts AS SELECT * FROM labelled LIMIT 0")
    connection.append("posts", labelled)
    found = connection.execute(workload.CHECK.format(table="posts")).fetchone()
    connection.close()
    return found


if __name__ == "__main__":
    order, watch = parsed()
    watch.report(run(order, watch))
