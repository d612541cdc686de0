"""`healthagent config`: look at the configuration before the agent does."""

import argparse
import json
import sys
from collections.abc import Sequence

from healthagent.config import ConfigError, Configuration, example, load, schema, show
from healthagent.config.gather import TABLE, Flags

EXAMPLE = """\
example:
  healthagent config example > /etc/healthagent.yaml
  healthagent config check -c /etc/healthagent.yaml
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `config` to the command line; its arguments name `run` of this module as `command`."""
    parser = subparsers.add_parser(
        "config",
        help="check, show or explain the configuration",
        description="Check, show or explain the configuration.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, help_text, example_line in (
        ("check", "report every problem; exit 2 if there is one", "check -c /etc/healthagent.yaml"),
        ("show", "print what is in force, and where each value came from", "show -c /etc/healthagent.yaml"),
        ("example", "print a configuration file that explains every setting", "example > healthagent.yaml"),
        ("schema", "print the JSON Schema of the file, for editors", "schema > healthagent.schema.json"),
    ):
        action = actions.add_parser(
            name,
            help=help_text,
            description=help_text.capitalize() + ".",
            epilog=f"example:\n  healthagent config {example_line}\n",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name in ("check", "show"):
            add_file(action)
    parser.set_defaults(command=run)


def add_file(parser: argparse.ArgumentParser) -> None:
    """Add -c, as every command that reads the configuration has it."""
    parser.add_argument("-c", "--config", metavar="FILE", help="the configuration (else HEALTHAGENT_CONFIG)")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the settings that have a flag; `given_flags` reads them back."""
    for field in TABLE.values():
        if field.key.flag is None:
            continue
        if field.default is False:
            parser.add_argument(
                field.key.flag, dest=field.path, action="store_true", default=None, help=field.key.help
            )
        elif field.path == "peers":
            parser.add_argument(
                field.key.flag,
                dest=field.path,
                action="append",
                metavar="NAME=URL",
                help="another member; may be repeated",
            )
        else:
            parser.add_argument(
                field.key.flag, dest=field.path, metavar=field.name.upper(), help=field.key.help
            )


def given_flags(arguments: argparse.Namespace) -> Flags:
    """Return the settings that the command line gave, as `load` takes them."""
    flags: dict[str, str | bool | Sequence[str]] = {}
    for field in TABLE.values():
        value: str | bool | list[str] | None = getattr(arguments, field.path, None)
        if field.key.flag is not None and value is not None:
            flags[field.path] = value
    return flags


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked; 0, or 2 with every problem on standard error."""
    if arguments.action == "example":
        sys.stdout.write(example())
        return 0
    if arguments.action == "schema":
        sys.stdout.write(json.dumps(schema(), indent=2) + "\n")
        return 0
    configuration = load_or_complain(arguments.config)
    if configuration is None:
        return 2
    sys.stdout.write(show(configuration) if arguments.action == "show" else "no problems\n")
    return 0


def load_or_complain(path: str | None, flags: Flags | None = None) -> Configuration | None:
    """Load the configuration, with problems and warnings on standard error; None if it cannot be used."""
    configuration = usable(path, flags)
    for line in configuration.warnings if configuration else ():
        sys.stderr.write(f"warning: {line}\n")
    return configuration


def usable(path: str | None, flags: Flags | None = None) -> Configuration | None:
    """The same for who has a better place for the warnings: only problems go to standard error."""
    try:
        return load(path, flags=flags)
    except ConfigError as error:
        sys.stderr.write("".join(f"{line}\n" for line in error.problems))
        return None
