"""A server on this machine that answers as W&B's does, as far as Perennial asks.

GraphQL by the operation's name, and uploads. What it answers was learned from W&B's public client.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from perennial.learning.studies import TrialRecord

TRIAL = TrialRecord(
    0, "search", {"max_depth": 4}, "complete", 0.4, 7, {7: 0.4}, "", "", {"speed": 1.0}, 0.5
)
"""One to be tracked."""

ENTITY, ORGANISATION = "me", "my-org"
_TIME = "2026-03-01T06:00:00Z"


@dataclass
class Artifact:
    """An artifact's version: one of equal content in a collection."""

    id: str
    collection: str
    digest: str
    metadata: str
    index: int
    committed: bool = False


@dataclass
class Server:
    """What it was asked, what it keeps, and whether it still answers."""

    url: str = ""
    asked: list[str] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    uploads: dict[str, str] = field(default_factory=dict)
    streams: list[str] = field(default_factory=list)
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    links: dict[str, list[str]] = field(default_factory=dict)
    """A Registry collection → the ids of the artifacts linked to it, in order."""
    aliases: dict[tuple[str, str], str] = field(default_factory=dict)
    """(collection, alias) → an artifact's id."""
    dying_at: str = ""
    """The operation at which it falls silent."""
    silent: threading.Event = field(default_factory=threading.Event)
    closed: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        if self.dying_at and self.dying_at.encode() in body[:4000]:
            self.silent.set()
        if self.silent.is_set():
            self.closed.wait()
        with self.lock:
            if path.startswith("/upload/"):
                self.uploads[path.removeprefix("/upload/")] = body.decode(errors="replace")
            elif path.endswith("/file_stream"):
                self.streams.append(body.decode())
            elif path.startswith("/graphql"):
                request = json.loads(body)
                match = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
                operation = match[1] if match else ""
                self.asked.append(operation)
                return {"data": self.data(operation, request.get("variables") or {})}
        return {}

    def data(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        if operation == "UpsertBucket":
            self.runs.append(given)
            project = {"id": "p", "name": given["project"], "entity": {"id": "e", "name": ENTITY}}
            bucket = {"id": "b", "name": given["name"], "config": "{}", "project": project}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if operation == "CreateRunFiles":
            files = [
                {"name": name, "uploadUrl": f"{self.url}/upload/{given['run']}/{name}"}
                for name in given["files"]
            ]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        answer = getattr(self, f"_{operation}", None)
        return answer(given) if answer else {}

    def _Viewer(self, _: Any) -> dict[str, Any]:  # operations have W&B's names
        person = {"id": "u", "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}"}
        return {"viewer": {**person, "teams": {"edges": []}}}

    def _GetDefaultEntity(self, _: Any) -> dict[str, Any]:
        return {"viewer": {"id": "u", "entity": ENTITY, "defaultEntity": {"name": ENTITY}}}

    def _ArtifactType(self, _: Any) -> dict[str, Any]:
        return {"project": {"artifact": None}}

    def _FetchOrgInfoFromEntity(self, _: Any) -> dict[str, Any]:
        org = {"name": ORGANISATION, "orgEntity": {"name": ORGANISATION}}
        return {"entity": {"organization": None, "user": {"organizations": [org]}}}

    def _CreateArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        given = given.get("input", given)
        name = given["artifactCollectionName"]
        same = (a for a in self.artifacts.values() if a.digest == given["digest"])
        found = next((a for a in same if a.collection == name), None)
        if found is None:
            index = sum(a.collection == name for a in self.artifacts.values())
            found = Artifact(
                f"artifact-{len(self.artifacts)}", name, given["digest"], given["metadata"], index
            )
            self.artifacts[found.id] = found
        return {
            "createArtifact": {
                "artifact": {
                    "id": found.id,
                    "state": "COMMITTED" if found.committed else "PENDING",
                    "artifactSequence": {"id": f"sequence-{name}", "latestArtifact": None},
                }
            }
        }

    def _CreateArtifactFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        nodes = [
            {
                "id": f"file-{one['name']}",
                "name": one["name"],
                "displayName": one["name"],
                "storagePath": one["name"],
                "uploadUrl": f"{self.url}/upload/{one['artifactID']}/{one['name']}",
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": one["artifactID"]},
            }
            for one in given["input"]["artifactFiles"]
        ]
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def _CreateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:
        given = given.get("input", given)
        url = f"{self.url}/upload/{given['artifactID']}/{given['name']}"
        file = {"id": "m", "name": given["name"], "displayName": given["name"], "uploadUrl": url}
        manifest = {"id": f"manifest-{given['artifactID']}", "file": {**file, "uploadHeaders": []}}
        return {"createArtifactManifest": {"artifactManifest": manifest}}

    def _CommitArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        given = given.get("input", given)
        found = self.artifacts[given["artifactID"]]
        found.committed = True
        return {"commitArtifact": {"artifact": {"id": found.id, "digest": found.digest}}}

    def _ArtifactByID(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"artifact": self._artifact(self.artifacts[given["id"]])}

    def _LinkArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        asked = given["input"]
        assert asked["entityName"] == ORGANISATION
        collection = f"{asked['projectName']}/{asked['artifactPortfolioName']}"
        linked = self.links.setdefault(collection, [])
        if asked["artifactID"] not in linked:
            linked.append(asked["artifactID"])
        index = linked.index(asked["artifactID"])
        membership = {
            "__typename": "ArtifactCollectionMembership",
            "id": f"membership-{collection}-{index}",
            "versionIndex": index,
            "createdAt": _TIME,
            "aliases": [],
            "artifactCollection": self._collection(collection),
            "artifact": self._artifact(self.artifacts[asked["artifactID"]]),
        }
        return {"result": {"versionIndex": index, "artifactMembership": membership}}

    def _ProjectArtifactCollection(self, given: dict[str, Any]) -> dict[str, Any]:
        name = f"{given['project']}/{given['name']}"
        found = self._collection(name) if name in self.links else None
        return {"project": {"artifactType": {"artifactCollection": found}}}

    def _ProjectArtifacts(self, given: dict[str, Any]) -> dict[str, Any]:
        linked = self.links[f"{given['project']}/{given['collection']}"]
        edges = [
            {"version": f"v{index}", "node": self._artifact(self.artifacts[id_])}
            for index, id_ in enumerate(linked)
        ]
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        found = {
            "__typename": "ArtifactPortfolio",
            "artifacts": {"totalCount": len(edges), "pageInfo": page, "edges": edges},
        }
        return {"project": {"artifactType": {"artifactCollection": found}}}

    def _AddAliases(self, given: dict[str, Any]) -> dict[str, Any]:
        for one in given["input"]["aliases"]:
            collection = f"{one['projectName']}/{one['artifactCollectionName']}"
            self.aliases[collection, one["alias"]] = given["input"]["artifactID"]
        return {"result": {"success": True}}

    def _DeleteAliases(self, given: dict[str, Any]) -> dict[str, Any]:
        for one in given["input"]["aliases"]:
            key = f"{one['projectName']}/{one['artifactCollectionName']}", one["alias"]
            if self.aliases.get(key) == given["input"]["artifactID"]:
                del self.aliases[key]
        return {"result": {"success": True}}

    def _UpdateArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        return {
            "result": {"artifact": self._artifact(self.artifacts[given["input"]["artifactID"]])}
        }

    def _IsProjectReadOnly(self, _: Any) -> dict[str, Any]:
        return {"project": {"readOnly": False}}

    def _project(self, entity: str, name: str) -> dict[str, Any]:
        return {"id": name, "internalId": "1", "name": name, "entity": {"name": entity}}

    def _collection(self, path: str) -> dict[str, Any]:
        project, _, name = path.partition("/")
        return {
            "__typename": "ArtifactPortfolio",
            "id": path,
            "name": name,
            "description": None,
            "createdAt": _TIME,
            "updatedAt": _TIME,
            "project": self._project(ORGANISATION, project),
            "type": {"name": "model"},
            "tags": {"edges": []},
        }

    def _artifact(self, found: Artifact) -> dict[str, Any]:
        project = self._project(ENTITY, f"perennial-{found.collection}")
        sequence = {"__typename": "ArtifactSequence", "name": found.collection, "project": project}
        aliases = [
            {
                "__typename": "ArtifactAlias",
                "id": f"{collection}:{alias}",
                "alias": alias,
                "artifactCollection": self._collection(collection),
            }
            for (collection, alias), id_ in self.aliases.items()
            if id_ == found.id
        ]
        return {
            "__typename": "Artifact",
            "id": found.id,
            "artifactSequence": sequence,
            "versionIndex": found.index,
            "artifactType": {"name": "model"},
            "description": None,
            "metadata": found.metadata,
            "ttlDurationSeconds": -2,
            "ttlIsInherited": True,
            "tags": [],
            "historyStep": None,
            "state": "COMMITTED" if found.committed else "PENDING",
            "size": 1,
            "digest": found.digest,
            "digestAlgorithm": "MANIFEST_MD5",
            "commitHash": found.id,
            "fileCount": 1,
            "createdAt": _TIME,
            "updatedAt": _TIME,
            "aliases": aliases,
        }


@contextmanager
def wandb_server(environment: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that runs, and an environment that names it, a key, and nothing else of W&B's."""
    found = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            answer = json.dumps(found.answer(self.path, body)).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PUT = handle_any  # noqa: N815  # the names are the base class's

        def log_message(self, *_: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            pass  # a client that gave up

    with Quiet(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        found.url = f"http://127.0.0.1:{http.server_port}"
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            environment.delenv(name)
        environment.setenv("WANDB_API_KEY", "a" * 40)
        environment.setenv("WANDB_BASE_URL", found.url)
        try:
            yield found
        finally:
            found.closed.set()
            http.shutdown()
