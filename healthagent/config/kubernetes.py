"""The pod that the agent runs in, and the label that it keeps there."""

import ipaddress
import re
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from healthagent.config.document import Node
from healthagent.config.keys import Key
from healthagent.config.peers import BaseUrl
from healthagent.config.values import AbsolutePath, Duration, Schema, Text, reject, spell_text, text_of

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # where Kubernetes mounts token and CA
MOST_NAME = 56  # characters: Kubernetes allows 63, and `-change` is added for an annotation

_PREFIX = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*"
_LABEL_KEY = re.compile(rf"(?:({_PREFIX})/)?([A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?)", re.ASCII)


@dataclass(frozen=True, slots=True)
class LabelKey:
    """The key of a label: a name, or a DNS name, a slash and a name."""

    def parse(self, node: Node) -> str:
        want = f"want the key of a label such as healthagent.io/role, its name at most {MOST_NAME} characters"
        match = _LABEL_KEY.fullmatch(text_of(node, want))
        if match is None or len(match[1] or "") > 253 or len(match[2]) > MOST_NAME:
            reject(want, node)
        return match[0]

    def spell(self, value: str) -> str:
        return spell_text(value)

    @property
    def schema(self) -> Schema:
        return {"type": "string", "pattern": f"^{_LABEL_KEY.pattern}$"}


@dataclass(frozen=True, slots=True)
class ApiUrl(BaseUrl):
    """As a peer's URL, but plain HTTP only where nobody can listen: the token is not for everybody."""

    def parse(self, node: Node) -> str:
        url = BaseUrl.parse(self, node)
        if url.startswith("http:") and not is_loopback(urlsplit(url).hostname or ""):
            reject("want https://HOST:PORT (http:// only for loopback, as of kubectl proxy)", node)
        return url


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, slots=True)
class KubernetesSettings:
    """A label that the agent keeps on its own pod, for Services that select by it."""

    role_label: Annotated[
        str | None,
        Key(
            "The label's key: primary or replica while that answers 200, else absent; null: off",
            LabelKey(),
            nullable=True,
        ),
    ] = None
    pod: Annotated[
        str, Key("The name of this pod", Text(most=253), nullable=True, computed="the host name")
    ] = field(default_factory=socket.gethostname)
    namespace: Annotated[
        str | None,
        Key("Its namespace; null: that of the service account, beside token_file", Text(), nullable=True),
    ] = None
    uid: Annotated[
        str | None,
        Key("Its metadata.uid: a namesake is then never labelled; null: not compared", Text(), nullable=True),
    ] = None
    api: Annotated[
        str | None,
        Key(
            "Where the Kubernetes API answers; null: KUBERNETES_SERVICE_HOST and _PORT",
            ApiUrl(),
            nullable=True,
        ),
    ] = None
    token_file: Annotated[
        Path, Key("The token of the service account, read anew for each change", AbsolutePath())
    ] = ACCOUNT / "token"
    ca_file: Annotated[Path, Key("Who must have signed the certificate of the API", AbsolutePath())] = (
        ACCOUNT / "ca.crt"
    )
    timeout: Annotated[float, Key("How long one change may take", Duration(0.1, 60))] = 2.0
