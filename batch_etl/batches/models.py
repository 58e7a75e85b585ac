"""Facts about Claude models, and which parameters each would refuse.

Facts are those of docs/batches-api.md (November 2026): section 12 for ids, aliases, limits and
retirement, section 5 for what breaks. Its three rules for thinking come from the API's errors page
as quoted by third parties (September 2026) and are the least sure: ``enabled`` is refused from 4.7
on, ``adaptive`` up to 4.5, ``disabled`` on Opus 5.5, Fable and Mythos 5 and 5.1.

A model that is not listed is not an error here: the API may know more models than we do. Everything
returns findings, sentences that say what the API would refuse and what to do, and leaves the
decision to the caller. In a batch these faults are found only per line, after the create was
accepted (section 6), so they are worth finding at load.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, cast

EMULATED_PREFIX = "emulator:"
"""What the emulator puts before the model's name in its replies."""

LONG_OUTPUT_BETA = "output-300k-2026-03-24"
LONG_OUTPUT_TOKENS = 300_000

MAX_IMAGE_BASE64_BYTES = 10_000_000
"""Of one image as base64 text (section 5: 10 MB; taken as the smaller reading)."""

MAX_IMAGE_SIDE_PX = 8_000
MANY_IMAGES = 20
MAX_SIDE_OF_MANY_PX = 2_000
"""In a request of more than :data:`MANY_IMAGES` images (section 5)."""


@dataclass(frozen=True)
class ModelFacts:
    """What is documented about one model; None where nothing is."""

    id: str
    family: str
    version: tuple[int, int]
    max_output_tokens: int | None
    context_tokens: int | None
    aliases: tuple[str, ...] = ()
    retires: date | None = None
    """The announced last day: the model is deprecated before it and refused after it."""
    retires_not_before: date | None = None

    def is_deprecated(self) -> bool:
        """A retirement date is announced."""
        return self.retires is not None

    def is_retired(self, at: date) -> bool:
        return self.retires is not None and at >= self.retires

    @property
    def takes_structured_outputs(self) -> bool:
        """``output_config.format`` exists from 4.5 on."""
        return self.version >= (4, 5)

    @property
    def takes_forced_tool_choice(self) -> bool:
        """``tool_choice`` any/tool is refused on Fable 5.1+, Opus 5.5 and Sonnet 5.5."""
        if self.family == "fable":
            return self.version < (5, 1)
        return not (self.family in ("opus", "sonnet") and self.version == (5, 5))

    @property
    def takes_prefill(self) -> bool:
        """A last turn by the assistant is refused from 4.6 on."""
        return self.version < (4, 6)

    @property
    def takes_sampling(self) -> bool:
        """``temperature``, ``top_p``, ``top_k``: refused off default on Opus 4.7+ and all 5.x."""
        return self.version < ((4, 7) if self.family == "opus" else (5, 0))

    @property
    def thinking_types(self) -> frozenset[str]:
        """The values of ``thinking.type`` that the model accepts."""
        accepted = {"disabled"}
        accepted |= {"enabled"} if self.version < (4, 7) else set()
        accepted |= {"adaptive"} if self.version >= (4, 6) else set()
        if (self.family, self.version) in _ALWAYS_THINKING:
            accepted.discard("disabled")
        return frozenset(accepted)

    @property
    def max_images(self) -> int | None:
        """Images in one request: 100 with a context of 200k tokens, else 600 (section 5)."""
        if self.context_tokens is None:
            return None
        return 100 if self.context_tokens <= 200_000 else 600

    @property
    def takes_long_output(self) -> bool:
        """Batches may ask for 300k output tokens under the beta (Opus and Sonnet 4.6 and later)."""
        return self.family in ("opus", "sonnet") and self.version >= (4, 6)


_ALWAYS_THINKING = {
    ("opus", (5, 5)),
    *((family, (5, minor)) for family in ("fable", "mythos") for minor in (0, 1)),
    ("fable", (5, 2)),
}


def _big(family: str, major: int, minor: int, not_before: date | None = None) -> ModelFacts:
    name = f"claude-{family}-{major}" + (f"-{minor}" if minor else "")
    return ModelFacts(
        name, family, (major, minor), 128_000, 1_000_000, retires_not_before=not_before
    )


def _dated(
    name: str,
    snapshot: str,
    retires: date | None = None,
    not_before: date | None = None,
) -> ModelFacts:
    """A 4.5 model: its id is an alias of a dated snapshot."""
    return ModelFacts(
        id=f"{name}-{snapshot}",
        family=name.split("-")[1],
        version=(4, 5),
        max_output_tokens=64_000,
        context_tokens=200_000,
        aliases=(name,),
        retires=retires,
        retires_not_before=not_before,
    )


def _gone(name: str, family: str, version: tuple[int, int], retires: date) -> ModelFacts:
    return ModelFacts(name, family, version, None, None, retires=retires)


MODELS: tuple[ModelFacts, ...] = (
    _big("fable", 5, 2),
    _big("mythos", 5, 2),
    _big("haiku", 5, 5),
    _big("sonnet", 5, 5),
    _big("opus", 5, 5),
    _big("fable", 5, 1),
    _big("mythos", 5, 1),
    _big("opus", 5, 0, date(2027, 7, 24)),
    _big("sonnet", 5, 0, date(2027, 6, 30)),
    _big("fable", 5, 0, date(2027, 6, 9)),
    _big("mythos", 5, 0, date(2027, 6, 9)),
    _big("opus", 4, 8, date(2027, 5, 28)),
    _big("opus", 4, 7, date(2027, 4, 16)),
    _big("opus", 4, 6, date(2027, 2, 5)),
    _big("sonnet", 4, 6, date(2027, 2, 17)),
    _dated("claude-haiku-4-5", "20251001", not_before=date(2026, 10, 15)),
    _dated("claude-opus-4-5", "20251101", not_before=date(2026, 11, 24)),
    _dated("claude-sonnet-4-5", "20250929", retires=date(2026, 11, 30)),
    _gone("claude-mythos-preview", "mythos", (4, 6), date(2026, 6, 30)),
    _gone("claude-opus-4-1", "opus", (4, 1), date(2026, 8, 5)),
    _gone("claude-opus-4", "opus", (4, 0), date(2026, 6, 15)),
    _gone("claude-opus-4-0", "opus", (4, 0), date(2026, 6, 15)),
    _gone("claude-sonnet-4", "sonnet", (4, 0), date(2026, 6, 15)),
    _gone("claude-sonnet-4-0", "sonnet", (4, 0), date(2026, 6, 15)),
    _gone("claude-3-haiku", "haiku", (3, 0), date(2026, 4, 20)),
    _gone("claude-3-7-sonnet", "sonnet", (3, 7), date(2026, 2, 19)),
    _gone("claude-3-5-haiku", "haiku", (3, 5), date(2026, 2, 19)),
    _gone("claude-3-opus", "opus", (3, 0), date(2026, 1, 5)),
)
"""Newest first. The last block is retired; its ids also stand for their dated snapshots."""

_BY_NAME = {name: facts for facts in MODELS for name in (facts.id, *facts.aliases)}

PARAMETERS = frozenset(
    (
        *("model", "max_tokens", "messages", "system", "cache_control", "container"),
        *("diagnostics", "inference_geo", "metadata", "output_config", "service_tier"),
        *("stop_sequences", "thinking", "tool_choice", "tools", "temperature", "top_p", "top_k"),
    )
)
"""The top-level fields a line of a batch takes without a beta header (section 5)."""

_NEVER_IN_A_BATCH = {
    "stream": "a batch cannot stream; leave stream out",
    "speed": "fast mode does not exist in batches; leave speed out",
    "store": "batches do not take store; leave it out",
    "previous_thread_event_id": "batches do not take previous_thread_event_id; leave it out",
    "cache_hint": "batches do not take cache_hint; leave it out",
    "context_hint": "batches do not take context_hint; leave it out",
    "fallbacks": "batches do not take fallbacks; leave it out and use a retry with another model",
    "betas": "betas are a header of the whole batch, not a parameter; set them on the endpoint",
    "extra_body": "extra_body belongs to the SDK; write its fields beside the others",
    "extra_headers": "extra_headers belongs to the SDK; headers are set on the endpoint",
    "output_format": "output_format is gone; use output_config.format",
}


def real_name(model: str) -> str:
    """The model a reply stands for: ``emulator:claude-x`` is ``claude-x``."""
    return model.removeprefix(EMULATED_PREFIX)


def known(model: str) -> ModelFacts | None:
    """The facts of a model by id, alias or (for retired ones) dated snapshot; None if unlisted."""
    name = real_name(model)
    facts = _BY_NAME.get(name)
    if facts is None:
        facts = _BY_NAME.get(re.sub(r"-(\d{8}|latest)$", "", name))
        return facts if facts is not None and facts.max_output_tokens is None else None
    return facts


def nearest(model: str) -> str | None:
    """The name in use that looks most like this one, for messages."""
    spelt = re.sub(r"^.*[/:]|^(\w+\.)*anthropic\.", "", real_name(model).lower())
    spelt = re.sub(r"[._\s]+", "-", spelt)
    names = [name for name, facts in _BY_NAME.items() if facts.retires is None]
    matches = difflib.get_close_matches(spelt, names, 1, cutoff=0.5)
    return matches[0] if matches else next((n for n in names if spelt and spelt in n), None)


def check_model(model: str, at: date | None = None) -> list[str]:
    """Why the API would not know the model (on that day, if one is given)."""
    facts = known(model)
    if facts is None:
        near = nearest(model)
        hint = f"; did you mean {near!r}?" if near else ""
        return [f"model {model!r} is not a known model{hint}"]
    if at is not None and facts.is_retired(at):
        return [f"model {model!r} was retired on {facts.retires}; use {successor(facts)!r}"]
    return []


def warn_model(model: str, at: date) -> list[str]:
    """What to know about a model that still answers: its announced end."""
    facts = known(model)
    if facts is None or facts.retires is None or facts.is_retired(at):
        return []
    return [f"model {model!r} retires on {facts.retires}; move to {successor(facts)!r}"]


def successor(facts: ModelFacts) -> str:
    """The newest model of the same family, by the table's order."""
    return next(m.id for m in MODELS if m.family == facts.family and not m.is_deprecated())


def output_limit(model: str, betas: Collection[str] = ()) -> int | None:
    """The most tokens that one answer of the model may have; None where it is not documented."""
    facts = known(model)
    return _output_limit(facts, betas) if facts is not None else None


def _output_limit(facts: ModelFacts, betas: Collection[str]) -> int | None:
    if LONG_OUTPUT_BETA in betas and facts.takes_long_output:
        return LONG_OUTPUT_TOKENS
    return facts.max_output_tokens


def most_images(models: Iterable[str]) -> int | None:
    """How many images a request may have that is put to any of these models."""
    limits = [facts.max_images for facts in map(known, models) if facts is not None]
    return min((limit for limit in limits if limit is not None), default=None)


def check_params(
    model: str,
    params: Mapping[str, Any],
    *,
    at: date | None = None,
    betas: Collection[str] = (),
    anthropic_version: str = "2023-06-01",
) -> list[str]:
    """Why the API would refuse a line with these parameters, one sentence each.

    ``params`` may be partial: what is missing is not reported, but an unlisted field is (unless a
    beta header is sent, which may bring fields of its own). The model itself is checked first, as
    by :func:`check_model`; one that is not known is held to the rules of all models only.
    """
    findings = check_model(model, at)
    findings += _check_fields(params, betas)
    findings += _check_sampling_version(params, anthropic_version)
    findings += _check_shapes(params)
    facts = known(model)
    if facts is not None:
        findings += _check_for_model(facts, params, betas)
    return findings


def _check_fields(params: Mapping[str, Any], betas: Collection[str]) -> Iterator[str]:
    for name, value in params.items():
        if name in _NEVER_IN_A_BATCH:
            if name != "stream" or value is not False:
                yield _NEVER_IN_A_BATCH[name]
        elif name not in PARAMETERS and not betas:
            near = difflib.get_close_matches(name, PARAMETERS, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            yield f"{name!r} is not a parameter of the Messages API{hint}"


def _check_sampling_version(params: Mapping[str, Any], anthropic_version: str) -> Iterator[str]:
    if anthropic_version < "2026-10-21":
        return
    for name in ("temperature", "top_p", "top_k"):
        if name in params:
            yield f"{name} does not exist in API version {anthropic_version}; leave it out"


def _check_shapes(params: Mapping[str, Any]) -> Iterator[str]:
    max_tokens = params.get("max_tokens", 1)
    if not isinstance(max_tokens, int) or isinstance(max_tokens, bool) or max_tokens < 1:
        yield f"max_tokens is {max_tokens!r}; it must be a whole number of at least 1"
    if params.get("service_tier", "auto") not in ("auto", "standard_only"):
        yield "service_tier must be auto or standard_only; a batch is always billed as batch"
    effort = _mapping(params.get("output_config")).get("effort", "low")
    if effort not in ("low", "medium", "high", "xhigh", "max"):
        yield f"output_config.effort is {effort!r}; use low, medium, high, xhigh or max"
    tools = [_mapping(tool) for tool in _list(params.get("tools"))]
    yield from _check_strict([tool for tool in tools if tool.get("strict")])
    choice = _mapping(params.get("tool_choice"))
    named = [tool.get("name") for tool in tools]
    if "tools" in params and choice.get("type") == "tool" and choice.get("name") not in named:
        yield f"tool_choice names the tool {choice.get('name')!r}, which is not among the tools"


def _check_strict(strict: list[Mapping[str, Any]]) -> Iterator[str]:
    if len(strict) > 20:
        yield f"{len(strict)} tools are strict; the API takes at most 20 a request"
    parts = [part for tool in strict for part in _parts(tool.get("input_schema"))]
    optional = sum(
        len(_mapping(part.get("properties"))) - len(_list(part.get("required"))) for part in parts
    )
    unions = sum("anyOf" in part or len(_list(part.get("type"))) > 1 for part in parts)
    for number, limit, what in ((optional, 24, "optional"), (unions, 16, "of several types")):
        if number > limit:
            yield (
                f"{number} properties of strict tools are {what}; the API takes at most {limit} a "
                "request: make them required, or simpler"
            )


def _parts(schema: Any) -> Iterator[Mapping[str, Any]]:
    """A schema and all that stand in it."""
    node = _mapping(schema)
    if not node:
        return
    yield node
    inner = [*_mapping(node.get("properties")).values(), node.get("items")]
    for child in [*inner, *_list(node.get("anyOf")), *_mapping(node.get("$defs")).values()]:
        yield from _parts(child)


def _check_for_model(
    facts: ModelFacts, params: Mapping[str, Any], betas: Collection[str]
) -> Iterator[str]:
    yield from _check_max_tokens(facts, params, betas)
    yield from _check_output(facts, params)
    yield from _check_thinking(facts, params)
    if not facts.takes_sampling:
        for name in _off_default(params):
            yield f"{facts.id} refuses {name}; leave it out"
    choice = _mapping(params.get("tool_choice")).get("type")
    thinking = _mapping(params.get("thinking")).get("type")
    if choice in ("any", "tool") and thinking == "enabled":
        yield f"a forced tool_choice ({choice}) does not go with thinking.type 'enabled'; drop one"
    if choice in ("any", "tool") and not facts.takes_forced_tool_choice:
        yield f"{facts.id} refuses a forced tool_choice ({choice}); use output_config.format"


def _check_max_tokens(
    facts: ModelFacts, params: Mapping[str, Any], betas: Collection[str]
) -> Iterator[str]:
    limit = _output_limit(facts, betas)
    max_tokens = params.get("max_tokens")
    if limit is not None and isinstance(max_tokens, int) and max_tokens > limit:
        yield f"max_tokens is {max_tokens}; {facts.id} writes at most {limit}"


def _check_output(facts: ModelFacts, params: Mapping[str, Any]) -> Iterator[str]:
    has_format = "format" in _mapping(params.get("output_config"))
    if has_format and not facts.takes_structured_outputs:
        yield f"{facts.id} has no structured outputs; use a model from 4.5 on"
    if has_format and _asks_for_citations(params.get("messages")):
        yield "output_config.format does not go with citations; leave the schema or citations out"
    messages = _list(params.get("messages"))
    if messages and _mapping(messages[-1]).get("role") == "assistant":
        if not facts.takes_prefill:
            yield f"{facts.id} refuses a last turn by the assistant (prefill); leave it out"
        elif has_format:
            yield "output_config.format does not go with a prefilled assistant turn; drop one"


def _check_thinking(facts: ModelFacts, params: Mapping[str, Any]) -> Iterator[str]:
    kind = _mapping(params.get("thinking")).get("type")
    if kind is not None and kind not in facts.thinking_types:
        accepted = " or ".join(sorted(facts.thinking_types))
        yield f"{facts.id} refuses thinking.type {kind!r}; use {accepted}, or leave thinking out"


def _asks_for_citations(messages: Any) -> bool:
    """Whether a document of any turn has its citations enabled (never with a format: section 5)."""
    contents = [_mapping(turn).get("content") for turn in _list(messages)]
    blocks = [_mapping(block) for content in contents for block in _list(content)]
    return any(_mapping(block.get("citations")).get("enabled") for block in blocks)


def _off_default(params: Mapping[str, Any]) -> list[str]:
    """Sampling parameters given; only temperature's default (1) is documented."""
    given = [name for name in ("temperature", "top_p", "top_k") if params.get(name) is not None]
    return [name for name in given if name != "temperature" or params[name] != 1]


def _mapping(value: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []
