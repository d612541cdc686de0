"""Write an HAProxy configuration in which two nodes never take writes at once.

The gate layout judges twice. `pg_probe` tallies what each agent says and carries no traffic. An
internal HTTP frontend, the gate, answers 200 for a node only while the tally is exactly one. The
write backend is checked through the gate, so that a second primary takes both servers down there
and `on-marked-down` cuts the sessions that exist: a `reject` rule cannot do that. The simple
layout has the tally only as a rule on new connections.

Keywords and their traps: HAProxy's configuration.txt 2.6 to 3.x, sections 4.2, 5.2 and 5.3.
"""

from collections.abc import Iterable, Sequence

from healthagent.haproxy.nodes import HaproxyNode, ServerTemplate
from healthagent.haproxy.options import Options
from healthagent.haproxy.servers import (
    agent_defaults,
    check_defaults,
    checked_lines,
    common_http_port,
    plain_lines,
    shared_lines,
    template_lines,
    with_own_agents,
)

WRITE_TIMING = "inter 1s fastinter 200ms downinter 250ms fall 2 rise 1"
READ_TIMING = "inter 2s fastinter 500ms downinter 1s fall 3 rise 2"
DONTLOGNULL = "    option dontlognull\n"
RETRIES = "    retries 2                       # of the connect only, so no statement is ever sent twice\n"


def render(nodes: Sequence[HaproxyNode], options: Options) -> str:
    """Return the whole configuration for these nodes; they and the options are without problems."""
    if options.simple:
        return _simple(options, common_http_port(nodes), checked_lines(nodes, options, agent=False))
    sections = [
        _opening(options, "gate layout"),
        _global_and_defaults(options),
        _probe(nodes, options),
        _gate(nodes, options),
        _gated_writes(nodes, options),
        _gated_reads(nodes, options),
        *_stats(options),
    ]
    return "\n".join(sections)


def render_template(template: ServerTemplate, options: Options) -> str:
    """Return the simple configuration for one DNS name that answers with the addresses of all nodes.

    The gate is not possible here: each backend fills its slots by itself, so that `pg1` of the
    tally and `pg1` of the write backend may be two different nodes.
    """
    return _simple(options, template.http_port, template_lines(template))


def _opening(options: Options, layout: str) -> str:
    ports = f"Writes: {options.write_port}, reads: {options.read_port}"
    page = options.stats_port
    stats = f", stats and /metrics: 127.0.0.1:{page}" if page is not None else ""
    return f"# healthagent and HAProxy 2.6 to 3.x, {layout}. {ports}{stats}.\n"


def _global_and_defaults(options: Options) -> str:
    user = f"    user {options.user}\n    group {options.user}\n" if options.user else ""
    # The simple layout is short: HAProxy's own 3 retries do, and nothing is logged of a connection anyway.
    null, retries = ("", "") if options.simple else (DONTLOGNULL, RETRIES)
    names = "    default-server resolvers dns init-addr libc,none\n" if options.nameserver else ""
    return f"""\
global
    log stdout format raw local0 notice
{user}\
    # A local socket only: over TCP it would have no authentication.
    stats socket {options.admin_socket} mode 660 level admin expose-fd listeners
    # Every server counts as UP until its first check, and first checks are spread over `inter`:
    # without this line a replica was sent writes for 2 s after a start.
    max-spread-checks 50
    # After a reload the old process checks nothing any more, so its sessions would stay on the old
    # primary for ever. Bound them.
    hard-stop-after 30s
{_resolvers(options)}
defaults
    mode tcp
    log global
{null}\
    # A host that dies without a word must not hold its sessions until `timeout server`.
    option clitcpka
    option srvtcpka
    option redispatch
{retries}\
    # Up to 3.2 a check may last max(`timeout check`, min(`timeout connect`, `inter`)): keep both low.
    timeout connect 500ms
    timeout check   500ms
    timeout client  30m
    timeout server  30m
{names}\
.if version_atleast(3.1)
    # From 3.1 on servers start DOWN, and come back from a failed name resolution DOWN.
    default-server init-state down
.endif
"""


def _resolvers(options: Options) -> str:
    if options.nameserver is None:
        return ""
    source = (
        "parse-resolv-conf" if options.nameserver == "resolv.conf" else f"nameserver dns {options.nameserver}"
    )
    return f"""
resolvers dns
    {source}
    accepted_payload_size 4096
    # A server that lost its name for longer than these goes into maintenance, and before 3.1 comes
    # back from there UP and unchecked: a restarted replica would count as a second primary. So keep
    # the last address for ever; the health check takes a dead one down.
    hold nx 24d
    hold other 24d
    hold refused 24d
    hold timeout 24d
    hold obsolete 24d
"""


def _probe(nodes: Sequence[HaproxyNode], options: Options) -> str:
    listed = " ".join(f"pg_primary/{node.name}=%[srv_conn(pg_primary/{node.name})]" for node in nodes)
    sessions = f' hdr X-Healthagent-Sessions "{listed}"'
    judged = with_own_agents(nodes)
    return f"""\
# --- 1. The tally: what each agent says about itself. No traffic ever goes here. ---------------------
# No `backup` servers: nbsrv() does not count them while another one is up.
backend pg_probe
    option log-health-checks
    option httpchk
    # The agents see which sessions they have: in X-Haproxy-Server-State here, where there are none, and in
    # X-Healthagent-Sessions those of pg_primary. A line of checks is for all servers, so it lists them all.
    http-check send-state
    http-check send meth OPTIONS uri /primary ver HTTP/1.1 hdr Host %[srv_name] hdr User-Agent haproxy-check{
        sessions
    }
    http-check expect status 200    # without it every 2xx and 3xx counts as healthy
    # fall 2: one lost packet is no failover. The agent port needs no second opinion: its "down" acts
    # within agent-inter. A silent agent port has no opinion, so it never stands without `check`.
{
        _indented(
            [
                *check_defaults(common_http_port(nodes), WRITE_TIMING, options),
                *agent_defaults(judged, "200ms", "primary"),
                *shared_lines(nodes),
                *checked_lines(judged, options, agent=True),
            ]
        )
    }"""


def _gate(nodes: Sequence[HaproxyNode], options: Options) -> str:
    rules = [
        f"http-request return status 200 if {{ path /{node.name} }} {{ srv_is_up(pg_probe/{node.name}) }}"
        for node in nodes
    ]
    return f"""\
# --- 2. The gate: 200 for the one primary; for nobody while there are none or two. -------------------
frontend gate
    mode http
    bind 127.0.0.1:{options.gate_port}
    timeout client 2s
    option dontlog-normal
    http-request return status 503 unless {{ nbsrv(pg_probe) eq 1 }}
{_indented(rules)}\
    http-request return status 503
"""


def _gated_writes(nodes: Sequence[HaproxyNode], options: Options) -> str:
    rules = [
        f"tcp-request connection accept if {{ srv_is_up(pg_probe/{node.name}) }}"
        f" {{ srv_is_up(pg_primary/{node.name}) }}"
        for node in nodes
    ]
    return f"""\
# --- 3. Writes ---------------------------------------------------------------------------------------
frontend pg_write
    bind {options.write_bind()}
    option tcplog
    # The second line of defence, asked for each connection: two primaries, or a start at which all
    # servers still count as UP. The client sees a reset connection and may try again.
    tcp-request connection reject unless {{ nbsrv(pg_probe) eq 1 }} {{ nbsrv(pg_primary) eq 1 }}
    # At a start both counts can be one, of two different servers: the same one has to be up in both.
{_indented(rules)}\
    tcp-request connection reject
    default_backend pg_primary

backend pg_primary
    # Checked through the gate: a second primary takes both servers down here, which cuts the
    # sessions that exist already.
    option httpchk
    http-check connect addr 127.0.0.1 port {options.gate_port}
    http-check send meth GET uri-lf /%[srv_name] ver HTTP/1.1 hdr Host gate
    http-check expect status 200
    default-server check inter 100ms fall 1 rise 1 on-marked-down shutdown-sessions
{_indented(plain_lines(nodes))}"""


def _gated_reads(nodes: Sequence[HaproxyNode], options: Options) -> str:
    judged = with_own_agents(nodes)
    fallback = "{ nbsrv(pg_replica) eq 0 } { nbsrv(pg_probe) eq 1 } { nbsrv(pg_primary) eq 1 }"
    return f"""\
# --- 4. Reads ----------------------------------------------------------------------------------------
frontend pg_read
    bind {options.read_bind()}
    option tcplog
    # No replica left: the primary takes the reads, but only where it would take the writes.
    use_backend pg_primary if {fallback}
    default_backend pg_replica

backend pg_replica
    balance leastconn               # takes changing weights; `source` and `static-rr` do not
    option log-health-checks
    option httpchk
    http-check send meth OPTIONS uri /replica ver HTTP/1.1 hdr Host %[srv_name] hdr User-Agent haproxy-check
    http-check send-state
    http-check expect status 200
    # Reads forgive more: slower checks, and no on-marked-down, since a short lag must not kill long
    # queries. The agent lowers the weight first: 100 to start from, or "42%" of 1 would round to 0.
{
        _indented(
            [
                *check_defaults(common_http_port(nodes), f"{READ_TIMING} weight 100", options),
                *agent_defaults(judged, "1s", "replica"),
                *shared_lines(nodes),
                *checked_lines(judged, options, agent=True),
            ]
        )
    }"""


def _stats(options: Options) -> list[str]:
    if options.stats_port is None:
        return []
    return [
        f"""\
# Stats page, and metrics for Prometheus. Alert on haproxy_backend_active_servers not being 1.
frontend stats
    mode http
    bind 127.0.0.1:{options.stats_port}
    timeout client 10s
    option dontlog-normal
    http-request use-service prometheus-exporter if {{ path /metrics }}
    stats enable
    stats uri /
    stats refresh 5s
"""
    ]


def _simple(options: Options, http_port: int, servers: Sequence[str]) -> str:
    write_timing = f"{WRITE_TIMING} on-marked-down shutdown-sessions"
    return "\n".join(
        [
            _opening(options, "simple layout"),
            _global_and_defaults(options),
            f"""\
# Writes. No `backup` servers: nbsrv() does not count them while another one is up.
listen pg_primary
    bind {options.write_bind()}
    # Two primaries, or a start at which all servers still count as UP: refuse. Sessions that exist
    # already go on until their node's own 503; to cut those too takes the gate layout.
    tcp-request connection reject unless {{ nbsrv(pg_primary) eq 1 }}
    option httpchk OPTIONS /primary
    http-check send-state           # the agent sees the sessions it still has: X-Haproxy-Server-State
    http-check expect status 200    # without it every 2xx and 3xx counts as healthy
    # fall 2: one lost packet is no failover.
{_indented([*check_defaults(http_port, write_timing, options), *servers])}
# Reads. No on-marked-down: a short lag must not kill long queries.
listen pg_replica
    bind {options.read_bind()}
    # No replica left: the primary takes the reads, but only where it would take the writes.
    use_backend pg_primary if {{ nbsrv(pg_replica) eq 0 }} {{ nbsrv(pg_primary) eq 1 }}
    balance leastconn
    option httpchk OPTIONS /replica
    http-check expect status 200
{_indented([*check_defaults(http_port, READ_TIMING, options), *servers])}""",
            *_stats(options),
        ]
    )


def _indented(lines: Iterable[str]) -> str:
    return "".join(f"    {line}\n" for line in lines)
