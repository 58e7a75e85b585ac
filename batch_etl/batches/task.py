"""What is asked of each record, and the fingerprint of everything that changes the answer.

A task is the part of a pipeline's YAML that the model sees. It is checked whole at load, before any
record is read: unknown keys, a template that does not parse, a schema the API would refuse, a
parameter the Batches API does not take. What is left for later is only what depends on a record.

The fingerprint covers model, limits on the answer, system, prompt, schema, parameters and betas.
How requests are packed, how often and how they are tried again, which conditions an answer must
meet and what the pipeline is called are not in it: changing those buys nothing again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import jinja2
import msgspec
import pydantic

from batch_etl.batches import label_files
from batch_etl.batches.attachments import Attachment
from batch_etl.batches.conditions import Condition, Conditions
from batch_etl.batches.models import check_model, check_params
from batch_etl.batches.schema import OutputSchema
from batch_etl.batches.schema_place import PlaceError
from batch_etl.batches.template import Template
from batch_etl.batches.turns import Example
from batch_etl.errors import ConfigError
from batch_etl.strict import Strict, did_you_mean

API_MAX_REQUESTS = 100_000
"""Requests the API takes in one batch (limits page, August 2026; 10,000 at launch)."""

API_MAX_BYTES = 256_000_000
"""Bytes the API takes in one create call (limits page, August 2026: 256 MB; 32 MB at launch)."""

PASSED_THROUGH = frozenset(
    {
        "cache_control",
        "container",
        "diagnostics",
        "inference_geo",
        "metadata",
        "output_config",
        "service_tier",
        "stop_sequences",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
        "top_p",
    }
)
"""Messages parameters that a task may set under ``params`` (SDK 2.12 types, both API versions)."""

API_MAX_CACHE_MARKS = 4
"""Blocks with a ``cache_control`` in one request (prompt caching page)."""

ANSWER_TOOL = "answer"
"""The tool whose input is the answer, where a task asks so."""

_OWN_KEYS = {
    "model": "claude_model",
    "max_tokens": "max_tokens",
    "messages": "prompt",
    "system": "system",
}

_REFUSED = {
    "stream": "a batch cannot be streamed",
    "speed": "fast mode is not available in batches",
    "store": "not available in batches",
    "fallbacks": "not available in batches",
}


class Packing(Strict):
    """How many requests and bytes go into one batch; smaller batches end sooner."""

    max_requests: Annotated[int, pydantic.Field(ge=1, le=API_MAX_REQUESTS)] = API_MAX_REQUESTS
    max_bytes: Annotated[int, pydantic.Field(ge=1_000, le=API_MAX_BYTES)] = API_MAX_BYTES


class Retry(Strict):
    """What is asked after an answer that was paid for and cannot be used.

    What was free and may pass (expired, cancelled, missing, the API's own fault) is always sent
    again as it was. ``max_attempts`` limits all sends of a question, whatever their cause.
    """

    invalid: Literal["repair", "again", "review"] = pydantic.Field(
        default="repair",
        description="No JSON, or not what the schema allows: `repair` asks again with the faulty "
        "answer and its problems as further turns, `again` asks as before.",
    )
    truncated: Literal["more_tokens", "review"] = pydantic.Field(
        default="more_tokens",
        description="Cut off at max_tokens: `more_tokens` asks again with more of them. An answer "
        "that filled the model's context goes to review.",
    )
    refused: Literal["review", "stronger_model"] = pydantic.Field(
        default="review",
        description="Declined by the model: `stronger_model` asks the next of `stronger_models`.",
    )
    stronger_models: tuple[str, ...] = pydantic.Field(
        default=(),
        description="Model ids: after the n-th answer that could not be used the n-th is asked, "
        "the last one from then on. Without any, `claude_model` is asked each time.",
    )
    max_tokens_factor: Annotated[float, pydantic.Field(gt=1, le=100)] = pydantic.Field(
        default=2, description="What `more_tokens` multiplies max_tokens by, each time."
    )
    max_tokens_limit: Annotated[int, pydantic.Field(ge=1)] | None = pydantic.Field(
        default=None,
        description="Where `more_tokens` stops; without it, at the model's own limit.",
    )

    @pydantic.model_validator(mode="after")
    def _there_is_somebody_to_ask(self) -> Retry:
        if self.refused == "stronger_model" and not self.stronger_models:
            raise ValueError("refused is stronger_model, so stronger_models must name one at least")
        return self


class Task(Strict):
    """One question put to the model for every record."""

    claude_model: str = pydantic.Field(description="Model id, for example claude-haiku-4-5.")
    max_tokens: Annotated[int, pydantic.Field(ge=1)] = pydantic.Field(
        description="Most tokens one answer may have; also the bound for its price."
    )
    conversation: str | None = pydantic.Field(
        default=None,
        description="Column with a list of {role, content}, turns that stand before the prompt.",
    )
    prompt: str | None = pydantic.Field(
        default=None,
        validate_default=True,
        description="Jinja2 template of the user turn; the record's columns are its variables. "
        "Required, unless a conversation's last turn is the question.",
    )
    attachments: tuple[Attachment, ...] = pydantic.Field(
        default=(),
        description="Images and documents that stand before the prompt in the user turn.",
    )
    examples: tuple[Example, ...] = pydantic.Field(
        default=(), description="Questions and answers that stand before each record's own."
    )
    system: str | list[dict[str, Any]] | None = pydantic.Field(
        default=None, description="System prompt, the same for all records: text or content blocks."
    )
    output_schema: dict[str, Any] | str | None = pydantic.Field(
        default=None,
        description="JSON Schema of the answer, or the dotted path of a pydantic model. "
        "Without it the answer is free text.",
    )
    answer_from: Literal["text", "tool"] = pydantic.Field(
        default="text",
        description="`tool`: the answer is the input of a tool that the model has to call, "
        "instead of structured output; not all models take that.",
    )
    conditions: tuple[Condition, ...] = pydantic.Field(
        default=(),
        description="What an answer must meet beyond its schema, as expressions over it and the "
        "record; one that fails is Invalid.",
    )
    params: dict[str, Any] = pydantic.Field(
        default_factory=dict, description="Further Messages parameters, passed through as they are."
    )
    betas: tuple[str, ...] = pydantic.Field(
        default=(), description="anthropic-beta values; they apply to every request of a batch."
    )
    packing: Packing = pydantic.Field(default=Packing(), description="Limits of one batch.")
    max_attempts: Annotated[int, pydantic.Field(ge=1, le=10)] = pydantic.Field(
        default=3, description="How often a request is sent before its record goes to review."
    )
    retry: Retry = pydantic.Field(
        default=Retry(), description="What is asked after an answer that cannot be used."
    )
    prime_cache: bool = pydantic.Field(
        default=False,
        description="Send one request ahead of the others, so that they can read the prompt cache.",
    )
    allow_unknown_model: bool = pydantic.Field(
        default=False, description="Send a model id that this version does not know."
    )

    @pydantic.field_validator("prompt")
    @classmethod
    def _prompt_parses(cls, source: str | None, told: pydantic.ValidationInfo) -> str | None:
        if source is None:
            if told.data.get("conversation") is None:
                raise ValueError("required, unless there is a `conversation` to answer")
            return None
        if not source.strip():
            raise ValueError("the prompt is empty")
        try:
            Template(source)
        except jinja2.TemplateSyntaxError as error:
            raise ValueError(f"template line {error.lineno}: {error.message}") from None
        return source

    @pydantic.field_validator("system")
    @classmethod
    def _system_is_constant(cls, system: Any) -> Any:
        text = system if isinstance(system, str) else msgspec.json.encode(system).decode()
        if "{{" in text or "{%" in text:
            raise ValueError(
                "the system prompt is sent as it is, the same for all records (so that it can be "
                "cached), and cannot hold {{ }} or {% %}; move what varies to `prompt`"
            )
        return system

    @pydantic.field_validator("params")
    @classmethod
    def _params_are_the_apis(cls, params: dict[str, Any]) -> dict[str, Any]:
        for key in params:
            if key in _REFUSED:
                raise ValueError(f"{key!r}: {_REFUSED[key]}; remove it")
            if key in _OWN_KEYS:
                raise ValueError(f"{key!r} belongs in the task's own key `{_OWN_KEYS[key]}`")
            if key not in PASSED_THROUGH:
                known = set(PASSED_THROUGH)
                raise ValueError(f"{key!r} is no Messages parameter{did_you_mean(key, known)}")
        output_config = params.get("output_config")
        if isinstance(output_config, dict) and "format" in output_config:
            raise ValueError("output_config.format is made from `output_schema`; set that instead")
        return params

    @pydantic.model_validator(mode="after")
    def _the_api_would_take_it(self) -> Task:
        try:
            _ = self.answer_schema
        except ConfigError as error:
            raise ValueError(str(error)) from None
        refused = self._refused_by(self.claude_model)
        for place, model in enumerate(self.retry.stronger_models):
            where = f"retry.stronger_models.{place}"
            refused += [f"{where}: {finding}" for finding in self._refused_by(model)]
        refused += self._unanswerable()
        refused += self._unmeetable()
        limit = self.retry.max_tokens_limit
        if limit is not None and limit < self.max_tokens:
            refused.append(
                f"retry.max_tokens_limit: {limit} is below max_tokens ({self.max_tokens}), with "
                "which the first attempt is sent; raise it, or leave it out"
            )
        if self.prime_cache and self.cache_ttl is None:
            refused.append(
                "prime_cache: the task has no cache_control, so there is no prompt cache to prime; "
                "put one on a block of `system` or on a tool, or remove prime_cache"
            )
        if len(self._marks) > API_MAX_CACHE_MARKS:
            refused.append(
                f"{len(self._marks)} blocks have a cache_control, and the API takes "
                f"{API_MAX_CACHE_MARKS} a request; keep those of the longest prefixes"
            )
        if refused:
            raise ValueError("; ".join(refused))
        return self

    def _unanswerable(self) -> Iterator[str]:
        """What examples and tools cannot be, given the schema."""
        schema = self.answer_schema
        for number, example in enumerate(self.examples):
            problems = schema.check_text(example.answer).problems if schema is not None else ()
            if problems and not self._label_files:
                yield f"examples.{number}.assistant: {'; '.join(problems)}"
        if self.answer_from == "tool":
            tools = cast("list[Any]", self.params.get("tools") or [])
            own = [cast("dict[str, Any]", tool) for tool in tools if isinstance(tool, dict)]
            names = [tool.get("name") for tool in own]
            if schema is None:
                yield "answer_from: a tool has an input that a schema describes; add output_schema"
            if "tool_choice" in self.params:
                yield "answer_from: tool sets params.tool_choice itself; remove that"
            if ANSWER_TOOL in names:
                yield f"answer_from: tool adds a tool {ANSWER_TOOL!r}; rename the one in params"

    def _unmeetable(self) -> Iterator[str]:
        """Fields of the answer that conditions take and the schema does not have."""
        if self.answer_schema is None:
            return
        known = list(self.answer_schema.resolved["properties"])
        for number, condition in enumerate(self.conditions):
            for name in sorted(condition.used.fields - set(known)):
                near = did_you_mean(name, known)
                yield f"conditions.{number}: output.{name} is no property of output_schema{near}"

    def _refused_by(self, model: str) -> list[str]:
        """Why the API would refuse this task's parameters for a model."""
        cites = [{"citations": {"enabled": one.citations}} for one in self.attachments]
        findings = check_params(
            model,
            {
                "tools": [],
                **self.params,
                **self._answer_tool,
                "max_tokens": self.max_tokens,
                "messages": [{"role": "user", "content": cites}],
                **({"output_config": self.output_config} if self.output_config else {}),
            },
            betas=self.betas,
        )
        allowed = check_model(model) if self.allow_unknown_model else []
        return [finding for finding in findings if finding not in allowed]

    @cached_property
    def answer_schema(self) -> OutputSchema | None:
        """The answer's schema in its local and its API-legal form."""
        if self.output_schema is None:
            return None
        spec = self.output_schema
        if self._label_files:
            spec = label_files.without_files(cast("dict[str, Any]", spec))
        return OutputSchema.load(spec, "output_schema")

    @cached_property
    def _label_files(self) -> list[str]:
        """Files that the schema's enums are still to be read from: see :meth:`anchored`."""
        try:
            return label_files.named_in(self.output_schema)
        except PlaceError as fault:
            raise ConfigError(f"output_schema: {fault}") from None

    def anchored(self, folder: Path) -> Task:
        """The task with the labels of all files that its schema names, relative to ``folder``.

        A task that names files can be checked before, and not be sent. Raises ``ConfigError``.
        """
        if not self._label_files:
            return self
        try:
            spec = label_files.with_labels(cast("dict[str, Any]", self.output_schema), folder)
        except PlaceError as fault:
            raise ConfigError(f"task.output_schema: {fault}") from None
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return Task.load({**given, "output_schema": spec}, "task")

    @cached_property
    def cache_ttl(self) -> Literal["5m", "1h"] | None:
        """The longest time to live that a ``cache_control`` asks for; None without any."""
        found = {*self._marks, *_ttls({"cache_control": self.params.get("cache_control")})}
        return None if not found else "1h" if "1h" in found else "5m"

    @cached_property
    def _marks(self) -> list[str]:
        """The time to live of each ``cache_control`` on a block."""
        blocks = [one.user for one in self.examples]
        controls = [{"cache_control": one.cache_control} for one in self.attachments]
        rest = {name: value for name, value in self.params.items() if name != "cache_control"}
        return list(_ttls([self.system, rest, *blocks, *controls]))

    @cached_property
    def template(self) -> Template:
        """Of the prompt; where there is none, of nothing."""
        return Template(self.prompt or "")

    @cached_property
    def must_meet(self) -> Conditions | None:
        """The conditions, compiled; None where there are none."""
        return Conditions(self.conditions) if self.conditions else None

    def asks_with(self, available: Sequence[str]) -> list[str]:
        """Those of the available columns that its requests are made from."""
        if self.template.uses_record:
            return list(available)
        others = [name for one in self.attachments for name in one.columns]
        used = {*self.template.names, *others, self.conversation}
        return [name for name in available if name in used]

    @cached_property
    def output_config(self) -> dict[str, Any]:
        """``output_config`` as sent: the user's own keys (effort) and the schema's format."""
        config = dict(self.params.get("output_config") or {})
        if self.answer_schema is not None and self.answer_from == "text":
            config["format"] = {"type": "json_schema", "schema": self.answer_schema.api}
        return config

    @cached_property
    def _answer_tool(self) -> dict[str, Any]:
        """``tools`` and ``tool_choice`` as sent, where the answer is a tool's input."""
        if self.answer_from != "tool" or self.answer_schema is None:
            return {}
        tool = {
            "name": ANSWER_TOOL,
            "description": "Takes the answer.",
            "input_schema": self.answer_schema.api,
            "strict": True,
        }
        tools = [*(self.params.get("tools") or ()), tool]
        return {"tools": tools, "tool_choice": {"type": "tool", "name": ANSWER_TOOL}}

    @cached_property
    def constant_params(self) -> dict[str, Any]:
        """All parameters but ``messages``, in the order they are sent."""
        if self._label_files:
            raise ConfigError(
                f"task.output_schema: {self._label_files[0]} has not been read; use "
                "Task.anchored(folder)"
            )
        constant: dict[str, Any] = {"model": self.claude_model, "max_tokens": self.max_tokens}
        if self.system is not None:
            constant["system"] = self.system
        given = {**self.params, **self._answer_tool}
        constant.update({key: given[key] for key in sorted(given) if key != "output_config"})
        if self.output_config:
            constant["output_config"] = self.output_config
        return constant

    @cached_property
    def definition(self) -> dict[str, Any]:
        """All that changes the answer, as plain JSON; the ledger keeps it to say what changed."""
        return {
            "params": self.constant_params,
            "prompt": self.prompt,
            "betas": list(self.betas),
            "schema": self.answer_schema.source if self.answer_schema else None,
            **self._further_definition,
        }

    @property
    def _further_definition(self) -> dict[str, Any]:
        """Keys that a task without them does not have, so that its fingerprint stays."""
        further: dict[str, Any] = {
            "attachments": [one.model_dump(exclude_defaults=True) for one in self.attachments],
            "examples": [one.model_dump() for one in self.examples],
            "conversation": self.conversation,
            "answer_from": None if self.answer_from == "text" else self.answer_from,
        }
        return {name: value for name, value in further.items() if value}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of :attr:`definition`: equal fingerprints mean equal bytes sent.

        The order of a schema's keys counts: the model answers in it, and it is in the request_key.
        """
        return hashlib.sha256(msgspec.json.encode(self.definition)).hexdigest()

    @property
    def version(self) -> str:
        """The fingerprint's first 12 characters: what tables show."""
        return self.fingerprint[:12]


def schema_of(definition: Mapping[str, Any]) -> OutputSchema | None:
    """The answer's schema of a task of which there is only its :attr:`Task.definition`."""
    source = definition["schema"]
    if not source:
        return None
    schema = OutputSchema.load(source, "schema")
    return replace(schema, tool=ANSWER_TOOL if definition.get("answer_from") == "tool" else None)


def _ttls(value: Any) -> Iterator[str]:
    """``ttl`` of each ``cache_control`` anywhere in a JSON value."""
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        control = members.get("cache_control")
        if isinstance(control, dict):
            yield str(cast("dict[str, Any]", control).get("ttl", "5m"))
        yield from _ttls(list(members.values()))
    elif isinstance(value, list):
        for inner in cast("list[Any]", value):
            yield from _ttls(inner)
