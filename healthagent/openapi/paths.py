"""/openapi.json: what each path answers, from the tables that answer it and one line of words per path.

What decides between the statuses is in the README.
"""

from collections.abc import Iterable

import msgspec

from healthagent import __version__
from healthagent.openapi.schemas import Json, components, ref
from healthagent.server.answers import CHECKS

ALIASES = {  # spelled as in Patroni, each for the one that is described
    "/": "/primary",
    "/read-write": "/primary",
    "/master": "/primary",
    "/leader": "/primary",
    "/sync": "/synchronous",
    "/async": "/asynchronous",
    "/read-only-synchronous": "/read-only-sync",
    "/standby_leader": "/standby-leader",
}
CHECK_WORDS = {
    "/primary": "200 if this node may be given writes",
    "/replica": "200 if this node may be given reads: a replica that streams and is near enough",
    "/read-only": "200 if this node may be given writes or reads",
    "/synchronous": "200 if this node is a replica that its primary calls sync",
    "/asynchronous": "200 if this node is a replica that its primary calls neither sync nor quorum",
    "/quorum": "200 if this node is a replica that its primary calls quorum",
    "/read-only-sync": "200 if this node is the primary or a sync replica",
    "/read-only-quorum": "200 if this node is the primary or a quorum replica",
    "/standby-leader": "never 200: there is no standby cluster here",
    "/health": "200 if PostgreSQL runs, whatever its role",
    "/readiness": "200 if this node may be given writes or reads, for a Kubernetes readinessProbe",
    "/liveness": "200 while the agent runs; PostgreSQL is not looked at",
}
# path -> its words, the schema of its 200, what it reads of the query
DOCUMENTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "/patroni": ("This node, as Patroni describes one", "Node", ()),
    "/cluster": ("Every configured data node, as Patroni lists them", "Cluster", ()),
    "/history": ("The timeline switches that this agent saw, as Patroni lists them", "History", ()),
    "/status": ("Everything that the agent knows, with ages", "Status", ()),
    "/lease": ("The lease, which no mode of this version has", "Lease", ()),
    "/events": ("What happened on this node, oldest first", "Events", ("since", "limit")),
    "/openapi.json": ("This description", "Description", ()),
}
# path -> its words, and its media types: texts
PAGES = {
    "/metrics": (
        "Prometheus text, or OpenMetrics if asked for",
        ("text/plain", "application/openmetrics-text"),
    ),
    "/ui": ("The status page", ("text/html",)),
}


def description() -> bytes:
    """The document, as it is served."""
    paths: Json = {path: _check(path) for path in CHECKS}
    paths |= {path: _document(*words) for path, words in DOCUMENTS.items()}
    paths |= {path: _page(*words) for path, words in PAGES.items()}
    paths["/peer"] = _peer()
    paths["/maintenance"] = {
        "post": _change("Take this node out of service, or back", "Maintenance", "MaintenanceDone")
    }
    paths["/override"] = {
        "post": _change(
            "Clear a latch, or force the verdict on /primary for a bounded time", "Override", "OverrideDone"
        )
    }
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "healthagent",
                "version": __version__,
                "description": "Health checks of one PostgreSQL node. GET changes nothing; HEAD and OPTIONS "
                "answer with the status of GET. A refusal is 503 and says why; a value of the query that "
                "cannot be understood is 400. A trailing slash is accepted.",
            },
            "servers": [{"url": "/"}],
            "paths": paths,
            "components": components(),
        }
    )


# Paths.


def _check(path: str) -> Json:
    meant = ALIASES.get(path, path)
    words = CHECK_WORDS[meant] if meant == path else f"As {meant}"
    asked = [] if meant in ("/primary", "/standby-leader", "/liveness", "/health") else ["lag"]
    asked += ["mode"] if meant == "/readiness" else ["replication_state"] if asked else []
    answers = {
        "200": _answer("Yes", "Check", reason=True),
        "400": _answer("A value of the query cannot be understood", "Error"),
        "503": _answer("No, and why not", "Check", reason=True),
    }
    if meant == "/liveness":
        del answers["503"]
    if meant == "/standby-leader":
        del answers["200"]
    return _reads(words, answers, asked)


def _document(words: str, schema: str, asked: tuple[str, ...]) -> Json:
    answers = {"200": _answer("Always", schema)}
    if asked:
        answers["400"] = _answer("A value of the query cannot be understood", "Error")
    return _reads(words, answers, asked)


def _page(words: str, media: tuple[str, ...]) -> Json:
    text: Json = {one: {"schema": {"type": "string"}} for one in media}
    return _reads(words, {"200": {"description": "Always", "content": text}})


def _reads(words: str, answers: dict[str, Json], asked: Iterable[str] = ()) -> Json:
    """GET, and the two that answer as it does."""
    parameters = [{"$ref": f"#/components/parameters/{name}"} for name in asked]
    answers = {"403": _answer("The caller's address is not in checks.allow", "Error"), **answers}
    bare = {
        status: {name: part for name, part in said.items() if name != "content"}
        for status, said in answers.items()
    }
    return {
        "get": {"summary": words, "parameters": parameters, "responses": answers},
        "head": {"summary": "GET without its body", "parameters": parameters, "responses": bare},
        "options": {"summary": "The status of GET, and Allow", "parameters": parameters, "responses": bare},
    }


def _peer() -> Json:
    """What agents say to one another; a stranger learns what /status says too."""
    no_stranger = _answer("tls.client_ca is set and the caller showed no certificate of it", "Error")
    told = _reads(
        "What the agents ask one another", {"200": _answer("Always", "Message"), "403": no_stranger}
    )
    refusals = {
        "400": "The message cannot be read",
        "401": "Its signature is not of peer.secret",
        "403": "No peer.secret and no tls.client_ca here, or no certificate of the latter",
        "408": "The body did not arrive in time",
        "409": "It was read before",
        "413": "The body is too long",
        "503": "Too many are being read",
    }
    signed = {"name": "X-Healthagent-Signature", "in": "header", "schema": {"type": "string"}}
    return {
        **told,
        "post": {
            "summary": "The same two ways, signed; only between agents",
            "parameters": [signed],
            "requestBody": _body("Message"),
            "responses": {
                "200": _answer("This agent's own description, signed", "Message"),
                **{status: _answer(words, "Error") for status, words in refusals.items()},
            },
        },
    }


def _change(words: str, asked: str, done: str) -> Json:
    return {
        "summary": words,
        "description": "From loopback, over control.socket, or with control.token.",
        "security": [{}, {"token": []}],
        "requestBody": _body(asked),
        "responses": {
            "200": _answer("Done", done),
            "400": _answer("The body is not what is wanted", "Error"),
            "403": _answer("The caller may not change anything", "Error"),
            "409": _answer("Not while another node may be written to", "Error"),
            "413": _answer("The body is too long", "Error"),
            "415": _answer("The body is no application/json", "Error"),
        },
    }


def _answer(words: str, schema: str, reason: bool = False) -> Json:
    header = {"X-Healthagent-Reason": {"schema": ref("Reason")}}
    return {
        "description": words,
        **({"headers": header} if reason else {}),
        "content": {"application/json": {"schema": ref(schema)}},
    }


def _body(schema: str) -> Json:
    return {"required": True, "content": {"application/json": {"schema": ref(schema)}}}
