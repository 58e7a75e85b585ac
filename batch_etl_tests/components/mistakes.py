"""What users get wrong, each with the words that their error must have.

Run through Dagster in process by ``test_bad_input`` and through the real command by
``acceptance/test_run_command``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from batch_etl_tests.components.make import NOTES, YAML, edited
from batch_etl_tests.scripted_server import ScriptedServer, answer, error

HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please</body></html>"


@dataclass(frozen=True)
class Mistake:
    """``words``: all must be in the message. ``at``: where it shows."""

    words: list[str]
    changes: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    files: dict[str, str | bytes] = field(
        default_factory=lambda: dict[str, str | bytes]({"notes.csv": NOTES})
    )
    at: Literal["load", "records", "results"] = "records"
    server: Literal["none", "wrong key", "html", "down"] = "none"

    @property
    def yaml(self) -> str:
        return edited(YAML, *self.changes)


MISTAKES = {
    "missing file": Mistake(
        ["no file 'notes.csv'", "did you mean 'notes-1.csv'?", "Correct `path`"],
        files={"notes-1.csv": NOTES},
    ),
    "empty file": Mistake(
        ["notes.csv", "empty"],
        files={"notes.csv": ""},
    ),
    "wrong id column": Mistake(
        ["id: there is no column 'noteid'", "did you mean 'note_id'?", "note_id, written_on, text"],
        [("id: note_id", "id: noteid")],
    ),
    "duplicate ids": Mistake(
        ["'n1' 2 times", "notes.csv record 1", "notes.csv record 6", "on_duplicate"],
        files={"notes.csv": NOTES + "n1,2026-11-03,again\n"},
    ),
    "missing id": Mistake(
        ["id: column 'note_id' is empty in", "notes.csv record 6", "fill it in"],
        files={"notes.csv": NOTES + ",2026-11-03,again\n"},
    ),
    "broken CSV": Mistake(
        ["notes.csv", "line 3", "never closed", "double the quotes"],
        files={"notes.csv": 'note_id,text\na,fine\nb,"never closed\n'},
    ),
    "not UTF-8": Mistake(
        ["notes.csv", "utf-8", "encoding"],
        files={"notes.csv": "note_id,text\na,Grüße\n".encode("latin-1")},
    ),
    "undefined field in the template": Mistake(
        ["pipeline 'mine'", "the field 'txt'", "did you mean 'text'?", "Correct the prompt"],
        [("{{ text }}", "{{ txt }}")],
        at="results",
    ),
    "invalid schema": Mistake(
        ["defs.yaml", "output_schema", "/properties/kind/type", "unknown type 'bool'"],
        [("type: boolean", "type: bool")],
        at="load",
    ),
    "unknown model": Mistake(
        ["defs.yaml", "'claude-haiku-45' is not a known model", "did you mean 'claude-haiku-4-5'?"],
        [("claude-haiku-4-5", "claude-haiku-45")],
        at="load",
    ),
    "unknown YAML key": Mistake(
        ["defs.yaml", "attributes.task", "unknown key 'promt'", "did you mean 'prompt'?"],
        [("    prompt:", "    promt: a\n    prompt:")],
        at="load",
    ),
    "wrong key": Mistake(
        ["401 authentication_error", "req_scripted", "Check that the API key is whole"],
        at="results",
        server="wrong key",
    ),
    "server answering HTML": Mistake(
        ["answered 200 with", "HTML", "not the Message Batches API", "Check the base URL"],
        at="results",
        server="html",
    ),
    "server down": Mistake(
        ["no connection to 127.0.0.1:", "nothing was sent", "Nothing listens there"],
        at="results",
        server="down",
    ),
}


@contextmanager
def server_of(mistake: Mistake) -> Iterator[ScriptedServer]:
    """The server that Claude's key is sent to."""
    refusal = error(401, "authentication_error", "invalid x-api-key")
    page = answer(200, HTML, {"content-type": "text/html"})
    steps = {"wrong key": refusal, "html": page}
    with ScriptedServer() as server:
        if mistake.server == "down":
            server.close()
        elif mistake.server in steps:
            server.then(*[steps[mistake.server]] * 10)
        yield server
