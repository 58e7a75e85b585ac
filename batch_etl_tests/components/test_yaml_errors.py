"""Mistakes in a pipeline's YAML: found at load, with file and line, key, and what to do."""

from __future__ import annotations

import pytest

from batch_etl_tests.components.make import DAILY, YAML, Project, edited

Changes = list[tuple[str, str]]


def complaint(mine: Project) -> str:
    """The innermost reason why the folder does not load: what `batch-etl` and Dagster show."""
    with pytest.raises(Exception) as caught:
        mine.load()
    error: BaseException = caught.value
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


TASK = "  task:\n"
MISTAKES: dict[str, tuple[str, Changes, str, list[str]]] = {
    # name: (YAML, changes, key "at" the line that holds this text, words of the message)
    "unknown key of the pipeline": (
        YAML,
        [("  name: mine\n", "  name: mine\n  ownerz: []\n")],
        "attributes at attributes:",
        ["unknown key 'ownerz'", "did you mean 'owners'?"],
    ),
    "unknown key of the task": (
        YAML,
        [("max_tokens: 200", "max_tokens: 200\n    promt: Kind?")],
        "attributes.task at   task:",
        ["unknown key 'promt'", "did you mean 'prompt'?"],
    ),
    "unknown key of the source": (
        YAML,
        [("id: note_id", "id: note_id\n    delimeter: ';'")],
        "attributes.source at   source:",
        ["unknown key 'delimeter'", "did you mean 'delimiter'?"],
    ),
    "unknown key of the table": (
        YAML,
        [(TASK, "  table: {column: [text]}\n" + TASK)],
        "attributes.table at   table:",
        ["unknown key 'column'", "did you mean 'columns'?"],
    ),
    "no task": (
        YAML,
        [(YAML[YAML.index(TASK) :], "")],
        "attributes.task at attributes:",
        ["Field required"],
    ),
    "no id": (
        YAML,
        [("    id: note_id\n", "")],
        "attributes.source.id at   source:",
        ["Field required"],
    ),
    "a text for a number": (
        YAML,
        [("max_tokens: 200", "max_tokens: many")],
        "attributes.task.max_tokens at     max_tokens:",
        ["should be a valid integer"],
    ),
    "a text for a block": (
        YAML,
        [("  source:\n    path: notes.csv\n    id: note_id\n", "  source: notes.csv\n")],
        "attributes.source at   source:",
        ["should be an object"],
    ),
    "an unknown type of source": (
        YAML,
        [("    id: note_id\n", "    id: note_id\n    type: file\n")],
        "attributes.source at   source:",
        ["type: 'file' is no kind of source", "did you mean 'files'?"],
    ),
    "a text for a list": (
        YAML,
        [(TASK, "  owners: ann@example.com\n" + TASK)],
        "attributes.owners at   owners:",
        ["should be a valid array"],
    ),
    "a name that is none in SQL": (
        YAML,
        [("name: mine", "name: my-notes")],
        "attributes.name at   name:",
        ["'my-notes'", "letters, digits and underscores"],
    ),
    "a partition column, and no partitions": (
        DAILY,
        [('  partitions: {type: daily, start: "2026-11-01", end: "2026-11-05"}\n', "")],
        "attributes at attributes:",
        ["the source is partitioned", "add a `partitions` block"],
    ),
    "partitions, and no partition column": (
        DAILY,
        [("    partition_column: written_on\n", "")],
        "attributes at attributes:",
        ["`partitions` needs `source.partition_column`", "{partition}"],
    ),
    "partitions that end before they start": (
        DAILY,
        [("2026-11-05", "2026-10-05")],
        "attributes.partitions at   partitions:",
        ["`end` (2026-10-05 00:00:00) is not after `start` (2026-11-01 00:00:00)"],
    ),
    "partitions of no start": (
        DAILY,
        [('start: "2026-11-01", ', "")],
        "attributes.partitions at   partitions:",
        ["`type: daily` needs `start`"],
    ),
    "partitions of an unknown type": (
        DAILY,
        [("type: daily", "type: dayly")],
        "attributes.partitions.type at   partitions:",
        ["'hourly', 'daily', 'weekly', 'monthly' or 'static'"],
    ),
    "partitions with the zone in the time": (
        DAILY,
        [("2026-11-01", "2026-11-01T00:00:00Z")],
        "attributes.partitions.start at   partitions:",
        ["should not have timezone info"],
    ),
    "an unknown time zone": (
        DAILY,
        [("type: daily", "type: daily, timezone: Europe/Berln")],
        "attributes.partitions.timezone at   partitions:",
        ["unknown time zone 'Europe/Berln'", "did you mean 'Europe/Berlin'?"],
    ),
    "static partitions without keys": (
        DAILY,
        [('type: daily, start: "2026-11-01", end: "2026-11-05"', "type: static")],
        "attributes.partitions at   partitions:",
        ["`type: static` needs `keys`"],
    ),
    "keys of daily partitions": (
        DAILY,
        [('end: "2026-11-05"', "keys: [a]")],
        "attributes.partitions at   partitions:",
        ["`keys` are for `type: static`"],
    ),
    "an unknown model": (
        YAML,
        [("claude-haiku-4-5", "claude-haiku-4.5")],
        "attributes.task at   task:",
        ["'claude-haiku-4.5' is not a known model", "did you mean 'claude-haiku-4-5'?"],
    ),
    "a schema with an unknown type": (
        YAML,
        [("type: boolean", "type: bool")],
        "attributes.task at   task:",
        ["output_schema", "/properties/kind/type", "unknown type 'bool'", "boolean"],
    ),
    "a schema that requires what is not there": (
        YAML,
        [("[kind, why]", "[kind, wy]")],
        "attributes.task at   task:",
        ["output_schema", "no property is called 'wy'", "did you mean 'why'?"],
    ),
    "a template that does not parse": (
        YAML,
        [("{{ text }}", "{{ text }")],
        "attributes.task.prompt at     prompt:",
        ["template line 3", "unexpected '}'"],
    ),
    "a schedule that is no cron": (
        YAML,
        [(TASK, "  schedule: every day\n" + TASK)],
        "attributes.schedule.cron at   schedule:",
        ["'every day' is no cron expression", "minute, hour, day, month and weekday"],
    ),
    "a cron with a 61st minute": (
        YAML,
        [(TASK, "  schedule:\n    cron: '61 * * * *'\n" + TASK)],
        "attributes.schedule.cron at     cron:",
        ["'61 * * * *' is no cron expression"],
    ),
    "a schedule in an unknown zone": (
        YAML,
        [(TASK, "  schedule: {cron: '@daily', timezone: Europe/Berln}\n" + TASK)],
        "attributes.schedule.timezone at   schedule:",
        ["unknown time zone 'Europe/Berln'", "did you mean 'Europe/Berlin'?"],
    ),
    "a schedule of an unknown status": (
        YAML,
        [(TASK, "  schedule: {cron: '@daily', default_status: started}\n" + TASK)],
        "attributes.schedule.default_status at   schedule:",
        ["'running' or 'stopped'"],
    ),
    "an unknown profile": (
        YAML,
        [(TASK, "  profile: weekly\n" + TASK)],
        "attributes.profile at   profile:",
        ["'daily', 'hourly' or 'near_real_time'"],
    ),
    "an unknown check": (
        YAML,
        [(TASK, "  checks: {succes_rate: {min_share: 1}}\n" + TASK)],
        "attributes.checks at   checks:",
        ["unknown key 'succes_rate'", "did you mean 'success_rate'?"],
    ),
    "a share in percent": (
        YAML,
        [(TASK, "  checks: {success_rate: {min_share: 95}}\n" + TASK)],
        "attributes.checks.success_rate.min_share at   checks:",
        ["less than or equal to 1"],
    ),
    "a warning that blocks": (
        YAML,
        [(TASK, "  checks: {success_rate: {severity: warn, blocking: true}}\n" + TASK)],
        "attributes.checks.success_rate at   checks:",
        ["`blocking: true` needs `severity: error`"],
    ),
    "drift of a column that no answer has": (
        DAILY,
        [(TASK, "  checks: {label_drift: {columns: [knd]}}\n" + TASK)],
        "attributes at attributes:",
        ["checks.label_drift.columns: 'knd'", "did you mean 'kind'?"],
    ),
    "freshness of two kinds": (
        YAML,
        [(TASK, "  freshness: {cron: '@daily', within_hours: 2, fail_hours: 3}\n" + TASK)],
        "attributes.freshness at   freshness:",
        ["either `cron` with `within_hours`, or `fail_hours`"],
    ),
    "freshness that looks back further than its cron": (
        YAML,
        [(TASK, "  freshness: {cron: '0 * * * *', within_hours: 2}\n" + TASK)],
        "attributes.freshness at   freshness:",
        ["within_hours must be less than or equal to the smallest cron interval"],
    ),
    "freshness that warns after it fails": (
        YAML,
        [(TASK, "  freshness: {fail_hours: 2, warn_hours: 3}\n" + TASK)],
        "attributes.freshness at   freshness:",
        ["warn_hours must be less than fail_hours"],
    ),
    "a streamed batch": (
        YAML,
        [("max_tokens: 200", "max_tokens: 200\n    params: {stream: true}")],
        "attributes.task.params at     params:",
        ["'stream'", "remove it"],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_its_key_its_line_and_the_remedy(
    mine: Project, mistake: str
) -> None:
    before, changes, place, words = MISTAKES[mistake]
    text = edited(before, *changes)
    mine.write(text)
    message = complaint(mine)
    key, _, line_text = place.partition(" at ")
    number = 1 + next(i for i, line in enumerate(text.splitlines()) if line.startswith(line_text))
    assert f"`{key} at {mine.folder}/mine/defs.yaml:{number}`" in message
    for word in words:
        assert word in message
    assert message.startswith("1 validation error")


def test_an_invalid_owner_is_named(mine: Project) -> None:
    mine.write(edited(YAML, (TASK, "  owners: [ann]\n" + TASK)))
    assert "owner 'ann'" in complaint(mine)


def test_yaml_that_is_none_is_named_with_file_and_line(mine: Project) -> None:
    mine.write(edited(YAML, ("name: mine", "name: [mine")))
    message = complaint(mine)
    assert "mine/defs.yaml" in message
    assert "line 3" in message


def test_two_pipelines_of_one_name_are_refused(mine: Project) -> None:
    mine.write(f"{YAML}\n---\n{YAML}")
    with pytest.raises(Exception, match="mine"):
        mine.load().resolve_asset_graph()
