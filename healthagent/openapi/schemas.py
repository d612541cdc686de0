"""The bodies and parameters of /openapi.json.

Bodies that others read field by field are described in full, the rest by what is always there.
"""

import msgspec

from healthagent.control import LONGEST, LONGEST_ON, MaintenanceAsked, OverrideAsked
from healthagent.core.model import Reason, Role
from healthagent.events import MOST, Kind
from healthagent.server.events import HIGHEST
from healthagent.server.query import MODES, REPLICATION_STATES
from healthagent.wire import Message

Json = dict[str, object]


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def components() -> Json:
    _, defined = msgspec.json.schema_components(
        [Message, MaintenanceAsked, OverrideAsked], ref_template="#/components/schemas/{name}"
    )
    defined["Maintenance"] = defined.pop("MaintenanceAsked")
    defined["Override"] = _override(defined.pop("OverrideAsked")["properties"])
    return {
        "parameters": _parameters(),
        "schemas": {**defined, **_schemas()},
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "control.token"}},
    }


def _override(fields: dict[str, Json]) -> Json:
    """The things of which one may ask for one, each with what it needs."""

    def one(required: list[str], **narrower: Json) -> Json:
        return {
            "type": "object",
            "properties": {**fields, **narrower},
            "required": required,
            "additionalProperties": False,
        }

    longest: Json = {"type": "number", "exclusiveMinimum": 0, "maximum": LONGEST}
    longest_on: Json = {"type": "number", "exclusiveMinimum": 0, "maximum": LONGEST_ON}
    said: Json = {**fields["why"], "minLength": 1, "pattern": "[A-Za-z0-9]"}
    yes: Json = {"const": True}
    no: Json = {"const": False}
    return {
        "anyOf": [
            {"title": "Clear", **one(["clear"], clear=yes, primary=NULL, end=no)},
            {"title": "End", **one(["end"], clear=no, primary=NULL, end=yes)},
            {
                "title": "Refuse for a while",
                **one(["primary", "seconds"], clear=no, primary={"const": "off"}, end=no, seconds=longest),
            },
            {
                "title": "Permit for a while",
                **one(
                    ["primary", "seconds", "why"],
                    clear=no,
                    primary={"const": "on"},
                    end=no,
                    seconds=longest_on,
                    why=said,
                ),
            },
        ]
    }


def _parameters() -> Json:
    lag = (
        "At most so far behind, in bytes (16MB; B kB MB GB TB) or in time (5s; us ms s min h d). "
        "Patroni's other spellings of a number are read too."
    )
    bare: Json = {"type": "number", "minimum": 0, "exclusiveMaximum": 2**63}
    with_unit = r"^(0|[1-9][0-9]{0,5})(\.[0-9]{1,6})?(B|kB|MB|GB|TB|us|ms|s|min|h|d)$"
    return {
        "lag": _query("lag", lag, {"anyOf": [bare, {"type": "string", "pattern": with_unit}]}),
        "replication_state": _query(
            "replication_state", "Only in this state.", {"enum": list(REPLICATION_STATES)}
        ),
        "mode": _query("mode", "Count what was replayed, or what was received.", {"enum": list(MODES)}),
        "since": _query(
            "since", "Those after this number.", {"type": "integer", "minimum": 0, "maximum": HIGHEST}
        ),
        "limit": _query("limit", "At most so many.", {"type": "integer", "minimum": 1, "maximum": MOST}),
    }


def _query(name: str, words: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "required": False, "description": words, "schema": schema}


def _object(required: str, **properties: Json) -> Json:
    """An object with these fields, others may come; `required` names those that are always there."""
    names = required.split()
    known = {**{name: {} for name in names}, **properties}
    return {"type": "object", "required": names, "properties": known}


TEXT: Json = {"type": "string"}
FLAG: Json = {"type": "boolean"}
NUMBER: Json = {"type": "number"}
WHOLE: Json = {"type": "integer"}
NULL: Json = {"type": "null"}
NOT_SAVED: Json = {**TEXT, "description": "It is in force, and not yet in the state file: why."}


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, NULL]}


def _list(schema: Json) -> Json:
    return {"type": "array", "items": schema}


def _schemas() -> Json:
    verdict = _object("ok reason detail", ok=FLAG, reason=ref("Reason"), detail=TEXT)
    node = _object(
        "state role patroni healthagent",
        state={"enum": ["running", "starting", "stopped", "unknown"]},
        role={"enum": [*Role, "uninitialized"]},
        timeline=WHOLE,
        server_version=WHOLE,
        postmaster_start_time=_or_null(TEXT),
        database_system_identifier=TEXT,
        replication_state={"enum": list(REPLICATION_STATES)},
        patroni=_object("version scope name", version=TEXT, scope=TEXT, name=TEXT),
        healthagent=_object("version", version=TEXT),
    )
    said = _object(
        "primary replica reason detail", primary=FLAG, replica=FLAG, reason=ref("Reason"), detail=TEXT
    )
    member = _object("name role state", name=TEXT, role=TEXT, state=TEXT, host=TEXT, port=WHOLE, api_url=TEXT)
    return {
        "Reason": {"type": "string", "enum": list(Reason), "description": "The rule that decided."},
        "Check": {"allOf": [ref("Node"), _object("verdict", verdict=said)]},
        "Node": node,
        "Cluster": _object("members scope", members=_list(member), scope=TEXT, pause=FLAG),
        "History": _list({"type": "array", "minItems": 5, "maxItems": 5}),
        "Status": _object(
            "name cluster version incarnation uptime witness role timeline reason detail verdicts postgres "
            "members peers high_water term last_served conflict yields_to maintenance alarms",
            name=TEXT,
            cluster=TEXT,
            uptime=NUMBER,
            witness=FLAG,
            role=_or_null({"enum": list(Role)}),
            timeline=_or_null(WHOLE),
            reason=ref("Reason"),
            verdicts=_object("primary replica", primary=verdict, replica=verdict),
            peers=_list(_object("name heard", name=TEXT, heard=FLAG)),
            alarms=_list(TEXT),
        ),
        "Lease": _object("mode held", mode=TEXT, held=FLAG),
        "Events": _object(
            "name cluster incarnation first last events",
            first=_or_null(WHOLE),
            last=WHOLE,
            events=_list(
                _object(
                    "seq at age kind ok reason detail who why",
                    seq=WHOLE,
                    at={"type": "string", "format": "date-time"},
                    age=_or_null(NUMBER),
                    kind={"enum": list(Kind)},
                    ok=_or_null(FLAG),
                    who=_or_null(TEXT),
                )
            ),
        ),
        "Description": _object("openapi info paths", openapi=TEXT),
        "MaintenanceDone": _object(
            "on seconds",
            on=FLAG,
            seconds=_or_null({"type": "number", "exclusiveMinimum": 0, "maximum": LONGEST}),
            not_saved=NOT_SAVED,
        ),
        "OverrideDone": {
            "anyOf": [
                _object("cleared", cleared=_list(TEXT), not_saved=NOT_SAVED),
                _object("ended", ended=FLAG, not_saved=NOT_SAVED),
                _object(
                    "primary seconds",
                    primary={"enum": ["on", "off"]},
                    seconds=NUMBER,
                    not_saved=NOT_SAVED,
                ),
            ]
        },
        "Error": _object("error", error=TEXT, paths=_list(TEXT)),
    }
