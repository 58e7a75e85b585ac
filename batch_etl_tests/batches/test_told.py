"""What result lines tell, as columns: the same as an outcome each."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batch_etl.batches.outcome import (
    KINDS,
    Block,
    CacheCreation,
    Message,
    Outcome,
    Result,
    Usage,
    outcome_of,
)
from batch_etl.batches.schema import OutputSchema
from batch_etl.batches.told import Few, Reader, Told
from batch_etl_tests.batches.engine import SENTIMENT

SCHEMA = OutputSchema.load(SENTIMENT, "schema")

_words = st.none() | st.sampled_from(["a", "b", "c", ""])
_counts = st.none() | st.integers(0, 10**12)


def facts(told: Told) -> list[tuple[object, ...]]:
    """A row a request, absent numbers as None."""
    tokens = [tuple(None if n < 0 else n for n in row) for row in told.tokens.tolist()]
    few = (told.kinds, told.stop_reasons, told.error_types, told.models)
    columns = [one.array().to_pylist() for one in few]
    lists = (told.reasons, told.outputs, told.texts, told.message_ids)
    return list(zip(*columns, *lists, tokens, strict=True))


@given(st.lists(_words, max_size=6), st.dictionaries(st.integers(0, 5), _words, max_size=4))
def test_a_fact_of_few_words_holds_the_last_word_of_each_place(values, changes):
    changes = {place: word for place, word in changes.items() if place < len(values)}
    few = Few(values)
    few.put(list(changes), list(changes.values()))
    assert few.array().to_pylist() == [changes.get(i, word) for i, word in enumerate(values)]


@given(
    st.lists(
        st.builds(
            Outcome,
            st.sampled_from(KINDS),
            reason=_words,
            output=_words,
            text=_words,
            stop_reason=_words,
            error_type=_words,
            model=_words,
            message_id=_words,
            tokens=st.tuples(_counts, _counts, _counts, _counts, _counts),
        ),
        max_size=5,
    )
)
def test_outcomes_are_told_as_they_are(outcomes):
    assert facts(Told.of(outcomes)) == [
        (o.kind, o.stop_reason, o.error_type, o.model, o.reason, o.output, o.text, o.message_id,
         o.tokens)
        for o in outcomes
    ]  # fmt: skip


_usages = st.builds(
    Usage,
    input_tokens=_counts,
    cache_creation_input_tokens=_counts,
    cache_creation=st.none() | st.builds(CacheCreation, _counts, _counts),
    output_tokens=_counts,
)
_texts = st.none() | st.sampled_from(
    ["", '{"sentiment":"positive"}', '{"sentiment": "positive"}', '{"sentiment":"Positive"}', "no"]
)
_blocks = st.builds(Block, st.sampled_from(["text", "thinking"]), text=_texts, name=st.none())
_messages = st.builds(
    Message,
    id=_words,
    model=_words,
    content=st.none() | st.lists(_blocks, max_size=2),
    stop_reason=st.none() | st.sampled_from(["end_turn", "stop_sequence", "max_tokens", "refusal"]),
    usage=st.none() | _usages,
)
_results = st.builds(
    Result, st.sampled_from(["succeeded", "succeeded", "expired"]), message=st.none() | _messages
)


@given(st.lists(_results, max_size=8), st.booleans())
def test_results_read_together_tell_what_each_tells_alone(results, checked):
    schema = SCHEMA if checked else None
    alone = Told.of([outcome_of(result, schema) for result in results])
    assert facts(Reader(schema).told(results)) == facts(alone)
