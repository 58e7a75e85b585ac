"""What is asked of each record, and the fingerprint of everything that changes the answer.

A task is the part of a pipeline's YAML that the model sees. It is checked whole at load, before any
record is read: unknown keys, a template that does not parse, a schema the API would refuse, a
parameter the Batches API does not take. What is left for later is only what depends on a record.

The fingerprint covers model, limits on the answer, system, prompt, schema, parameters and betas.
How requests are packed, how often they are tried and what the pipeline is called are not in it:
changing those buys nothing again.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Annotated, Any

import jinja2
import msgspec
import pydantic

from batch_etl.batches.models import check_model, check_params
from batch_etl.batches.schema import OutputSchema
from batch_etl.batches.template import Template
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


class Task(Strict):
    """One question put to the model for every record."""

    claude_model: str = pydantic.Field(description="Model id, for example claude-haiku-4-5.")
    max_tokens: Annotated[int, pydantic.Field(ge=1)] = pydantic.Field(
        description="Most tokens one answer may have; also the bound for its price."
    )
    prompt: str = pydantic.Field(
        description="Jinja2 template of the user turn; the record's columns are its variables."
    )
    system: str | list[dict[str, Any]] | None = pydantic.Field(
        default=None, description="System prompt, the same for all records: text or content blocks."
    )
    output_schema: dict[str, Any] | str | None = pydantic.Field(
        default=None,
        description="JSON Schema of the answer, or the dotted path of a pydantic model. "
        "Without it the answer is free text.",
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
    allow_unknown_model: bool = pydantic.Field(
        default=False, description="Send a model id that this version does not know."
    )

    @pydantic.field_validator("prompt")
    @classmethod
    def _prompt_parses(cls, source: str) -> str:
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
        findings = check_params(
            self.claude_model,
            {
                **self.params,
                "max_tokens": self.max_tokens,
                **({"output_config": self.output_config} if self.output_config else {}),
            },
            betas=self.betas,
        )
        allowed = check_model(self.claude_model) if self.allow_unknown_model else []
        refused = [finding for finding in findings if finding not in allowed]
        if refused:
            raise ValueError("; ".join(refused))
        return self

    @cached_property
    def answer_schema(self) -> OutputSchema | None:
        """The answer's schema in its local and its API-legal form."""
        if self.output_schema is None:
            return None
        return OutputSchema.load(self.output_schema, "output_schema")

    @cached_property
    def template(self) -> Template:
        return Template(self.prompt)

    @cached_property
    def output_config(self) -> dict[str, Any]:
        """``output_config`` as sent: the user's own keys (effort) and the schema's format."""
        config = dict(self.params.get("output_config") or {})
        if self.answer_schema is not None:
            config["format"] = {"type": "json_schema", "schema": self.answer_schema.api}
        return config

    @cached_property
    def constant_params(self) -> dict[str, Any]:
        """All parameters but ``messages``, in the order they are sent."""
        constant: dict[str, Any] = {"model": self.claude_model, "max_tokens": self.max_tokens}
        if self.system is not None:
            constant["system"] = self.system
        rest = {key: self.params[key] for key in sorted(self.params) if key != "output_config"}
        constant.update(rest)
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
        }

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
