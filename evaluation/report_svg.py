"""The charts of a report as SVG that stands in HTML: every colour is an attribute, so a saved chart looks the same.

Lines and letters have the page's colour (`currentColor`). A method's own colour is the attribute `color` of its marks,
and its class (`c0`, `c1`, …) lets the page lighten it on a dark ground.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from gapbench.evaluation.drawing import COLOURS, CONTROLS, Style
from gapbench.evaluation.report_charts import Bands, Curves, Dots, Scatter
from gapbench.evaluation.report_ranks import Ranks
from gapbench.evaluation.results import Floats
from gapbench.evaluation.tables import number

LETTER = 6.9  # the width of a letter of 12 units, on average
CLASSES = {colour: f"c{place}" for place, colour in enumerate((*COLOURS, *CONTROLS.values()))}
SVG = Markup(
    '<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{title}" '
    'font-family="system-ui, sans-serif" font-size="12" fill="currentColor">{inside}</svg>'
)
LINE = Markup('<path d="{d}" fill="none" stroke="currentColor" stroke-width="{width}"{more}/>')
TEXT = Markup('<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>')
FAINT = Markup(' opacity="0.25"')


@dataclass(frozen=True)
class Axis:
    """A scale from numbers to units of the drawing. low, high: the numbers at its ends. start, end: their places."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (np.log10([self.low, self.high, value])) if self.log else (self.low, self.high, value)
        return float(self.start + (at - low) / ((high - low) or 1.0) * (self.end - self.start))

    @property
    def ticks(self) -> list[float]:
        return log_ticks(self.low, self.high) if self.log else ticks(self.low, self.high)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between two ends: at most `most`, in steps of 1, 2 or 5 times a power of ten."""
    rough = max(high - low, 1e-300) / most
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(float(factor * power) for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    return [round(k * step, 12) + 0.0 for k in range(int(np.ceil(low / step - 1e-9)), int(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between two ends, and where these are few 2 and 5 times them; 3 times them in between."""
    span = np.log10(high / low)
    factors = (1, 2, 5) if span <= 1.5 else (1, 3) if span <= 3 else (1,)
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    every = max(1, int(span / 6))
    found = [factor * 10.0**power for power in powers if power % every == 0 for factor in factors]
    return [tick for tick in found if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]


def dots(chart: Dots, width: int = 400) -> Markup:
    """A row a method: a hollow mark for the first region and a full one for the second, each with its interval."""
    longest = max(len(row.label) for row in chart.rows)
    left, row_height, top = min(175.0, 14 + LETTER * longest), 20, 30
    bottom = top + row_height * len(chart.rows)
    axis = Axis(*chart.limits, left, width - 24, chart.log)
    parts = [_grid_x(axis, top, bottom, number if chart.log else chart.word)]
    parts += _gaps(axis, [chart.about], top, bottom)
    parts.append(LINE.format(d=f"M{axis(chart.right):.1f} {top}V{bottom}", width=1.5, more=""))
    parts.append(TEXT.format(x=(left + width) / 2, y=bottom + 32, anchor="middle", words=chart.axis))
    for place, name in enumerate(chart.series):
        at = left + 8 + place * 110
        parts += [_mark(at, 12, place == 0 and len(chart.series) > 1)]
        parts += [TEXT.format(x=at + 9, y=16, anchor="start", words=name)]
    for place, row in enumerate(chart.rows):
        middle = top + row_height * (place + 0.5)
        words = TEXT.format(x=left - 8, y=middle + 4, anchor="end", words=_short(row.label, left))
        marks = []
        for at, estimate in enumerate(row.estimates):
            y = middle + 7 * (at - (len(row.estimates) - 1) / 2)
            if np.isnan(estimate.value):
                continue
            if np.isfinite([estimate.low, estimate.high]).all():
                ends = [axis(float(np.clip(end, *chart.limits))) for end in (estimate.low, estimate.high)]
                marks.append(LINE.format(d=f"M{ends[0]:.1f} {y:.1f}H{ends[1]:.1f}", width=1.6, more=""))
            x = axis(float(np.clip(estimate.value, *chart.limits)))
            marks.append(_mark(x, y, at == 0 and len(row.estimates) > 1))
        parts.append(_of(row.method, words, _coloured(row.style[0], marks)))
    return _svg(width, bottom + 40, chart.title, parts)


def curves(chart: Curves, width: int = 420, height: int = 300) -> Markup:
    """Lines over x, the gap shaded, the legend below."""
    left, top, right = 52.0, 10.0, width - 10.0
    aside = 14.0 if chart.ticks else 0.0  # marks at the ends are whole
    x = Axis(float(min(chart.x)), float(max(chart.x)), left + aside, right - aside)
    y = Axis(*chart.limits, height - 40.0, top, chart.log)
    named = dict(enumerate(chart.ticks)) if chart.ticks else None
    parts = [_grid_y(y, left, right), *_gaps(x, chart.gaps, top, height - 40.0)]
    parts.append(_grid_x(x, top, height - 40.0, number, named))
    parts.append(TEXT.format(x=(left + right) / 2, y=height - 10, anchor="middle", words=chart.axis))
    drawn = []
    if chart.band is not None:
        low, high = chart.band
        drawn.append(_area(chart.x, low, lambda at: x(at) - left, lambda at: y(at) - top, high, 0.18))
    if chart.right is not None:
        drawn.append(LINE.format(d=f"M0 {y(chart.right) - top:.1f}H{right - left}", width=1.5, more=""))
    for line in chart.lines:
        d = path(chart.x, line.values, lambda at: x(at) - left, lambda at: y(at) - top)
        marks = [LINE.format(d=d, width=1.8, more=_dashes(line.style))]
        if chart.ticks:
            known = [(a, b) for a, b in zip(chart.x, line.values, strict=True) if np.isfinite(b)]
            marks += [_mark(x(a) - left, y(float(np.clip(b, *chart.limits))) - top, False) for a, b in known]
        drawn.append(_of(line.method, _coloured(line.style[0], marks)))
    if chart.diagonal:
        drawn.append(LINE.format(d=f"M0 {height - 40 - top}L{right - left} 0", width=1, more=FAINT))
    parts.append(_window(left, top, right - left, height - 40 - top, drawn))
    across = max(1, int((width - 10) // (LETTER * max(len(line.label) for line in chart.lines) + 44)))
    for place, line in enumerate(chart.lines):
        down, along = divmod(place, across)
        at, under = 10 + along * (width - 10) / across, height + 10 + 17 * down
        sample = LINE.format(d=f"M{at:.1f} {under - 4}h26", width=1.8, more=_dashes(line.style))
        words = TEXT.format(x=at + 31, y=under, anchor="start", words=_short(line.label, width - 40.0))
        parts.append(_of(line.method, _coloured(line.style[0], [sample]), words))
    return _svg(width, height + 12 + 17 * -(-len(chart.lines) // across), chart.title, parts)


def scatter(chart: Scatter, width: int = 480, height: int = 340) -> Markup:
    """A mark a method, named, with its interval; a line joins those that no other one beats in both. Hollow: not
    ranked."""
    left, top, right, bottom = 52.0, 10.0, width - 10.0, height - 40.0
    ends = [end for spot in chart.spots for end in vars(spot.y).values() if np.isfinite(end) and end > 0]
    x = Axis(min(spot.x for spot in chart.spots) / 1.5, max(spot.x for spot in chart.spots) * 1.5, left, right, True)
    y = Axis(min(ends) / 1.3, max(ends) * 1.3, bottom, top, True)
    parts = [_grid_y(y, left, right), _grid_x(x, top, bottom)]
    parts.append(TEXT.format(x=(left + right) / 2, y=height - 8, anchor="middle", words=chart.axis))
    best = [(x(spot.x), y(spot.y.value)) for spot in chart.spots if spot.method in chart.front]
    if len(best) > 1:
        d = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in best)
        parts.append(LINE.format(d=d, width=1.2, more=Markup(' stroke-dasharray="5 4"')))
    taken = [(x(spot.x) - 4, x(spot.x) + 4, y(spot.y.value)) for spot in chart.spots]
    for spot in chart.spots:
        a, b = x(spot.x), y(spot.y.value)
        marks = [_mark(a, b, not spot.ranked)]
        if np.isfinite([spot.y.low, spot.y.high]).all() and spot.y.low > 0:
            marks.append(LINE.format(d=f"M{a:.1f} {y(spot.y.low):.1f}V{y(spot.y.high):.1f}", width=1.4, more=""))
        own = [_coloured(spot.style[0], marks)]
        words = _short(spot.label, 175.0)
        wide = LETTER * len(words)
        start, middle = _free(a, b, wide, taken, (left, right))
        if abs(middle - b) > 11:  # a label that is not beside its mark is joined to it
            d = f"M{a:.1f} {b:.1f}L{start if start > a else start + wide:.1f} {middle:.1f}"
            own.append(LINE.format(d=d, width=1, more=FAINT))
        own.append(TEXT.format(x=start, y=middle + 4, anchor="start", words=words))
        parts.append(_of(spot.method, *own))
    return _svg(width, height, chart.title, parts)


def _free(
    x: float, y: float, wide: float, taken: list[tuple[float, float, float]], ends: tuple[float, float]
) -> tuple[float, float]:
    """The start and the middle of a label beside its mark: the nearest place, left or right, that covers nothing.

    taken: start, end and middle of the marks and labels that are there; the place is added to it.
    """
    sides = [start for start in (x + 7, x - 7 - wide) if ends[0] <= start and start + wide <= ends[1]] or [x + 7]
    places = [(start, y + away) for away in sorted(range(-72, 73, 6), key=abs) for start in sides]

    def free(place: tuple[float, float]) -> bool:
        start, middle = place
        return all(start > end or start + wide < begin or abs(middle - at) >= 11 for begin, end, at in taken)

    start, middle = next(filter(free, places), places[0])
    taken.append((start, start + wide, middle))
    return start, middle


def ranked(chart: Ranks, width: int = 460) -> Markup:
    """A row a method, at its average rank; lines on the right join methods that are not told apart."""
    longest = max(len(row.label) for row in chart.rows)
    left, row_height, top = min(175.0, 14 + LETTER * longest), 20, 8
    right, bottom = width - 16.0 - 9 * len(chart.bars), top + row_height * len(chart.rows)
    axis = Axis(1.0, float(max(len(chart.rows), 2)), left + 6, right - 6)
    parts = [_grid_x(axis, top, bottom)]
    parts.append(TEXT.format(x=(left + right) / 2, y=bottom + 32, anchor="middle", words="average rank, 1 is the best"))
    middles = [top + row_height * (place + 0.5) for place in range(len(chart.rows))]
    for row, middle in zip(chart.rows, middles, strict=True):
        words = TEXT.format(x=left - 8, y=middle + 4, anchor="end", words=_short(row.label, left))
        marks = [_mark(axis(row.rank), middle, row.label != row.method)]
        parts.append(_of(row.method, words, _coloured(row.style[0], marks)))
    for place, (first, last) in enumerate(chart.bars):
        d = f"M{right + 10 + 9 * place:.1f} {middles[first] - 6:.1f}V{middles[last] + 6:.1f}"
        parts.append(LINE.format(d=d, width=3, more=Markup(' stroke-linecap="round" opacity="0.7"')))
    return _svg(width, bottom + 40, chart.title, parts)


def frame(bands: Bands, width: int = 420, height: int = 300, window: str = "") -> tuple[Axis, Axis, list[Markup]]:
    """The axes of a panel of bands, and their marks. window: the id of an empty window that the page's script fills."""
    x = Axis(*bands.across, 38.0, width - 8.0)
    y = Axis(*bands.limits, height - 22.0, 8.0)
    parts = [_grid_y(y, 38.0, width - 8.0), _grid_x(x, 8.0, height - 22.0), *_gaps(x, bands.gaps, 8.0, height - 22.0)]
    if window:
        parts.append(_window(38, 8, width - 46, height - 30, [], Markup(' id="{}"').format(window)))
    return x, y, parts


def viewer(bands: Bands, window: str) -> Markup:
    """The frame in which the page's script draws."""
    return _svg(420, 300, f"Bands of {bands.dataset}", frame(bands, window=window)[2])


def panel(bands: Bands, at: int, width: int = 260, height: int = 170) -> Markup:
    """A method's band on the first replica: grey the reference's, dashed the truth, dots the data."""
    band = bands.methods[at]
    x, y, parts = frame(bands, width, height)
    every = slice(None, None, max(1, len(bands.x) // 40))
    over = bands.x[every]

    def inside(values: Floats) -> tuple[list[float], Callable[[float], float], Callable[[float], float]]:
        return values[every].tolist(), lambda at: x(at) - 38, lambda at: y(at) - 8

    drawn = []
    if bands.data[0] is not None:
        known = zip(*bands.data[0], strict=True)
        d = "".join(f"M{x(float(a)) - 38:.0f} {y(float(b)) - 8:.0f}h0" for a, b in known)
        drawn.append(LINE.format(d=d, width=3, more=Markup(' stroke-linecap="round" opacity="0.3"')))
    if bands.reference is not None:
        low, high = bands.reference[:, 0]
        drawn.append(_area(over, *inside(low), inside(high)[0], 0.22))
    low, middle, high = band.quantiles[:, 0]
    own = [
        _area(over, *inside(low), inside(high)[0], 0.35),
        LINE.format(d=path(over, *inside(middle)), width=1.6, more=""),
    ]
    drawn.append(_coloured(band.style[0], own))
    if bands.truth is not None:
        drawn.append(
            LINE.format(d=path(over, *inside(bands.truth[0])), width=1, more=Markup(' stroke-dasharray="4 3"'))
        )
    parts.append(_window(38, 8, width - 46, height - 30, drawn))
    return _svg(width, height, f"{bands.dataset}: the band of {band.label}", parts)


def path(x: Iterable[float], y: Iterable[float], across: Callable[[float], float], up: Callable[[float], float]) -> str:
    """The `d` of a line through points; it breaks where y is not a number."""
    pieces, pen = [], "M"
    for a, b in zip(x, y, strict=True):
        known = np.isfinite(b) and np.isfinite(up(b))
        # Far outside the window a line need not be exact, and its digits would be many.
        pieces += [f"{pen}{across(a):.1f} {np.clip(up(b), -2000, 2000):.1f}"] if known else []
        pen = "L" if known else "M"
    return "".join(pieces)


def _area(
    x: Sequence[float] | Floats,
    low: Sequence[float],
    across: Callable[[float], float],
    up: Callable[[float], float],
    high: Sequence[float],
    opacity: float,
) -> Markup:
    known = [(a, b, c) for a, b, c in zip(x, low, high, strict=True) if np.isfinite([b, c]).all()]
    way = [(a, b) for a, b, _ in known] + [(a, c) for a, _, c in reversed(known)]
    d = path([a for a, _ in way], [b for _, b in way], across, up)
    return Markup('<path d="{}Z" opacity="{}"/>').format(d, opacity) if d else Markup("")


def _gaps(x: Axis, gaps: Iterable[tuple[float, float]], top: float, bottom: float) -> list[Markup]:
    rect = Markup('<rect x="{:.1f}" y="{}" width="{:.1f}" height="{}" opacity="0.09"/>')
    return [rect.format(x(low), top, x(high) - x(low), bottom - top) for low, high in gaps]


def _grid_x(
    axis: Axis,
    top: float,
    bottom: float,
    word: Callable[[float], str] = number,
    named: Mapping[int, str] | None = None,
) -> Markup:
    """Lines and words at round numbers; or at the numbers that are named."""
    places = {tick: word(tick) for tick in axis.ticks} if named is None else named
    lines = "".join(f"M{axis(tick):.1f} {top}V{bottom}" for tick in places)
    words = [TEXT.format(x=axis(tick), y=bottom + 14, anchor="middle", words=told) for tick, told in places.items()]
    return Markup("").join([LINE.format(d=lines, width=1, more=Markup(' opacity="0.15"')), *words])


def _grid_y(axis: Axis, left: float, right: float) -> Markup:
    lines = "".join(f"M{left} {axis(tick):.1f}H{right}" for tick in axis.ticks)
    words = [TEXT.format(x=left - 5, y=axis(tick) + 4, anchor="end", words=number(tick)) for tick in axis.ticks]
    return Markup("").join([LINE.format(d=lines, width=1, more=Markup(' opacity="0.15"')), *words])


def _mark(x: float, y: float, hollow: bool) -> Markup:
    fill = Markup('fill="none" stroke="currentColor" stroke-width="1.6"') if hollow else Markup('fill="currentColor"')
    return Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{}" {}/>').format(x, y, 3.2 if hollow else 3.8, fill)


def _of(method: str, *parts: Markup) -> Markup:
    """What a chart shows of a method: the page makes it faint where the method is left out."""
    return Markup('<g data-name="{}">{}</g>').format(method, Markup("").join(parts))


def _coloured(colour: str, parts: Sequence[Markup]) -> Markup:
    group = Markup('<g class="{}" color="{}" fill="currentColor">{}</g>')
    return group.format(CLASSES.get(colour, "c0"), colour, Markup("").join(parts))


def _dashes(style: Style) -> Markup:
    line = style[1]
    return Markup("") if isinstance(line, str) else Markup(' stroke-dasharray="{}"').format(" ".join(map(str, line[1])))


def _window(x: float, y: float, width: float, height: float, parts: Sequence[Markup], more: str = "") -> Markup:
    """What is drawn in it is cut at its edges."""
    window = Markup('<svg x="{}" y="{}" width="{}" height="{}" overflow="hidden"{}>{}</svg>')
    return window.format(x, y, width, height, more, Markup("").join(parts))


def _short(label: str, room: float) -> str:
    most = max(3, int((room - 8) // LETTER))
    return label if len(label) <= most else label[: most - 1] + "…"


def _svg(width: float, height: float, title: str, parts: Sequence[Markup]) -> Markup:
    return SVG.format(width=width, height=height, title=title, inside=Markup("\n").join(parts))
