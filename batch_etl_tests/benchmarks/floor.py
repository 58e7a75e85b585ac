"""The floor: the same bytes by the fastest means known, with none of the engine's features.

No ledger, no manifest, no reuse, no hash, no retry, nothing kept but the results Parquet and the
table; a crash loses everything. Means as measured in the note behind this suite: small Arrow
batches, an f-string and one ``bytes.join`` a request, ``http.client`` in blocks of a megabyte,
results to a file, the rest in DuckDB's SQL.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb
import msgspec
import pyarrow.parquet as pq

from batch_etl_tests.benchmarks import workload
from batch_etl_tests.benchmarks.programs import Order, parsed
from batch_etl_tests.benchmarks.watch import Watch

_READ_ROWS = 2_000
_BLOCK_ROWS = 700
_BLOCK_BYTES = 1 << 20
_HEADERS = {
    "x-api-key": workload.KEY,
    "anthropic-version": "2023-06-01",
    "content-type": "application/json",
}
_RESULTS = (
    "{'custom_id': 'VARCHAR', 'result': 'STRUCT(type VARCHAR, error STRUCT(error STRUCT("
    "type VARCHAR, message VARCHAR)), message STRUCT(id VARCHAR, model VARCHAR, "
    "stop_reason VARCHAR, content STRUCT(text VARCHAR)[], usage STRUCT(input_tokens BIGINT, "
    "output_tokens BIGINT)))'}"
)
_ANSWER = '{"topic":"VARCHAR","tone":"VARCHAR","confidence":"DOUBLE","reference":"BIGINT"}'


def run(order: Order, watch: Watch) -> object:
    """Records -> answers -> table; what is in the table."""
    address = urlsplit(order.url).netloc
    batch_ids: list[str] = []
    with watch.stage("plan"):
        for blocks in _bodies(order.records):
            with watch.stage("submit"):
                batch_ids.append(_create(address, blocks))
            blocks.clear()
    watch.prepare()
    connection = duckdb.connect(str(order.folder / "floor.duckdb"))
    connection.execute("SET memory_limit = '300MB'")
    connection.execute("SET preserve_insertion_order = false")
    for batch_id in batch_ids:
        with watch.stage("download"):
            path = _download(address, batch_id, order.folder / f"{batch_id}.jsonl")
        with watch.stage("decode"):
            _decode(connection, path)
            path.unlink()
    with watch.stage("load"):
        found = _load(connection, order)
        connection.close()
    return found


def _bodies(records: Path) -> Iterator[list[bytes]]:
    """The bodies of all creates, as blocks of about a megabyte."""
    blocks: list[bytes] = []
    room, size_bytes = workload.BATCH_REQUESTS, 0
    for lines in _lines(records):
        added_bytes = sum(map(len, lines)) + len(lines)
        if len(lines) > room or size_bytes + added_bytes > workload.BATCH_BYTES - 100:
            yield [*blocks, b"]}"]
            blocks, room, size_bytes = [], workload.BATCH_REQUESTS, 0
        for at in range(0, len(lines), _BLOCK_ROWS):
            before = b"," if blocks else b'{"requests":['
            blocks.append(before + b",".join(lines[at : at + _BLOCK_ROWS]))
        room -= len(lines)
        size_bytes += added_bytes
    if blocks:
        yield [*blocks, b"]}"]


def _lines(records: Path) -> Iterator[list[bytes]]:
    """Request lines of ``_READ_ROWS`` records at a time; the custom_id is the record's row."""
    encode, join = msgspec.json.Encoder().encode, b"".join
    middle, tail = _constant()
    ending = workload.PROMPT.rpartition("Label post {{ post_id }}")[2].rstrip("\n")
    row = 0
    for batch in pq.ParquetFile(records, pre_buffer=False).iter_batches(_READ_ROWS):
        columns = [batch.column(name).to_pylist() for name in batch.schema.names]
        prompts = [
            f"Channel: {channel}\nAuthor: {role}\nLikes: {likes}\n\n<post>\n{text}\n</post>\n\n"
            f"Label post {post_id}{ending}"
            for post_id, channel, role, likes, text in zip(*columns, strict=True)
        ]
        yield [
            join((b'{"custom_id":"%d' % n, middle, encode(prompt), tail))
            for n, prompt in enumerate(prompts, row)
        ]
        row += len(prompts)


def _constant() -> tuple[bytes, bytes]:
    params: dict[str, Any] = {
        "model": workload.MODEL,
        "max_tokens": workload.MAX_TOKENS,
        "system": workload.SYSTEM,
        "output_config": {"format": {"type": "json_schema", "schema": workload.SCHEMA}},
    }
    head = json.dumps(params, separators=(",", ":")).encode()
    middle = b'","params":' + head[:-1] + b',"messages":[{"role":"user","content":'
    return middle, b"}]}}"


def _create(address: str, blocks: list[bytes]) -> str:
    connection = http.client.HTTPConnection(address)
    headers = {**_HEADERS, "content-length": str(sum(map(len, blocks)))}
    connection.request("POST", "/v1/messages/batches", iter(blocks), headers)
    reply = json.loads(connection.getresponse().read())
    connection.close()
    return reply["id"]


def _download(address: str, batch_id: str, path: Path) -> Path:
    connection = http.client.HTTPConnection(address)
    while True:
        connection.request("GET", f"/v1/messages/batches/{batch_id}", headers=_HEADERS)
        if json.loads(connection.getresponse().read())["processing_status"] == "ended":
            break
        time.sleep(0.1)
    connection.request("GET", f"/v1/messages/batches/{batch_id}/results", headers=_HEADERS)
    block = memoryview(bytearray(_BLOCK_BYTES))
    with connection.getresponse() as reply, open(path, "wb", buffering=0) as file:
        while size := reply.readinto(block):
            file.write(block[:size])
    connection.close()
    return path


def _decode(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """One batch's lines -> validated answers, as Parquet beside them."""
    topics, tones = (str(list(words))[1:-1] for words in (workload.TOPICS, workload.TONES))
    connection.execute(f"""
        COPY (
            SELECT record_row, kind, reason, message_id, model, stop_reason, input_tokens,
                   output_tokens,
                   CASE WHEN a.topic IN ({topics}) AND a.tone IN ({tones}) THEN a END AS answer
            FROM (
                SELECT custom_id::BIGINT AS record_row, result.type AS kind,
                       result.error.error.message AS reason, result.message.id AS message_id,
                       result.message.model AS model, result.message.stop_reason AS stop_reason,
                       result.message.usage.input_tokens AS input_tokens,
                       result.message.usage.output_tokens AS output_tokens,
                       result.message.content[1].text AS said,
                       CASE WHEN json_valid(said)
                            THEN json_transform_strict(said, '{_ANSWER}') END AS a
                FROM read_json('{path}', format = 'newline_delimited', columns = {_RESULTS})
            )
        ) TO '{path.with_suffix(".parquet")}' (FORMAT parquet, COMPRESSION zstd)
    """)


def _load(connection: duckdb.DuckDBPyConnection, order: Order) -> object:
    shown = ", ".join(f"r.{name}" for name in (workload.ID, *workload.SHOWN))
    connection.execute(f"""
        CREATE TABLE posts AS
        SELECT {shown}, a.answer.topic AS topic, a.answer.tone AS tone,
               a.answer.confidence AS confidence, a.answer.reference AS reference,
               a.* EXCLUDE (answer, record_row)
        FROM read_parquet('{order.records}', file_row_number = true) r
        JOIN read_parquet('{order.folder}/*.parquet') a ON a.record_row = r.file_row_number
    """)
    connection.execute("CHECKPOINT")
    return connection.execute(workload.CHECK.format(table="posts")).fetchone()


if __name__ == "__main__":
    order, watch = parsed()
    watch.report(run(order, watch))
