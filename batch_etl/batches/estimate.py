"""What requests will cost, told before they are sent, and what each figure rests on.

    input    tokens of a sample, counted by the API (count_tokens: free), by its bytes; a tenth is
             added, unless all requests were counted. Where the API does not count: a token a byte,
             and no token is shorter
    output   what this pipeline's latest answers of the model had on average, and a quarter more
             (those of the same task where they are enough); without enough of them max_tokens,
             which no answer can exceed
    price    the batch price of today, of the largest request's band; with prompt caching every
             token of the prompt is taken to be written to the cache, the dearest that can happen

An estimate is meant to be above the bill: it is what budgets reserve. Its ``bound`` is the same
with max_tokens for every answer. Both are None where the price is not known, never zero.

A *forecast* is linear in requests and bytes, so the parts of a plan add up to the whole.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import msgspec

from batch_etl.batches.client import Client
from batch_etl.batches.errors import ApiError
from batch_etl.batches.outcome import BILLED
from batch_etl.batches.pricing import PICO_USD, ModelRates, PriceList, bound_usd
from batch_etl.batches.reservations import Written
from batch_etl.batches.task import Task

_COUNTED_PARAMS = (
    "model",
    "messages",
    "system",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "cache_control",
)
"""What count_tokens takes (SDK 2.12, both API versions)."""

_OF_THE_REQUEST = (400, 413)
"""Refusals of one request, after which the API may count another."""

_INPUT_MARGIN = Fraction(11, 10)
_OUTPUT_MARGIN = Fraction(5, 4)
_ENOUGH_ANSWERS = 50
_CALLS_AT_ONCE = 4


@dataclass(frozen=True)
class Estimate:
    """The price of requests, and its reasons."""

    claude_model: str
    requests: int
    input_tokens: int
    output_tokens: int
    cost_pico_usd: int | None
    bound_pico_usd: int | None
    """With ``max_tokens`` for every answer."""
    input_basis: str
    output_basis: str
    price_basis: str

    @property
    def what(self) -> str:
        """The requests and their tokens, in words."""
        if not self.requests:
            return "nothing"
        one_in = math.ceil(self.input_tokens / self.requests)
        one_out = math.ceil(self.output_tokens / self.requests)
        return (
            f"{self.requests:,} request(s) of {one_in:,} input and {one_out:,} output tokens each "
            f"to {self.claude_model}"
        )


@dataclass(frozen=True)
class Per:
    """A number of tokens a unit (a byte, a request), and what it rests on."""

    tokens: Fraction
    basis: str


@dataclass(frozen=True)
class Forecast:
    """What requests of one kind cost, by their number and their bytes."""

    claude_model: str
    max_tokens: int
    per_byte: Per
    per_answer: Per
    input_pico_usd: int | None
    output_pico_usd: int | None
    price_basis: str

    def cost(self, requests: int, params_bytes: int) -> Fraction | None:
        """Pico-dollars, not rounded."""
        return self._cost(requests, params_bytes, self.per_answer.tokens)

    def _cost(self, requests: int, params_bytes: int, answer: Fraction) -> Fraction | None:
        if self.input_pico_usd is None or self.output_pico_usd is None:
            return None if requests else Fraction(0)
        prompts = self.per_byte.tokens * params_bytes * self.input_pico_usd
        return prompts + answer * requests * self.output_pico_usd

    def of(self, requests: int, params_bytes: int) -> Estimate:
        cost = self.cost(requests, params_bytes)
        bound = self._cost(requests, params_bytes, Fraction(self.max_tokens))
        return Estimate(
            claude_model=self.claude_model,
            requests=requests,
            input_tokens=math.ceil(self.per_byte.tokens * params_bytes),
            output_tokens=math.ceil(self.per_answer.tokens * requests),
            cost_pico_usd=None if cost is None else math.ceil(cost),
            bound_pico_usd=None if bound is None else math.ceil(bound),
            input_basis=self.per_byte.basis,
            output_basis=self.per_answer.basis,
            price_basis=self.price_basis,
        )


@dataclass(frozen=True)
class Kind:
    """Requests of one model and limit: how many, how large, and a few of them."""

    claude_model: str
    max_tokens: int
    requests: int
    params_bytes: int
    largest_bytes: int
    sample: Sequence[bytes]
    """Parameters as sent."""


def forecast(
    kind: Kind,
    task: Task,
    *,
    client: Client,
    prices: PriceList,
    written: Iterable[Written],
    at: dt.datetime,
) -> Forecast:
    """What requests of this kind cost; asks the API to count their sample."""
    per_byte = input_tokens(client, kind, task.betas)
    most = math.ceil(per_byte.tokens * kind.largest_bytes)
    rates = prices.batch_rates(
        kind.claude_model, at, inference_geo=task.params.get("inference_geo")
    )
    ttl = task.cache_ttl
    return Forecast(
        claude_model=kind.claude_model,
        max_tokens=kind.max_tokens,
        per_byte=per_byte,
        per_answer=output_tokens(kind.max_tokens, task.fingerprint, written),
        input_pico_usd=None if rates is None else _dearest_input(rates, most, ttl),
        output_pico_usd=None if rates is None else rates.for_prompt(most).output_pico_usd,
        price_basis=_price_basis(rates, ttl),
    )


def _dearest_input(rates: ModelRates, prompt_tokens: int, ttl: Literal["5m", "1h"] | None) -> int:
    """Pico-dollars for one token of such a prompt, whatever becomes of it."""
    flat = replace(rates, base=rates.for_prompt(prompt_tokens), long_prompt=None)
    return int(bound_usd(flat, 1, 0, cache_ttl=ttl) * PICO_USD)


def _price_basis(rates: ModelRates | None, ttl: str | None) -> str:
    if rates is None:
        return "unknown: no price for this model"
    cached = f", prompts as written to the cache for {ttl}" if ttl else ""
    return f"batch price of today ({rates.basis}){cached}"


# input ------------------------------------------------------------------------------------------


def input_tokens(client: Client, kind: Kind, betas: Sequence[str]) -> Per:
    """Tokens a byte of parameters, counted on the sample."""
    if not kind.sample:
        return Per(Fraction(0), "nothing is sent")
    counted: list[tuple[int, int]] = []
    failed: ApiError | None = None
    for at, params in enumerate(kind.sample):
        try:
            counted.append((_counted(client, params, betas), len(params)))
        except ApiError as error:
            failed = failed or error
            if error.status not in _OF_THE_REQUEST:
                break
            continue
        rest = _counted_all(client, kind.sample[at + 1 :], betas)
        counted += [pair for pair in rest if pair is not None]
        break
    if not counted:
        why = type(failed).__name__ + (f", {failed.status}" if failed and failed.status else "")
        return Per(Fraction(1), f"at most one token a byte: count_tokens failed ({why})")
    exact = len(counted) == kind.requests
    tokens = Fraction(sum(n for n, _ in counted), sum(size for _, size in counted))
    if exact:
        return Per(tokens, "count_tokens of every request")
    return Per(
        tokens * _INPUT_MARGIN,
        f"count_tokens of {len(counted)} of {kind.requests:,} requests, by bytes, and 10% more",
    )


def _counted_all(
    client: Client, sample: Sequence[bytes], betas: Sequence[str]
) -> list[tuple[int, int] | None]:
    """(tokens, bytes) of each; None where the API would not count one."""

    def one(params: bytes) -> tuple[int, int] | None:
        try:
            return _counted(client, params, betas), len(params)
        except ApiError:
            return None

    if not sample:
        return []
    with ThreadPoolExecutor(_CALLS_AT_ONCE) as pool:
        return list(pool.map(one, sample))


def _counted(client: Client, params: bytes, betas: Sequence[str]) -> int:
    decoded: dict[str, Any] = msgspec.json.decode(params)
    body = {name: decoded[name] for name in _COUNTED_PARAMS if name in decoded}
    return client.count_tokens(body, betas)


# output -----------------------------------------------------------------------------------------


def output_tokens(max_tokens: int, fingerprint: str, written: Iterable[Written]) -> Per:
    """Tokens an answer: the mean of earlier ones and a quarter more, else ``max_tokens``."""
    history = list(written)
    same = [one for one in history if one.fingerprint == fingerprint]
    for batches, whose in ((same, "this task"), (history, "this pipeline")):
        answers = sum(one.outcomes.get(kind, 0) for one in batches for kind in BILLED)
        if answers < _ENOUGH_ANSWERS:
            continue
        mean = Fraction(sum(one.output_tokens for one in batches), answers)
        if mean * _OUTPUT_MARGIN >= max_tokens:
            break
        basis = f"mean of {answers:,} answers to {whose} ({float(mean):.1f}), and 25% more"
        return Per(mean * _OUTPUT_MARGIN, basis)
    return Per(Fraction(max_tokens), f"max_tokens ({max_tokens:,}) for every answer")
