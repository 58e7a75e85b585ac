"""Extract: records from where they lie to one Parquet file a partition.

    source.py       the seam: PartitionSlice, Portion, the Source and SourceBlock protocols
    any_source.py   AnySource: the `source` block of a pipeline, its kind chosen by `type`
    files.py        FilesSource: CSV, TSV, JSONL, JSON and Parquet files, plain, gz or zst
    listing.py        patterns -> files
    documents.py    DocumentsSource: one record a file, with or without its text
    streams.py        a file -> a stream of UTF-8 bytes
    delimited.py, jsontext.py, parquet.py    a file -> Arrow batches
    asked.py        what sources have in common that are asked for their rows
    sql.py            SqlSource: a query through SQLAlchemy
    duckdb_file.py    DuckdbSource: a query on a DuckDB file
    http.py           HttpSource: pages of JSON; http_pages.py gets, http_paging.py reads them
    asset.py          AssetSource: what an asset of the user's project hands over
    bounds.py         :start, :end and :partition in a query
    rows.py           rows of Python values -> Arrow batches
    secret.py         values that the YAML names by environment variable
    table.py        TableSource: another pipeline's table
    queue.py        QueueSource: items that were enqueued, a drain at a time
    columns.py        one schema over many files; declared types
    routing.py        rows -> the partitions they belong to
    fan_out.py      ForEach, FanOut: any Source's records, once for each of a list of values
    extract.py      any Source -> Parquet, with the promise of one id a record
    duplicates.py     ids that occur twice

Another kind of source is one strict model that keeps to ``SourceBlock``, named in ``AnySource``;
``extract`` does the rest.
"""

from batch_etl.sources.any_source import AnySource
from batch_etl.sources.asset import AssetSource
from batch_etl.sources.documents import DocumentsSource
from batch_etl.sources.duckdb_file import DuckdbSource
from batch_etl.sources.extract import Extracted, extract
from batch_etl.sources.fan_out import FanOut, ForEach
from batch_etl.sources.files import FilesSource
from batch_etl.sources.http import HttpSource
from batch_etl.sources.queue import QueueSource
from batch_etl.sources.source import Cut, PartitionSlice, Portion, Source, SourceBlock
from batch_etl.sources.sql import SqlSource
from batch_etl.sources.table import TableSource

__all__ = [
    "AnySource",
    "AssetSource",
    "Cut",
    "DocumentsSource",
    "DuckdbSource",
    "Extracted",
    "FanOut",
    "FilesSource",
    "ForEach",
    "HttpSource",
    "PartitionSlice",
    "Portion",
    "QueueSource",
    "Source",
    "SourceBlock",
    "SqlSource",
    "TableSource",
    "extract",
]
