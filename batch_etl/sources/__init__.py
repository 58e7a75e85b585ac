"""Extract: records from where they lie to one Parquet file a partition.

    source.py       the seam: PartitionSlice, Portion, the Source protocol
    files.py        FilesSource: CSV, TSV, JSONL, JSON and Parquet files, plain, gz or zst
    listing.py        patterns -> files
    streams.py        a file -> a stream of UTF-8 bytes
    delimited.py, jsontext.py, parquet.py    a file -> Arrow batches
    columns.py        one schema over many files; declared types
    routing.py        rows -> the partitions they belong to
    extract.py      any Source -> Parquet, with the promise of one id a record
    duplicates.py     ids that occur twice (the one importer of duckdb here)

Another kind of source (SQL, HTTP, a queue) is one class with ``id``, ``on_duplicate`` and ``read``;
``extract`` does the rest.
"""

from batch_etl.sources.extract import Extracted, extract
from batch_etl.sources.files import FilesSource
from batch_etl.sources.source import PartitionSlice, Portion, Source

__all__ = ["Extracted", "FilesSource", "PartitionSlice", "Portion", "Source", "extract"]
