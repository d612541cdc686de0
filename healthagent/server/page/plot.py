"""The last hour of a member as a band of shapes and a line of its lag, in SVG.

A kind is told by height and pattern as well as by colour. Bands are placed in per cent of the
width, so that no pattern is stretched; what flaps is drawn in coarser steps, the worst kept.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from healthagent.history import SLOT, SLOTS, History, Run, Shade
from healthagent.server.page.markup import Html, tag
from healthagent.server.page.words import MEANINGS, SHADES, lasting, size

BAND = 26  # pixels
LAG = 34  # pixels
MANY = 8  # members; of more each gets fewer shapes
SPANS = (120, 360, SLOTS)  # slots: of a young history 10 or 30 minutes are drawn, not an hour
MOST_RUNS, FEWER_RUNS = 120, 30  # of one member: each divides all spans
MOST_POINTS, FEWER_POINTS = 360, 60  # of a line: likewise, where there are as many slots
LEAST_TOP = 65536.0  # bytes: below that a lag is nothing to look at

# (y, height) in pixels, from the top
_PLACES = {
    Shade.WRITES: (0, BAND),
    Shade.PRIMARY_REFUSED: (0, BAND),
    Shade.READS: (BAND // 2, BAND // 2),
    Shade.REPLICA_REFUSED: (BAND // 2, BAND // 2),
    Shade.OUT: (BAND // 2, BAND // 2),
    Shade.DOWN: (BAND - 7, 7),
    Shade.SILENT: (BAND - 3, 3),
    Shade.WITNESS: (BAND - 3, 3),
}


@dataclass(frozen=True, slots=True)
class Hour:
    """What is drawn of one member."""

    runs: list[Run]
    slots: int
    lags: list[float | None]  # bytes

    @property
    def shades(self) -> set[Shade]:
        return {run.state.shade for run in self.runs} - {Shade.NOTHING}


def span_of(history: History) -> int:
    """How many slots are drawn."""
    return next(span for span in SPANS if span >= history.recorded)


def hour_of(history: History, entry: str, members: int) -> Hour:
    """A member's hour, in steps so coarse that there are not too many shapes."""
    slots = span_of(history)
    runs, points = (MOST_RUNS, MOST_POINTS) if members <= MANY else (FEWER_RUNS, FEWER_POINTS)
    return Hour(history.runs(entry, slots, runs), slots, history.lags(entry, slots, min(points, slots)))


def mark(shade: Shade) -> Html:
    """A member's sign: what its band looks like, small."""
    y, height = _PLACES.get(shade, (BAND, 0))
    scale = 14 / BAND
    shape = tag("rect", class_=_class(shade), x=1, y=f"{1 + y * scale:.1f}", width=14, height=height * scale)
    return tag("svg", shape, class_="mark", width=16, height=16, aria_hidden="true", focusable="false")


def band(name: str, hour: Hour, end: datetime) -> Html:
    """What a member was good for, from an hour ago (left) to now."""
    scale = 100 / hour.slots
    shapes = [
        tag(
            "rect",
            tag("title", f"{_when(run, hour, end)}: {said(run)}"),
            class_=_class(run.state.shade),
            x=f"{run.begin * scale:.2f}%",
            y=_PLACES[run.state.shade][0],
            width=f"{(run.end - run.begin) * scale:.2f}%",
            height=_PLACES[run.state.shade][1],
        )
        for run in hour.runs
        if run.state.shade is not Shade.NOTHING
    ]
    label = f"{name}: {in_total(hour)}"
    return tag("svg", *shapes, class_="band", width="100%", height=BAND, role="img", aria_label=label)


def in_total(hour: Hour) -> str:
    """The hour in words, the longest first."""
    totals: dict[Shade, int] = {}
    for run in hour.runs:
        totals[run.state.shade] = totals.get(run.state.shade, 0) + run.end - run.begin
    longest = sorted(totals.items(), key=lambda item: -item[1])
    return ", ".join(f"{SHADES[shade]} {lasting(steps * SLOT)}" for shade, steps in longest)


def spans(hour: Hour, end: datetime, most: int) -> list[tuple[str, str]]:
    """The newest runs as (when, what), newest first."""
    told = [run for run in reversed(hour.runs) if run.state.shade is not Shade.NOTHING]
    return [(_when(run, hour, end), said(run)) for run in told[:most]]


def lag_line(name: str, lags: list[float | None], top: float) -> Html:
    """A member's lag over the hour, `top` bytes being the full height."""
    path, drawing, last = "", False, None
    for at, lag in enumerate(lags):
        if lag is None:
            drawing = False
            continue
        y = round(98 - 94 * min(1.0, lag / top), 1)
        path += f"L{at} {y}" if drawing and y != last else "" if drawing else f"M{at} {y}"
        path += f"H{at + 1}"
        drawing, last = True, y
    known = [lag for lag in lags if lag is not None]
    label = f"{name}, lag: {f'at most {size(max(known))}' if known else 'none known'}"
    return tag(
        "svg",
        tag("path", d=path, class_="lag", vector_effect="non-scaling-stroke") if path else None,
        class_="lagplot",
        width="100%",
        height=LAG,
        viewBox=f"0 0 {len(lags)} 100",
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
    )


def top_of(hours: Iterable[Hour]) -> float:
    """The full height of all lines: the next of 64, 96, 128, 192 ... kB above the largest lag."""
    most = max((lag for hour in hours for lag in hour.lags if lag is not None), default=0.0)
    top = LEAST_TOP
    while 1.5 * top < most:
        top *= 2
    return top if most <= top else 1.5 * top


def legend(shades: set[Shade]) -> Html:
    """What the shapes mean that are to be seen."""
    return tag("ul", *(tag("li", mark(one), SHADES[one]) for one in SHADES if one in shades), class_="legend")


def said(run: Run) -> str:
    """A run in words."""
    state = run.state
    what = SHADES[state.shade] + (f", timeline {state.timeline}" if state.timeline else "")
    if state.shade in (Shade.WRITES, Shade.READS, Shade.SILENT, Shade.WITNESS):
        return what
    return f"{what}: {MEANINGS.get(state.reason, state.reason)}"


def _class(shade: Shade) -> str:
    return f"is-{shade.name.lower().replace('_', '-')}"


def _when(run: Run, hour: Hour, end: datetime) -> str:
    def at(place: int) -> str:
        return (end - timedelta(seconds=(hour.slots - place) * SLOT)).strftime("%H:%M:%S")

    return f"since {at(run.begin)}" if run.end == hour.slots else f"{at(run.begin)} to {at(run.end)}"
