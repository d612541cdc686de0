"""The table of keys as text: the commented example, what is in force, the JSON Schema."""

from collections.abc import Callable, Iterator
from textwrap import fill, indent

from healthagent.config.gather import TABLE
from healthagent.config.keys import Field, record_schema
from healthagent.config.load import Configuration
from healthagent.config.reload import value_of
from healthagent.config.settings import Settings
from healthagent.config.values import Schema

_INTRODUCTION = """\
# The configuration of healthagent. Every value here is the default: keep what you change.
# Each key is also an environment variable, HEALTHAGENT_<SECTION>_<KEY>, which wins over this file:
# drain is HEALTHAGENT_DRAIN, peer.max_age is HEALTHAGENT_PEER_MAX_AGE.
# Durations: 500ms, 3s, 1min, 1h. Sizes: 16MB (B kB MB GB TB, of 1024).

"""

_PEERS = """\
# For example:
#   - {name: pg2, url: "http://10.0.0.12:8008"}
#   - {name: pg3, url: "http://10.0.0.13:8008", dsn: "postgresql://healthagent@10.0.0.13/postgres"}
#   - {name: w1, url: "http://10.0.0.21:8008", witness: true}
# dsn: asked while that agent is silent. postgres, agent_check: HOST:PORT where not at the URL's host
# and 5432, 8009. HEALTHAGENT_PEERS="pg2=http://10.0.0.12:8008,pg3=http://10.0.0.13:8008"
"""


def example() -> str:
    """Return the default configuration as YAML, each key with its effect and default."""

    def line(field: Field) -> str:
        if field.key.computed:
            value, default = "null", f"null, {field.key.computed}"
        else:
            value = default = field.spell(field.default)
        more = _PEERS if field.path == "peers" else ""
        return f"{_comment(f'{field.key.help}. Default: {default}')}{more}{_key(field)}: {value}\n"

    return _INTRODUCTION + "".join(_layout(line))


def show(configuration: Configuration) -> str:
    """Return what is in force as YAML, each key with where it came from; secrets as ***."""

    def line(field: Field) -> str:
        source = configuration.sources.get(field.path, "default")
        value = field.spell(value_of(configuration.settings, field))
        first, *rest = value.split("\n")
        return "\n".join([f"{_key(field)}:{' ' if first else ''}{first}  # {source}", *rest]) + "\n"

    return "".join(_layout(line, without_files=True))


def schema() -> Schema:
    """Return the JSON Schema of the file."""
    title = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "healthagent"}
    return title | record_schema(Settings)


def _layout(line: Callable[[Field], str], *, without_files: bool = False) -> Iterator[str]:
    """Yield the lines of all keys in the table's order, those of a section indented below its name."""
    section = ""
    for field in TABLE.values():
        if without_files and field.file_of is not None:
            continue
        if field.section != section:
            section = field.section
            yield "\n"
            if section:
                about = type(getattr(Settings(), section)).__doc__ or ""
                yield f"{_comment(about)}{section}:\n"
        text = line(field)
        yield indent(text, "  ") if section else text


def _comment(text: str) -> str:
    return indent(fill(text, 100, break_long_words=False, break_on_hyphens=False), "# ") + "\n"


def _key(field: Field) -> str:
    # Other readers of YAML take a bare `on` for true.
    return f'"{field.name}"' if field.name == "on" else field.name
