"""Two calls of the Kubernetes API: look at one pod, and change its label.

GET and PATCH of /api/v1/namespaces/{namespace}/pods/{name}; JSON merge patch (RFC 7386), in which
null takes a label away. A patch that names a resourceVersion is a conflict (409) when the pod has
changed since, and one that changes nothing writes nothing and leaves the version as it is.
https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

import os
import ssl
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver

from healthagent import __version__
from healthagent.config import KubernetesSettings
from healthagent.offloop import call

MERGE_PATCH = "application/merge-patch+json"
# only the metadata, where the server knows how: a whole pod is ten times as long
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, application/json"
MAX_BYTES = 2 << 20  # etcd keeps no object above 1.5 MiB
MAX_FILE_BYTES = 1 << 20
MAX_WORDS = 200  # characters of the API's own sentence that are repeated
MOST_PATIENCE = 10.0  # seconds of Retry-After that are believed


class NoApi(Exception):
    """There is no API to speak to; the text says what to set."""


class Refused(Exception):
    """A call that did not succeed: one sentence, and whether the pod may have changed all the same."""

    def __init__(self, kind: str, why: str, *, maybe_done: bool = False, wait: float = 0.0) -> None:
        super().__init__(why)
        self.kind = kind
        self.maybe_done = maybe_done
        self.wait = wait  # seconds for which the API asked not to be asked again


class _Metadata(msgspec.Struct):
    name: str
    namespace: str
    uid: str
    resourceVersion: str
    labels: dict[str, str] | None = None


class _Object(msgspec.Struct):
    metadata: _Metadata


class _Status(msgspec.Struct):
    """How the API spells an error."""

    message: str = ""


@dataclass(frozen=True, slots=True)
class Pod:
    """What is known of a pod: which one it is, its version, and the label."""

    uid: str
    version: str
    label: str | None


@dataclass(frozen=True, slots=True)
class _Account:
    """Who we are to the API, as the files say now; Kubernetes renews them while we run."""

    namespace: str
    token: str | None
    tls: ssl.SSLContext | bool
    ca: str


class PodApi:
    """The API as one pod sees it: `async with api: ...`. What is not answered is the caller's budget."""

    def __init__(
        self,
        settings: KubernetesSettings,
        resolver: AbstractResolver,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        assert settings.role_label is not None, "without a label there is nothing to do"
        self.url = settings.api or _url_of(environment)
        self.pod = settings.pod
        self.calls: Counter[tuple[str, str]] = Counter()  # (verb, result) for the metrics
        self._settings = settings
        self._key = settings.role_label
        self._resolver = resolver
        self._account: _Account | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=self._resolver, use_dns_cache=False, limit=2),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),  # the caller has a budget
            headers={"User-Agent": f"healthagent/{__version__}", "Accept": METADATA},
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def look(self) -> Pod:
        """The pod as it is now. Raises Refused."""
        return await self._call("get", None)

    async def write(self, before: Pod, label: str | None, mark: str) -> Pod:
        """Set the label, or take it away, unless the pod has changed since `before`. Raises Refused.

        `mark` goes into an annotation: with a new one each write changes the version, so that none
        that was composed before it can succeed after it.
        """
        metadata = {
            "resourceVersion": before.version,
            "labels": {self._key: label},
            "annotations": {f"{self._key}-change": mark},
        }
        return await self._call("patch", msgspec.json.encode({"metadata": metadata}))

    async def _call(self, verb: str, body: bytes | None) -> Pod:
        try:
            pod = await self._sent(verb, body)
        except Refused as error:
            self.calls[verb, error.kind] += 1
            raise
        except BaseException:  # given up by the caller
            self.calls[verb, "timeout"] += 1
            raise
        self.calls[verb, "ok"] += 1
        return pod

    async def _sent(self, verb: str, body: bytes | None) -> Pod:
        assert self._session is not None, "it was entered"
        account = self._account = await call(lambda: _read_account(self._settings, self._account), "account")
        headers = {} if account.token is None else {"Authorization": f"Bearer {account.token}"}
        if body is not None:
            headers["Content-Type"] = MERGE_PATCH
        namespace, name = quote(account.namespace, safe=""), quote(self.pod, safe="")
        url = f"{self.url}/api/v1/namespaces/{namespace}/pods/{name}"
        try:
            async with self._session.request(
                verb.upper(),
                url,
                data=body,
                params={"fieldManager": "healthagent"} if body is not None else None,
                headers=headers,
                ssl=account.tls,
                allow_redirects=False,
            ) as response:
                answer = await _bounded(response)
                if response.status == HTTPStatus.OK:
                    return self._pod(answer, account.namespace)
                raise self._refusal(verb, response, answer, account.namespace)
        except (aiohttp.ClientConnectorError, aiohttp.ClientConnectorCertificateError) as error:
            raise Refused("unreachable", f"{self.url}: {_cause(error)}") from error  # nothing was sent
        except (aiohttp.ClientError, OSError, ValueError) as error:
            why = f"{self.url}: {_cause(error)}"
            raise Refused("unreachable", why, maybe_done=body is not None) from error

    def _pod(self, answer: bytes, namespace: str) -> Pod:
        try:
            metadata = msgspec.json.decode(answer, type=_Object).metadata
        except (msgspec.MsgspecError, UnicodeDecodeError):
            why = f"{self.url}: what answers there does not describe a pod"
            raise Refused("misunderstood", why, maybe_done=True) from None
        if (metadata.name, metadata.namespace) != (self.pod, namespace):
            raise Refused("misunderstood", f"{self.url}: it described another pod", maybe_done=True)
        return Pod(metadata.uid, metadata.resourceVersion, (metadata.labels or {}).get(self._key))

    def _refusal(self, verb: str, response: aiohttp.ClientResponse, answer: bytes, namespace: str) -> Refused:
        status = response.status
        said = _sentence(answer)
        if status == HTTPStatus.CONFLICT:
            return Refused("conflict", f"the pod was changed by others each time{said}")
        if status == HTTPStatus.UNAUTHORIZED:
            why = f"the API does not accept the token in {self._settings.token_file}"
            return Refused("unauthorized", why + said)
        if status == HTTPStatus.FORBIDDEN:
            need = f"its Role needs the verb {verb!r} on the resource 'pods'"
            return Refused("forbidden", f"the service account may not {verb} this pod: {need}{said}")
        if status == HTTPStatus.NOT_FOUND:
            why = f"there is no pod {self.pod!r} in the namespace {namespace!r}: see kubernetes.pod"
            return Refused("not_found", why + said)
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            wait = _patience(response.headers.get("Retry-After"))
            return Refused("busy", f"the API has too much to do (429){said}", wait=wait)
        # a gateway that gave up does not know what became of it
        maybe_done = status >= HTTPStatus.INTERNAL_SERVER_ERROR and verb == "patch"
        return Refused(f"status_{status}", f"the API answered {status}{said}", maybe_done=maybe_done)


def _url_of(environment: Mapping[str, str]) -> str:
    """As Kubernetes tells every container."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise NoApi(
            "kubernetes.api: must be set where KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not: "
            "this is no pod, or leave kubernetes.role_label out"
        )
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _read_account(settings: KubernetesSettings, before: _Account | None) -> _Account:
    """Read what the kubelet keeps current. Blocks; raises Refused."""
    folder = settings.token_file.parent
    namespace = settings.namespace or _text(folder / "namespace", "kubernetes.namespace").strip()
    if (settings.api or "https:").startswith("http:"):  # a proxy on loopback, which adds its own token
        return _Account(namespace, None, True, "")
    token = _text(settings.token_file, "kubernetes.token_file").strip()
    if not token or not token.isascii() or not token.isprintable():
        why = f"kubernetes.token_file: {settings.token_file} must hold one line of text"
        raise Refused("credentials", why)
    ca = _text(settings.ca_file, "kubernetes.ca_file")
    if before is not None and before.ca == ca:
        return _Account(namespace, token, before.tls, ca)
    try:
        context = ssl.create_default_context(cadata=ca)
    except (ssl.SSLError, ValueError):
        why = f"kubernetes.ca_file: {settings.ca_file} must hold certificates in PEM"
        raise Refused("credentials", why) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return _Account(namespace, token, context, ca)


def _text(file: Path, key: str) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_FILE_BYTES).decode()
    except OSError as error:
        raise Refused("credentials", f"{key}: {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Refused("credentials", f"{key}: {file} must hold UTF-8 text") from None


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    answer = bytearray()
    async for chunk in response.content.iter_any():
        answer += chunk
        if len(answer) > MAX_BYTES:
            raise Refused("misunderstood", f"the answer is longer than {MAX_BYTES} bytes", maybe_done=True)
    return bytes(answer)


def _sentence(answer: bytes) -> str:
    """The API's own words, made safe for a log."""
    try:
        words = msgspec.json.decode(answer, type=_Status).message
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""
    words = "".join(c if c.isprintable() else " " for c in words[:MAX_WORDS])
    return f" ({words})" if words else ""


def _patience(header: str | None) -> float:
    """Seconds to wait. A date is not believed: the clocks of two machines are never compared."""
    if header is None or not header.isascii() or not header.isdigit():
        return 0.0
    return min(float(header), MOST_PATIENCE)


def _cause(error: BaseException) -> str:
    """The system's own words."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        certificate: Any = error.certificate_error
        return f"its certificate is not believed: {getattr(certificate, 'verify_message', certificate)}"
    if isinstance(error, aiohttp.ClientOSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
