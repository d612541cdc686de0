"""The part of the Kubernetes API that a pod's label needs, as strict as the real one.

async with PodServer() as api:              # https with `tls=context`
    api.files(tmp_path)                     # token, ca.crt and namespace, as the kubelet mounts them
    await api.says("primary")               # until the pod carries this label

What it is strict about is what the API server does: rest.BeforeUpdate and store.Update of
k8s.io/apiserver (a version that is named must be the present one, 409), its patch handler (content
types, 415), ValidateObjectMeta (keys and values of labels, 422), and GuaranteedUpdate (a patch that
changes nothing writes nothing). Faults: `forbidden`, `busy`, `broken`, `hanging`, `late`.
"""

import asyncio
import contextlib
import json
import re
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

LABEL = "healthagent.io/role"
ANNOTATION = f"{LABEL}-change"
NAME, NAMESPACE = "pg-0", "db"
PATH = f"/api/v1/namespaces/{NAMESPACE}/pods/{NAME}"
MERGE = "application/merge-patch+json"
PATCHES = (MERGE, "application/json-patch+json", "application/strategic-merge-patch+json")
_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_KEY = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
Json = dict[str, Any]


class PodServer:
    """One namespace with one pod in it, on a free port of loopback."""

    def __init__(self, tls: ssl.SSLContext | None = None, label: str | None = None) -> None:
        self.tokens = {"a-token"}  # those that are believed
        self.uid = "11111111-0000-4000-8000-000000000001"
        self.version = 100
        self.labels: dict[str, str] = {"app": "pg", **({LABEL: label} if label else {})}
        self.annotations: dict[str, str] = {}
        self.forbidden: set[str] = set()  # verbs that the Role does not have
        self.busy: list[str | None] = []  # a Retry-After for each of the next calls: 429
        self.broken: list[int] = []  # a status for each of the next calls
        self.hanging: asyncio.Event | None = None  # while it is there and not set, nothing is answered
        self.late: asyncio.Event | None = None  # while it is there, patches are carried out when it is set
        self.before_patch: Callable[[], None] | None = None  # runs between a look and a write, once
        self.calls: list[tuple[str, int]] = []  # (verb, status), in the order of the answers
        self.history: list[str | None] = []  # each label that the pod has carried since
        self.tls = tls
        self.port = 0
        self._news = asyncio.Condition()
        self._runner: web.ServerRunner | None = None
        self.held: set[asyncio.Task[web.Response]] = set()  # patches that came while `late` was there

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def label(self) -> str | None:
        return self.labels.get(LABEL)

    def files(self, folder: Path, ca: Path | None = None) -> None:
        """Write what the kubelet would mount."""
        (folder / "token").write_text(f"{next(iter(self.tokens))}\n")
        (folder / "namespace").write_text(NAMESPACE)
        (folder / "ca.crt").write_text(ca.read_text() if ca else "")

    def touched(self) -> None:
        """Somebody else has changed the pod, as the kubelet does with its status."""
        self.version += 1

    async def says(self, label: str | None, within: float = 20.0) -> None:
        """Wait until the pod carries this label."""
        await self.until(lambda: self.label == label, within)

    async def until(self, true: Callable[[], bool], within: float = 20.0) -> None:
        """Wait until something holds; looked at after each call."""
        async with asyncio.timeout(within), self._news:
            await self._news.wait_for(true)

    async def called(self, verb: str, status: int, times: int = 1) -> None:
        """Wait until calls of this verb were answered so, so many times."""
        await self.until(lambda: self.calls.count((verb, status)) >= times)

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._serve), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self.tls)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        for task in self.held:
            task.cancel()
        await asyncio.gather(*self.held, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()

    @contextlib.asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """Stop listening for a while, then listen at the same port."""
        await self.__aexit__()
        try:
            yield
        finally:
            await self.__aenter__()

    async def _serve(self, request: web.BaseRequest) -> web.Response:
        verb = request.method.lower()
        if self.hanging is not None:
            await self.hanging.wait()
        response = await self._answer(verb, request)
        async with self._news:
            self.calls.append((verb, response.status))
            self._news.notify_all()
        return response

    async def _answer(self, verb: str, request: web.BaseRequest) -> web.Response:
        if self.busy:
            wait = self.busy.pop(0)
            headers = {} if wait is None else {"Retry-After": wait}
            return _status(429, "too many requests, please try again later", headers)
        if self.broken:
            return _status(self.broken.pop(0), "etcdserver: leader changed")
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if self.tls is not None and (kind != "Bearer" or token not in self.tokens):
            return _status(401, "Unauthorized")
        if request.path != PATH:
            return _status(404, f'pods "{request.path.rpartition("/")[2]}" not found')
        if verb in self.forbidden:
            user = f"system:serviceaccount:{NAMESPACE}:pg"
            what = (
                f'User "{user}" cannot {verb} resource "pods" in API group "" in the namespace "{NAMESPACE}"'
            )
            return _status(403, f'pods "{NAME}" is forbidden: {what}')
        if verb == "get":
            return self._pod()
        if verb != "patch":
            return _status(405, "the server does not allow this method on the requested resource")
        return await self._patched(request)

    async def _patched(self, request: web.BaseRequest) -> web.Response:
        body = await request.read()
        if request.content_type not in PATCHES:
            return _status(415, f"the body of the request was in an unknown format: {', '.join(PATCHES)}")
        assert request.content_type == MERGE, "this stand-in speaks merge patch only"
        assert len(request.query.get("fieldManager", "")) <= 128
        if self.before_patch is not None:
            before, self.before_patch = self.before_patch, None
            before()
        if self.late is None:
            return self._carried_out(body)
        # the client may hang up meanwhile: like a proxy that has the request already, we go on
        task = asyncio.create_task(self._carry_out_late(self.late, body))
        async with self._news:
            self.held.add(task)
            self._news.notify_all()
        return await asyncio.shield(task)

    async def _carry_out_late(self, late: asyncio.Event, body: bytes) -> web.Response:
        await late.wait()
        response = self._carried_out(body)
        async with self._news:
            self.calls.append(("late", response.status))
            self._news.notify_all()
        return response

    def _carried_out(self, body: bytes) -> web.Response:
        try:
            patch = json.loads(body)["metadata"]
            assert set(patch) <= {"resourceVersion", "uid", "labels", "annotations"}, "not ours to change"
        except (ValueError, LookupError, TypeError):
            return _status(400, "error decoding patch")
        if patch.get("resourceVersion", str(self.version)) != str(self.version):
            return _status(
                409,
                f'Operation cannot be fulfilled on pods "{NAME}": the object has been modified; '
                "please apply your changes to the latest version and try again",
            )
        if patch.get("uid", self.uid) != self.uid:
            return _status(422, "metadata.uid: Invalid value: field is immutable")
        labels = _merged(self.labels, patch.get("labels", {}))
        annotations = _merged(self.annotations, patch.get("annotations", {}))
        for key, value in [*labels.items(), *((key, "") for key in annotations)]:
            if not isinstance(value, str) or not _KEY.fullmatch(key) or not _VALUE.fullmatch(value):
                return _status(422, f"metadata.labels: Invalid value: {key}={value!r}")
        if (labels, annotations) != (self.labels, self.annotations):
            self.version += 1
        if labels.get(LABEL) != self.label:
            self.history.append(labels.get(LABEL))
        self.labels, self.annotations = labels, annotations
        return self._pod()

    def _pod(self) -> web.Response:
        metadata = {
            "name": NAME,
            "namespace": NAMESPACE,
            "uid": self.uid,
            "resourceVersion": str(self.version),
            "labels": self.labels,
            "annotations": self.annotations,
            "managedFields": [{"manager": "kubelet", "operation": "Update"}],
        }
        kind = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
        return web.json_response({**kind, "metadata": metadata})


def _merged(old: dict[str, str], patch: Json) -> dict[str, str]:
    """RFC 7386: null takes a key away."""
    return {key: value for key, value in {**old, **patch}.items() if value is not None}


def _status(code: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}
    return web.json_response(body, status=code, headers=headers)
