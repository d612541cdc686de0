"""`healthagent sql`: the role that the agent logs in to PostgreSQL as, with no more rights than it needs."""

import argparse

ROLE = "healthagent"

# Everything else that the probe reads is granted to PUBLIC. No default_transaction_read_only for the role:
# the probe reads that setting to learn what other sessions get.
TEMPLATE = """\
-- The role that healthagent asks PostgreSQL 12 to 18 as. Run this as a superuser on the primary; standbys
-- replicate it. It needs a pg_hba.conf line, and a password (\\password in psql) or peer authentication.
CREATE ROLE {role} LOGIN;

-- Who follows whom, and from where: pg_stat_replication and pg_stat_wal_receiver.
GRANT pg_monitor TO {role};

-- PostgreSQL 16 and newer, with reserved_connections = 2: the agent gets in when all other slots are taken.
-- GRANT pg_use_reserved_connections TO {role};
"""

EXAMPLE = """\
example:
  healthagent sql | psql -X postgres
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `sql` to the command line; its arguments name `run` of this module as `command`."""
    parser = subparsers.add_parser(
        "sql",
        help="print the CREATE ROLE and GRANT statements for the probe's role",
        description="Print the CREATE ROLE and GRANT statements for the role that asks PostgreSQL.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--role", metavar="NAME", default=ROLE, help=f"its name (default: {ROLE})")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the statements."""
    print(statements(arguments.role), end="")
    return 0


def statements(role: str) -> str:
    """Spell the SQL for a role of that name, whatever characters it has."""
    quoted = '"' + role.replace('"', '""') + '"'
    return TEMPLATE.format(role=role if role == ROLE else quoted)
