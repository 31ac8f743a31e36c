"""A stand-in for W&B's server on this machine: it takes what the real client sends, and tells it of runs it knows.

It shows what the client would have a server keep. It proves nothing of W&B's own server.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "local-" + 40 * "0"
"""An API key in the form that the client takes for one."""
PROJECT = {"id": "UHJvamVjdA==", "name": "project", "entity": {"id": "RW50aXR5", "name": "team"}}
STREAM = re.compile(r"/files/[^/]+/[^/]+/([^/]+)/file_stream")


@dataclass
class StoredRun:
    """What the server has of a run."""

    history: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    """Name, group, job type, tags and the like."""
    exit_code: int | None = None


class WandbServer:
    """A context in which the server answers at `url`; `vanish` ends it in the middle."""

    def __init__(self) -> None:
        self.runs: dict[str, StoredRun] = {}
        self.lock = threading.Lock()

    def __enter__(self) -> WandbServer:
        self.http = Http(("127.0.0.1", 0), type("Handler", (Handler,), {"server_of": self}))
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.vanish()

    def vanish(self) -> None:
        """Answer nobody from now on."""
        self.http.shutdown()
        self.http.server_close()

    def environment(self) -> dict[str, str]:
        """Variables by which the client finds it."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY, "WANDB_MODE": "online"}

    def answer(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        """The data of an answer to a GraphQL operation; empty for those that say nothing of a run."""
        if operation == "Viewer":
            return {"viewer": {"id": "VXNlcg==", "entity": "team", "username": "user", "flags": "{}"}}
        if operation == "UpsertBucket":
            return {"upsertBucket": self.upserted(given)}
        if operation == "RunResumeStatus":
            return {"model": PROJECT | {"bucket": self.resumed(given["name"])}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in given["files"]]
            return {"createRunFiles": {"runID": "UnVu", "uploadHeaders": [], "files": files}}
        return {}

    def upserted(self, given: dict[str, Any]) -> dict[str, Any]:
        """A run is made, or changed."""
        new = given["name"] not in self.runs
        run = self.runs.setdefault(given["name"], StoredRun())
        run.config = json.loads(given.get("config") or json.dumps(run.config))
        run.fields |= {key: value for key, value in given.items() if value is not None}
        bucket = {"id": "UnVu", "name": given["name"], "displayName": run.fields.get("displayName"), "project": PROJECT}
        return {"bucket": bucket | {"config": json.dumps(run.config)}, "inserted": new}

    def resumed(self, run_id: str) -> dict[str, Any] | None:
        """What a client that goes on with a run must know of it."""
        if run_id not in self.runs:
            return None
        run = self.runs[run_id]
        last = {f"{kind}Tail": json.dumps([json.dumps(row) for row in getattr(run, kind)[-1:]]) for kind in LINES}
        counts = {f"{kind}LineCount": len(getattr(run, kind)) for kind in LINES} | {"logLineCount": 0}
        known = {"config": json.dumps(run.config), "summaryMetrics": json.dumps(run.summary), "tags": []}
        return {"id": "UnVu", "name": run_id, "wandbConfig": json.dumps({"t": 1}), **known, **last, **counts}

    def streamed(self, run_id: str, content: dict[str, Any]) -> None:
        """Lines of a run's files, each from an offset on, and perhaps the run's end."""
        run = self.runs.setdefault(run_id, StoredRun())
        for kind in LINES:
            if sent := (content.get("files") or {}).get(f"wandb-{kind}.jsonl"):
                lines, rows = getattr(run, kind), [json.loads(line) for line in sent["content"]]
                lines[sent["offset"] : sent["offset"] + len(rows)] = rows
        if sent := (content.get("files") or {}).get("wandb-summary.json"):
            run.summary = json.loads(sent["content"][-1])
        if content.get("complete") is not None:
            run.exit_code = content.get("exitcode")


LINES = ("history", "events")


class Http(ThreadingHTTPServer):
    """Answers each client in a thread."""

    daemon_threads = True

    def handle_error(self, *arguments: object) -> None:
        """Say nothing of clients that are killed."""


class Handler(BaseHTTPRequestHandler):
    """Reads requests and writes answers."""

    protocol_version = "HTTP/1.1"
    server_of: WandbServer

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def body(self) -> bytes:
        """What was sent, unpacked."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            content = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(content) if self.headers.get("Content-Encoding") == "gzip" else content

    def do_POST(self) -> None:
        """Answer a request of any kind."""
        body, answer = self.body(), {}
        with self.server_of.lock:
            if self.path == "/graphql":
                asked = json.loads(body)
                operation = asked.get("operationName") or re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])[1]
                answer = {"data": self.server_of.answer(operation, asked.get("variables") or {})}
            elif found := STREAM.match(self.path):
                self.server_of.streamed(found[1], json.loads(body))
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST  # noqa: N815
