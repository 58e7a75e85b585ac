"""A Message Batches API on loopback: state, time, answers and failures of our own making.

Start it with ``python -m batch_etl.emulator`` or, inside a process, with
:func:`batch_etl.emulator.server.running`. Point any client of the API at the address it prints.

What is emulated (facts: Anthropic's documentation and SDK, recorded wire captures): the seven
endpoints (create, retrieve, list, cancel, delete, results, count_tokens), both ways to send the
key, both API versions, every create error and the split between what fails a create and what fails
only a line, the batch object and its life (in_progress, canceling, ended; 24 h expiry, 29 days of
results), result lines of all four types in shuffled order, the error envelope and the headers.

What is not: the model. Answers are put together from the record's own words and the output schema
(``replies``), they are the same for the same question and seed, and they say so: every reply
carries ``x-batch-etl-emulator: 1``, every message has ``model: "emulator:..."``, an id
``msg_emulator_...`` and ``usage.emulated: true``, and token counts are estimates (``tokens``). Text
and the text of PDFs are read; pixels are not, and a message says what was not read (``media``).
Also not emulated: POST /v1/messages, files, rate limits and queue limits (other than as faults),
workspaces, spend, fetching of URLs (such a line errs as if the download had failed). With
``--upstream`` the answers come from a real Anthropic-compatible ``/v1/messages`` endpoint instead.

What only an emulator has lies under ``/_emulator/``: pace, clock, a fault plan, what was received,
and the count of requests billed and billed twice (``control``, ``faults``).

State is durable against the death of the process (SQLite in WAL mode, files written whole before
they are named), not against the loss of power: nothing here was paid for.

The modules, from the ground up (each imports only what stands before it)::

    wire        error envelope, ids, timestamps
    settings    Settings, Pace                       clock       time that can be moved
    models      known models and their limits        shared      parts that lines have in common
    spool       request lines on disk                intake      a create's body -> lines
    schemas     output schemas that the API takes    words       words, stems, names
    records     a prompt -> the record in it         frames      what the lines of a task share
    media/      images and documents: what they are, what of them can be read
    tokens      estimates                            prompt_cache  what is read, what is written
    rules/      what each part of params is held to  lines       params -> why a line errs
    formats     strings of a format or pattern       nodes       a schema's nodes
    answers     a value for each kind of node        replies     schema + record -> answer
    plainest    schema -> its plainest value         tool_calls  a forced tool -> its call
    stops       where an answer ends                 messages    params -> the message
    faults      the fault plan                       stencils    lines of a frame, printed
    outcomes    a line -> its result                 state       SQLite: batches, counters, settings
    upstream    answers from a Messages endpoint     processing  batches -> results files, bill
    emulator    all of it, running                   routes      the seven endpoints
    stage       a call with its faults               control     the control plane
    app         the ASGI application                 server      as a process or a thread
"""
