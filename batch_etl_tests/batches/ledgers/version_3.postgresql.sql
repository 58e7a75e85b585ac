CREATE TABLE public.alerts (
    event text NOT NULL,
    destination text NOT NULL,
    kind text NOT NULL,
    level text NOT NULL,
    title text NOT NULL,
    message text NOT NULL,
    status text NOT NULL,
    tries integer NOT NULL,
    noted_at timestamp with time zone NOT NULL,
    due_at timestamp with time zone NOT NULL,
    claimed_at timestamp with time zone,
    sent_at timestamp with time zone
);
CREATE TABLE public.batches (
    id text NOT NULL,
    transform_id text NOT NULL,
    endpoint text NOT NULL,
    attempt integer NOT NULL,
    status text NOT NULL,
    requests integer NOT NULL,
    payload_bytes bigint NOT NULL,
    claude_model text NOT NULL,
    batch_id text,
    planned_at timestamp with time zone NOT NULL,
    submitting_at timestamp with time zone,
    submitted_at timestamp with time zone,
    expires_at timestamp with time zone,
    ended_at timestamp with time zone,
    collected_at timestamp with time zone,
    outcomes text,
    input_tokens bigint,
    output_tokens bigint,
    cache_read_tokens bigint,
    cache_write_tokens bigint,
    cost_pico_usd bigint,
    standard_pico_usd bigint,
    reserved_pico_usd bigint,
    deleted_at timestamp with time zone
);
CREATE TABLE public.events (
    id integer NOT NULL,
    at timestamp with time zone NOT NULL,
    transform_id text NOT NULL,
    batch text,
    event text NOT NULL,
    detail text NOT NULL
);
CREATE SEQUENCE public.events_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.events_id_seq OWNED BY public.events.id;
CREATE TABLE public.schema_version (
    version integer NOT NULL
);
CREATE TABLE public.transforms (
    id text NOT NULL,
    pipeline text NOT NULL,
    endpoint text NOT NULL,
    scope text NOT NULL,
    fingerprint text NOT NULL,
    records_digest text NOT NULL,
    task text NOT NULL,
    status text NOT NULL,
    attempt integer NOT NULL,
    counts text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    lease_owner text,
    lease_expires_at timestamp with time zone,
    fence bigint NOT NULL,
    reserved_pico_usd bigint,
    reserved_at timestamp with time zone,
    awaits text
);
ALTER TABLE ONLY public.events ALTER COLUMN id SET DEFAULT nextval('public.events_id_seq'::regclass);
INSERT INTO public.alerts VALUES ('failed_run:r1', 'd1', 'failed_run', 'failure', 'run of ''reviews'' failed', 'Run r1 failed.
Next: ü', 'sent', 1, '2026-11-23 10:02:03.456789+09', '2026-11-23 10:02:03.456789+09', '2026-11-23 11:02:03.456789+09', '2026-11-23 11:02:03.456789+09');
INSERT INTO public.alerts VALUES ('failed_run:r1', 'd2', 'failed_run', 'failure', 'run of ''reviews'' failed', 'Run r1 failed.
Next: ü', 'due', 2, '2026-11-23 10:02:03.456789+09', '2026-11-23 12:02:03.456789+09', '2026-11-23 11:02:03.456789+09', NULL);
INSERT INTO public.alerts VALUES ('completion:t1', 'd1', 'completion', 'info', 'reviews is done', '7 records', 'claimed', 1, '2026-11-23 13:02:03.456789+09', '2026-11-23 13:02:03.456789+09', '2026-11-23 14:02:03.456789+09', NULL);
INSERT INTO public.batches VALUES ('bbbbbbbbbbbbbbbb', '20261123T030034-4e55e79a', 'emulator', 1, 'dropped', 4, 8589934596, 'claude-haiku-4-5', NULL, '2026-11-23 12:00:34.156352+09', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.batches VALUES ('cccccccccccccccc', '20261123T030034-fe8ce045', 'emulator', 1, 'submitting', 5, 8589934597, 'claude-haiku-4-5', NULL, '2026-11-23 12:00:34.175891+09', '2026-11-23 14:02:03.456789+09', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 8796093022208, NULL);
INSERT INTO public.batches VALUES ('aaaaaaaaaaaaaaaa', '20261123T030034-4e55e79a', 'emulator', 1, 'collected', 3, 8589934595, 'claude-haiku-4-5', 'msgbatch_1', '2026-11-23 12:00:34.151971+09', '2026-11-23 10:02:03.456789+09', '2026-11-23 11:02:03.456789+09', '2026-11-24 11:02:03.456789+09', '2026-11-23 12:02:03.456789+09', '2026-11-23 13:02:03.456789+09', '{"Succeeded":2,"Invalid":1}', 2147483649, 2, 3, 4, 1099511627776, 2199023255552, NULL, '2026-11-23 16:02:03.456789+09');
INSERT INTO public.events VALUES (1, '2026-11-23 12:00:34.139215+09', '20261123T030034-4e55e79a', NULL, 'transform created', '{"scope":[null]}');
INSERT INTO public.events VALUES (2, '2026-11-23 12:00:34.141507+09', '20261123T030034-fe8ce045', NULL, 'transform created', '{"scope":["2026-11-01","2026-11-02/ü"]}');
INSERT INTO public.events VALUES (3, '2026-11-23 12:00:34.142643+09', '20261123T030034-2863d52f', NULL, 'transform created', '{"scope":[null]}');
INSERT INTO public.events VALUES (4, '2026-11-23 12:00:34.154173+09', '20261123T030034-4e55e79a', 'aaaaaaaaaaaaaaaa', 'batch planned', '{"requests":3,"bytes":8589934595,"attempt":1}');
INSERT INTO public.events VALUES (5, '2026-11-23 12:00:34.157721+09', '20261123T030034-4e55e79a', 'bbbbbbbbbbbbbbbb', 'batch planned', '{"requests":4,"bytes":8589934596,"attempt":1}');
INSERT INTO public.events VALUES (6, '2026-11-23 12:00:34.160815+09', '20261123T030034-4e55e79a', 'aaaaaaaaaaaaaaaa', 'batch submitting', '{}');
INSERT INTO public.events VALUES (7, '2026-11-23 12:00:34.16334+09', '20261123T030034-4e55e79a', 'aaaaaaaaaaaaaaaa', 'batch submitted', '{"batch_id":"msgbatch_1"}');
INSERT INTO public.events VALUES (8, '2026-11-23 12:00:34.165759+09', '20261123T030034-4e55e79a', 'aaaaaaaaaaaaaaaa', 'batch collected', '{}');
INSERT INTO public.events VALUES (9, '2026-11-23 12:00:34.167776+09', '20261123T030034-4e55e79a', 'bbbbbbbbbbbbbbbb', 'batch dropped', '{"why":"over the limits"}');
INSERT INTO public.events VALUES (10, '2026-11-23 12:00:34.169692+09', '20261123T030034-4e55e79a', NULL, 'transform open', '{"records":7,"sent":3}');
INSERT INTO public.events VALUES (11, '2026-11-23 12:00:34.17163+09', '20261123T030034-4e55e79a', NULL, 'transform done', '{"records":7,"sent":3,"Succeeded":2,"Invalid":1}');
INSERT INTO public.events VALUES (12, '2026-11-23 12:00:34.176648+09', '20261123T030034-fe8ce045', 'cccccccccccccccc', 'batch planned', '{"requests":5,"bytes":8589934597,"attempt":1}');
INSERT INTO public.events VALUES (13, '2026-11-23 12:00:34.178409+09', '20261123T030034-fe8ce045', 'cccccccccccccccc', 'batch submitting', '{}');
INSERT INTO public.schema_version VALUES (3);
INSERT INTO public.transforms VALUES ('20261123T030034-4e55e79a', 'reviews', 'emulator', '[null]', 'f1', 'd1', '{"prompt":"Classify: ''ü'' {{ text }}","max_tokens":100}', 'done', 1, '{"records":7,"sent":3,"Succeeded":2,"Invalid":1}', '2026-11-23 12:00:34.137031+09', '2026-11-23 12:00:34.170253+09', NULL, NULL, 1, NULL, NULL, NULL);
INSERT INTO public.transforms VALUES ('20261123T030034-fe8ce045', 'reviews', 'emulator', '["2026-11-01","2026-11-02/ü"]', 'f2', 'd1', '{"prompt":"Classify: ''ü'' {{ text }}","max_tokens":100}', 'planning', 1, '{}', '2026-11-23 12:00:34.140676+09', '2026-11-23 12:00:34.140676+09', 'machine:ddeccbf7-4026531836:31197:792701:f915d1a2', '2026-11-23 12:02:34.177711+09', 1, NULL, NULL, NULL);
INSERT INTO public.transforms VALUES ('20261123T030034-2863d52f', 'posts', 'anthropic', '[null]', 'f1', 'd2', '{"prompt":"Classify: ''ü'' {{ text }}","max_tokens":100}', 'planning', 1, '{}', '2026-11-23 12:00:34.14198+09', '2026-11-23 12:00:34.14198+09', NULL, NULL, 0, 4398046511104, '2026-11-23 15:02:03.456789+09', '["aaaaaaaaaaaaaaaa"]');
SELECT pg_catalog.setval('public.events_id_seq', 13, true);
ALTER TABLE ONLY public.alerts
    ADD CONSTRAINT alerts_pkey PRIMARY KEY (event, destination);
ALTER TABLE ONLY public.batches
    ADD CONSTRAINT batches_batch_id_key UNIQUE (batch_id);
ALTER TABLE ONLY public.batches
    ADD CONSTRAINT batches_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.transforms
    ADD CONSTRAINT transforms_pkey PRIMARY KEY (id);
CREATE INDEX ix_alerts_status ON public.alerts USING btree (destination, status);
CREATE INDEX ix_batches_status ON public.batches USING btree (endpoint, status);
CREATE INDEX ix_batches_transform ON public.batches USING btree (transform_id);
CREATE INDEX ix_events_transform ON public.events USING btree (transform_id);
CREATE INDEX ix_transforms_scope ON public.transforms USING btree (pipeline, endpoint, status);
ALTER TABLE ONLY public.batches
    ADD CONSTRAINT batches_transform_id_fkey FOREIGN KEY (transform_id) REFERENCES public.transforms(id);
