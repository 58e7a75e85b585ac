"""What a create call leaves in memory once it is over: nothing of the payload."""

from __future__ import annotations

import gc
import weakref

from batch_etl.batches.client import Client
from batch_etl.batches.packing import Payload, Room
from batch_etl.batches.request import new_token
from batch_etl.batches.task import Packing
from batch_etl.emulator.server import running

_PARAMS = b'{"model":"claude-haiku-4-5","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}'


def test_a_payload_is_freed_as_soon_as_it_was_sent_without_the_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        with (
            running() as url,
            Client(url, api_key="a-key-for-tests", allow_emulator=True) as client,
        ):
            payload = Payload(new_token(), Room(Packing()))
            payload.add(_PARAMS)
            alive = weakref.ref(payload)
            client.create_batch(payload)
            del payload
            assert alive() is None
    finally:
        gc.enable()
