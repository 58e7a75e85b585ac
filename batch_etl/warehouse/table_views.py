"""The views of one pipeline's table; ``views`` lists them. Pure."""

from __future__ import annotations

from dataclasses import replace

from batch_etl.warehouse.bookkeeping import SCHEMA, LoadedTable
from batch_etl.warehouse.decisions import answer_json
from batch_etl.warehouse.newest import NEWEST_FIRST, Marks
from batch_etl.warehouse.sql import identifier, literal
from batch_etl.warehouse.view import View, ViewColumn, distinct, own


def views_of(table: LoadedTable, marks: Marks | None) -> tuple[View, ...]:
    """The views of one pipeline's table; ``marks``: how it marks superseded rows, if it does."""
    return _latest(table, marks), _review(table), _raw(table), _disagreements(table)


def _latest(table: LoadedTable, marks: Marks | None) -> View:
    return View(
        f"{table.name}_latest",
        f"One row a record of {table.name} that has an answer: the newest one, by partition where "
        "that is a time. Records in review are not here.",
        (
            *own(table.record_columns),
            *own(table.answer_columns),
            *_lineage(table, "_partition _model _task_version _endpoint _answered_at _decided_by"),
        ),
        _newest(table, marks),
    )


def _newest(table: LoadedTable, marks: Marks | None) -> str:
    """SQL: the newest answered row of each record."""
    answered = f"FROM {table.sql} WHERE _state = 'answered'"
    if marks is None:
        return (
            f"FROM (SELECT * {answered} QUALIFY row_number() OVER "
            f"(PARTITION BY {identifier(table.id_column.name)} ORDER BY {NEWEST_FIRST}) = 1)"
        )
    return f"{answered} AND {identifier(marks.column)} IS NULL" if marks.column else answered


def _review(table: LoadedTable) -> View:
    return View(
        f"{table.name}_review",
        f"The review queue of {table.name}: records without an answer, and why they have none. "
        "`batch-etl review` exports it and applies decisions.",
        (
            *own(table.record_columns),
            *_lineage(
                table,
                "_partition _outcome _reason _text _stop_reason _attempt _model _task_version "
                "_endpoint _request_key _batch_id _cost_usd _loaded_at",
            ),
        ),
        f"FROM {table.sql} WHERE _state = 'review'",
    )


def _raw(table: LoadedTable) -> View:
    answer = f"CASE WHEN _state = 'answered' THEN {answer_json(table)} END"
    return View(
        f"{table.name}_raw",
        f"Each answer of {table.name} as one JSON value, with the model's own text.",
        distinct(
            *own([table.id_column]),
            *_lineage(table, "_partition _state _outcome _reason"),
            ViewColumn("_answer", f"({answer})::JSON", "The answer's columns as one JSON object."),
            ViewColumn(
                "_raw",
                f"coalesce(_text, CASE WHEN _decided_by IS NULL THEN {answer} END)",
                "The model's text as it came, where it was kept because the columns do not hold "
                "all of it; else the answer, put together again.",
            ),
            *_lineage(table, "_stop_reason _model _task_version _endpoint _batch_id _decided_by"),
        ),
        f"FROM {table.sql}",
    )


_VALUE = (
    "CASE WHEN json_type({0}) <> 'DOUBLE' OR ({0})::VARCHAR SIMILAR TO '-?[0-9]+' "
    "THEN ({0})::VARCHAR "
    "WHEN ({0})::DOUBLE = trunc(({0})::DOUBLE) "
    "THEN coalesce(TRY_CAST(({0})::DOUBLE AS HUGEINT)::VARCHAR, ({0})::DOUBLE::VARCHAR) "
    "ELSE ({0})::DOUBLE::VARCHAR END"
)
"""SQL: a JSON value as text, equal for equal numbers: 1 and 1.0, but not 2**53 and 2**53 + 1."""


def _disagreements(table: LoadedTable) -> View:
    path = "'/' || replace(replace(k, '~', '~0'), '/', '~1')"
    then, now = (_VALUE.format(f"json_extract({side}, {path})") for side in ("e.answer", "c.now"))
    both = "list_intersect(json_keys(e.answer::JSON), json_keys(c.now::JSON))"
    differs = f"list_sort(list_filter({both}, lambda k: {then} IS DISTINCT FROM {now}))"
    source = (
        f"FROM (SELECT {identifier(table.id_column.name)} AS id, {answer_json(table)} AS now, "
        f"_partition, _task_version, _model, _endpoint, _answered_at, _decided_by "
        f"FROM {table.sql} WHERE _state = 'answered') c JOIN {SCHEMA}.earlier e "
        f"ON e.schema_name = {literal(table.schema)} AND e.table_name = {literal(table.name)} "
        "AND e.record_id = c.id::VARCHAR AND e.partition IS NOT DISTINCT FROM c._partition "
        f"AND e.task_version <> c._task_version WHERE len({differs}) > 0"
    )
    return View(
        f"{table.name}_disagreements",
        f"Records of {table.name} whose answer is not what an earlier version of the task got, as "
        "far as earlier answers were in this warehouse.",
        distinct(
            replace(own([table.id_column])[0], sql="c.id"),
            *_lineage(table, "_partition"),
            ViewColumn("_differs", differs, "Properties of the answer that differ."),
            ViewColumn("_earlier_answer", "e.answer::JSON", "The earlier answer."),
            ViewColumn("_answer", "c.now::JSON", "The answer that the table shows."),
            ViewColumn("_earlier_task_version", "e.task_version", "Task version of the earlier."),
            *_lineage(table, "_task_version"),
            ViewColumn("_earlier_model", "e.model", "Model that gave the earlier answer."),
            *_lineage(table, "_model _endpoint"),
            ViewColumn("_earlier_answered_at", "e.answered_at", "When the earlier was made (UTC)."),
            *_lineage(table, "_answered_at _decided_by"),
        ),
        source,
    )


def _lineage(table: LoadedTable, names: str) -> tuple[ViewColumn, ...]:
    known = {column.name: column for column in table.columns if column.role == "lineage"}
    return own([known[name] for name in names.split()])
