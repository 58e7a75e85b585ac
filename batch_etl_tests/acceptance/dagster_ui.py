"""Dagster's web server as its page speaks to it: GraphQL, nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import httpx

STEPS = ("records", "results", "table")

_LOADED = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"
_LAUNCH = """
mutation($what: ExecutionParams!) { launchRun(executionParams: $what) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }
"""
_TERMINATE = "mutation($id: String!) { terminateRun(runId: $id) { __typename } }"
_RUNS = """
query($filter: RunsFilter) { runsOrError(filter: $filter) { ... on Runs { results {
  runId status tags { key value } stepStats { stepKey startTime endTime } } } } }
"""
_BACKFILL = """
mutation($keys: [String!]!, $assets: [AssetKeyInput!]!) {
  launchPartitionBackfill(backfillParams: {partitionNames: $keys, assetSelection: $assets}) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }
"""
_BACKFILL_STATUS = """
query($id: String!) { partitionBackfillOrError(backfillId: $id) {
  ... on PartitionBackfill { status runs { status } } } }
"""
_STOP = "mutation($id: String!) { stopRunningSchedule(id: $id) { __typename } }"
_TICKS = """
query($of: InstigationSelector!) { instigationStateOrError(instigationSelector: $of) {
  ... on InstigationState { id status ticks(limit: 500) { status runIds skipReason
    error { message } } } } }
"""


class Ui:
    """One web server that shows one code location."""

    def __init__(self, port: int, location: str = "batch_etl.definitions") -> None:
        self.base = f"http://127.0.0.1:{port}"
        self.url = f"{self.base}/graphql"
        self.repository = {
            "repositoryName": "__repository__",
            "repositoryLocationName": location,
        }

    def ask(self, question: str, **variables: Any) -> dict[str, Any]:
        body = {"query": question, "variables": variables}
        reply = httpx.post(self.url, json=body, timeout=60, trust_env=False)
        told = reply.json()
        assert "errors" not in told, told["errors"]
        return told["data"]

    def is_up(self) -> bool:
        try:
            return bool(self.ask(_LOADED)["repositoriesOrError"].get("nodes"))
        except (httpx.HTTPError, ValueError):
            return False

    def launch(self, pipeline: str, partition: str) -> str:
        """Materialize one partition of all the pipeline's assets; returns the run's id."""
        what = {
            "selector": {
                **self.repository,
                "pipelineName": "__ASSET_JOB",
                "assetSelection": [{"path": [pipeline, step]} for step in STEPS],
            },
            "executionMetadata": {"tags": [{"key": "dagster/partition", "value": partition}]},
            "runConfigData": {},
        }
        launched = self.ask(_LAUNCH, what=what)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return launched["run"]["runId"]

    def terminate(self, run_id: str) -> None:
        self.ask(_TERMINATE, id=run_id)

    def runs(self, **filters: Any) -> list[dict[str, Any]]:
        """Runs, newest first: id, status, tags, and when each step began and ended."""
        found = self.ask(_RUNS, filter=filters)["runsOrError"]["results"]
        return [{**run, "tags": {t["key"]: t["value"] for t in run["tags"]}} for run in found]

    def ended(self, run_id: str) -> str | None:
        """The run's last status, once it has it."""
        (run,) = self.runs(runIds=[run_id])
        return run["status"] if run["status"] in ("SUCCESS", "FAILURE", "CANCELED") else None

    def backfill(self, pipeline: str, keys: Sequence[str]) -> str:
        """Launch a backfill of all the pipeline's assets; returns its id."""
        assets = [{"path": [pipeline, step]} for step in STEPS]
        launched = self.ask(_BACKFILL, keys=list(keys), assets=assets)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        return launched["backfillId"]

    def backfilled(self, backfill: str) -> Mapping[str, Any] | None:
        """The backfill's last status and that of its runs, once it has ended."""
        found = self.ask(_BACKFILL_STATUS, id=backfill)["partitionBackfillOrError"]
        return None if found["status"] in ("REQUESTED", "COMPLETING") else found

    def ticks(self, name: str) -> list[dict[str, Any]]:
        """What a schedule or sensor did, newest first."""
        return self._instigation(name)["ticks"]

    def stop_schedule(self, name: str) -> None:
        state = self._instigation(name)
        assert state["status"] == "RUNNING"
        stopped = self.ask(_STOP, id=state["id"])["stopRunningSchedule"]
        assert stopped["__typename"] == "ScheduleStateResult", stopped

    def _instigation(self, name: str) -> dict[str, Any]:
        told = self.ask(_TICKS, of={**self.repository, "name": name})["instigationStateOrError"]
        assert "ticks" in told, told
        return told
