"""The section of the status page that shows the last hour."""

from asyncio import sleep
from collections.abc import Sequence
from datetime import datetime

from healthagent.history import SLOT, History, Shade
from healthagent.server.page.markup import Html, tag
from healthagent.server.page.plot import Hour, band, hour_of, lag_line, legend, span_of, spans, top_of
from healthagent.server.page.words import size
from healthagent.standing import Standing

MOST_SPANS = 12  # of a member, in words


async def hour_section(history: History, standings: Sequence[Standing], end: datetime) -> Html:
    """Bands of what every member was good for, and lines of its lag; checks are answered in between."""
    hours, rows = {}, []
    for one in standings:
        hours[one.entry] = hour_of(history, one.entry, len(standings))
        await sleep(0)
    shades: set[Shade] = set().union(*(hour.shades for hour in hours.values())) if hours else set()
    top = top_of(hours.values())
    for one in standings:
        rows.append(_row(one, hours[one.entry], top, end))
        await sleep(0)
    minutes = int(span_of(history) * SLOT // 60)
    axis = (f"{minutes} min ago", *(f"{minutes * part / 4:g}" for part in (3, 2, 1)), "now")
    note = f"Lines: lag, full height {size(top)}. This agent forgets the hour when it restarts."
    return tag(
        "section",
        tag("h2", "The last hour" if minutes == 60 else f"The last {minutes} minutes", id="h-hour"),
        legend(shades),
        tag("div", *rows, class_="plot"),
        tag("p", *(tag("span", words) for words in axis), class_="axis", aria_hidden="true"),
        tag("p", note, class_="dim"),
        _in_words(standings, hours, end),
        id="hour",
        aria_labelledby="h-hour",
    )


def _row(standing: Standing, hour: Hour, top: float, end: datetime) -> Html:
    known = [lag for lag in hour.lags if lag is not None]
    lag = None
    if known:
        peak = tag("span", f"peak {size(max(known))}", class_="peak", aria_hidden="true")
        lag = tag("div", lag_line(standing.name, hour.lags, top), peak, class_="lags")
    return tag(
        "div",
        tag("div", standing.name, class_="of", aria_hidden="true"),
        tag("div", band(standing.name, hour, end), lag, class_="lines"),
        class_="track",
    )


def _in_words(standings: Sequence[Standing], hours: dict[str, Hour], end: datetime) -> Html:
    """The same for those who cannot see it, or want the times."""
    items: list[Html] = []
    for one in standings:
        told = [tag("li", f"{when}: {what}") for when, what in spans(hours[one.entry], end, MOST_SPANS)]
        items += [tag("dt", one.name), tag("dd", tag("ul", *told) if told else "nothing recorded yet")]
    return tag("details", tag("summary", "The same in words (UTC)"), tag("dl", *items, class_="words"))
