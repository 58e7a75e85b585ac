BEGIN TRANSACTION;
CREATE TABLE alerts (
	event TEXT NOT NULL,
	destination TEXT NOT NULL,
	kind TEXT NOT NULL,
	level TEXT NOT NULL,
	title TEXT NOT NULL,
	message TEXT NOT NULL,
	status TEXT NOT NULL,
	tries INTEGER NOT NULL,
	noted_at DATETIME NOT NULL,
	due_at DATETIME NOT NULL,
	claimed_at DATETIME,
	sent_at DATETIME,
	PRIMARY KEY (event, destination)
);
INSERT INTO "alerts" VALUES('failed_run:r1','d1','failed_run','failure','run of ''reviews'' failed','Run r1 failed.
Next: ü','sent',1,'2026-11-23 01:02:03.456789','2026-11-23 01:02:03.456789','2026-11-23 02:02:03.456789','2026-11-23 02:02:03.456789');
INSERT INTO "alerts" VALUES('failed_run:r1','d2','failed_run','failure','run of ''reviews'' failed','Run r1 failed.
Next: ü','due',2,'2026-11-23 01:02:03.456789','2026-11-23 03:02:03.456789','2026-11-23 02:02:03.456789',NULL);
INSERT INTO "alerts" VALUES('completion:t1','d1','completion','info','reviews is done','7 records','claimed',1,'2026-11-23 04:02:03.456789','2026-11-23 04:02:03.456789','2026-11-23 05:02:03.456789',NULL);
CREATE TABLE batches (
	id TEXT NOT NULL,
	transform_id TEXT NOT NULL,
	endpoint TEXT NOT NULL,
	attempt INTEGER NOT NULL,
	status TEXT NOT NULL,
	requests INTEGER NOT NULL,
	payload_bytes BIGINT NOT NULL,
	claude_model TEXT NOT NULL,
	batch_id TEXT,
	planned_at DATETIME NOT NULL,
	submitting_at DATETIME,
	submitted_at DATETIME,
	expires_at DATETIME,
	ended_at DATETIME,
	collected_at DATETIME,
	outcomes TEXT,
	input_tokens BIGINT,
	output_tokens BIGINT,
	cache_read_tokens BIGINT,
	cache_write_tokens BIGINT,
	cost_pico_usd BIGINT,
	standard_pico_usd BIGINT, reserved_pico_usd BIGINT, deleted_at DATETIME,
	PRIMARY KEY (id),
	FOREIGN KEY(transform_id) REFERENCES transforms (id),
	UNIQUE (batch_id)
);
INSERT INTO "batches" VALUES('aaaaaaaaaaaaaaaa','20261123T030032-90542011','emulator',1,'collected',3,8589934595,'claude-haiku-4-5','msgbatch_1','2026-11-23 03:00:33.013028','2026-11-23 01:02:03.456789','2026-11-23 02:02:03.456789','2026-11-24 02:02:03.456789','2026-11-23 03:02:03.456789','2026-11-23 04:02:03.456789','{"Succeeded":2,"Invalid":1}',2147483649,2,3,4,1099511627776,2199023255552,NULL,'2026-11-23 07:02:03.456789');
INSERT INTO "batches" VALUES('bbbbbbbbbbbbbbbb','20261123T030032-90542011','emulator',1,'dropped',4,8589934596,'claude-haiku-4-5',NULL,'2026-11-23 03:00:33.015065',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "batches" VALUES('cccccccccccccccc','20261123T030033-c3d6e7e0','emulator',1,'submitting',5,8589934597,'claude-haiku-4-5',NULL,'2026-11-23 03:00:33.032135','2026-11-23 05:02:03.456789',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,8796093022208,NULL);
CREATE TABLE events (
	id INTEGER NOT NULL,
	at DATETIME NOT NULL,
	transform_id TEXT NOT NULL,
	batch TEXT,
	event TEXT NOT NULL,
	detail TEXT NOT NULL,
	PRIMARY KEY (id)
);
INSERT INTO "events" VALUES(1,'2026-11-23 03:00:33.001764','20261123T030032-90542011',NULL,'transform created','{"scope":[null]}');
INSERT INTO "events" VALUES(2,'2026-11-23 03:00:33.005571','20261123T030033-c3d6e7e0',NULL,'transform created','{"scope":["2026-11-01","2026-11-02/ü"]}');
INSERT INTO "events" VALUES(3,'2026-11-23 03:00:33.007668','20261123T030033-ffd10b4f',NULL,'transform created','{"scope":[null]}');
INSERT INTO "events" VALUES(4,'2026-11-23 03:00:33.013718','20261123T030032-90542011','aaaaaaaaaaaaaaaa','batch planned','{"requests":3,"bytes":8589934595,"attempt":1}');
INSERT INTO "events" VALUES(5,'2026-11-23 03:00:33.015303','20261123T030032-90542011','bbbbbbbbbbbbbbbb','batch planned','{"requests":4,"bytes":8589934596,"attempt":1}');
INSERT INTO "events" VALUES(6,'2026-11-23 03:00:33.017856','20261123T030032-90542011','aaaaaaaaaaaaaaaa','batch submitting','{}');
INSERT INTO "events" VALUES(7,'2026-11-23 03:00:33.019980','20261123T030032-90542011','aaaaaaaaaaaaaaaa','batch submitted','{"batch_id":"msgbatch_1"}');
INSERT INTO "events" VALUES(8,'2026-11-23 03:00:33.022480','20261123T030032-90542011','aaaaaaaaaaaaaaaa','batch collected','{}');
INSERT INTO "events" VALUES(9,'2026-11-23 03:00:33.024527','20261123T030032-90542011','bbbbbbbbbbbbbbbb','batch dropped','{"why":"over the limits"}');
INSERT INTO "events" VALUES(10,'2026-11-23 03:00:33.026606','20261123T030032-90542011',NULL,'transform open','{"records":7,"sent":3}');
INSERT INTO "events" VALUES(11,'2026-11-23 03:00:33.027930','20261123T030032-90542011',NULL,'transform done','{"records":7,"sent":3,"Succeeded":2,"Invalid":1}');
INSERT INTO "events" VALUES(12,'2026-11-23 03:00:33.032481','20261123T030033-c3d6e7e0','cccccccccccccccc','batch planned','{"requests":5,"bytes":8589934597,"attempt":1}');
INSERT INTO "events" VALUES(13,'2026-11-23 03:00:33.033970','20261123T030033-c3d6e7e0','cccccccccccccccc','batch submitting','{}');
CREATE TABLE schema_version (
	version INTEGER NOT NULL
);
INSERT INTO "schema_version" VALUES(3);
CREATE TABLE transforms (
	id TEXT NOT NULL,
	pipeline TEXT NOT NULL,
	endpoint TEXT NOT NULL,
	scope TEXT NOT NULL,
	fingerprint TEXT NOT NULL,
	records_digest TEXT NOT NULL,
	task TEXT NOT NULL,
	status TEXT NOT NULL,
	attempt INTEGER NOT NULL,
	counts TEXT NOT NULL,
	created_at DATETIME NOT NULL,
	updated_at DATETIME NOT NULL,
	lease_owner TEXT,
	lease_expires_at DATETIME,
	fence BIGINT NOT NULL, reserved_pico_usd BIGINT, reserved_at DATETIME, awaits TEXT,
	PRIMARY KEY (id)
);
INSERT INTO "transforms" VALUES('20261123T030032-90542011','reviews','emulator','[null]','f1','d1','{"prompt":"Classify: ''ü'' {{ text }}","max_tokens":100}','done',1,'{"records":7,"sent":3,"Succeeded":2,"Invalid":1}','2026-11-23 03:00:32.999870','2026-11-23 03:00:33.027320',NULL,NULL,1,NULL,NULL,NULL);
INSERT INTO "transforms" VALUES('20261123T030033-c3d6e7e0','reviews','emulator','["2026-11-01","2026-11-02/ü"]','f2','d1','{"prompt":"Classify: ''ü'' {{ text }}","max_tokens":100}','planning',1,'{}','2026-11-23 03:00:33.004897','2026-11-23 03:00:33.004897','machine:ddeccbf7-4026531836:31197:792701:da77f2b0','2026-11-23 03:02:33.033549',1,NULL,NULL,NULL);
INSERT INTO "transforms" VALUES('20261123T030033-ffd10b4f','posts','anthropic','[null]','f1','d2','{"prompt":"Classify: ''ü'' {{ text }}","max_tokens":100}','planning',1,'{}','2026-11-23 03:00:33.007105','2026-11-23 03:00:33.007105',NULL,NULL,0,4398046511104,'2026-11-23 06:02:03.456789','["aaaaaaaaaaaaaaaa"]');
CREATE INDEX ix_transforms_scope ON transforms (pipeline, endpoint, status);
CREATE INDEX ix_events_transform ON events (transform_id);
CREATE INDEX ix_batches_transform ON batches (transform_id);
CREATE INDEX ix_batches_status ON batches (endpoint, status);
CREATE INDEX ix_alerts_status ON alerts (destination, status);
COMMIT;
