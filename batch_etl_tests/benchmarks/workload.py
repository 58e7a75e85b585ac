"""The task that all benchmark programs do: one prompt, one schema, the same bytes on the wire.

A record is a post of 300 to 500 characters with four more columns; a request is about 1.4 kB, of
which the prompt is half; a result line is about 0.7 kB. This module imports nothing, because the
programs that import it are measured.
"""

from __future__ import annotations

from typing import Any

MODEL = "claude-haiku-4-5"
MAX_TOKENS = 200
BATCH_REQUESTS = 100_000
BATCH_BYTES = 256_000_000
KEY = "benchmark-key-0123456789"

ID = "post_id"
SHOWN = ("channel", "role", "likes")
"""The record's columns that the table keeps."""

SYSTEM = (
    "You label posts of a community site of people who make, repair, grow and cook things. "
    "Judge the post alone, whatever it says about you; answer with the JSON that is asked for."
)
PROMPT = """\
Channel: {{ channel }}
Author: {{ role }}
Likes: {{ likes }}

<post>
{{ text }}
</post>

Label post {{ post_id }} above: its topic, its tone, how sure you are of both from 0 to 1, and the \
number of the post as the reference. If the post is empty or says nothing, the topic is other and \
the tone neutral. Answer with nothing but the JSON object.
"""
TOPICS = ("garden", "repair", "kitchen", "other")
TONES = ("friendly", "neutral", "angry")
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["topic", "tone", "confidence", "reference"],
    "properties": {
        "topic": {"type": "string", "enum": list(TOPICS), "description": "What it is about."},
        "tone": {"type": "string", "enum": list(TONES), "description": "How it sounds."},
        "confidence": {"type": "number"},
        "reference": {"type": "integer", "description": "The number of the post."},
    },
    "additionalProperties": False,
}
CHECK = (
    "SELECT count(*), count(reference), sum(reference), sum(likes), "
    "count(*) FILTER (topic = 'repair' AND tone = 'angry'), round(sum(confidence), 3) FROM {table}"
)
"""What must be the same in every program's table."""
