"""Draws a simulated day as SVG: how long jobs waited, how many came, how many instances lived."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 960
_LEFT, _RIGHT = 64, 932
_UPPER: Final = (52, 312)  # top and bottom of the panel of waiting times
_LOWER: Final = (362, 482)
HEIGHT: Final = 528
_HOURS: Final = 24
_INK, _MUTED, _GRID = "#1f2328", "#59636e", "#d8dee4"
_DOT, _MEDIAN, _HIGH, _OUTAGE = "#7aa7d9", "#0b57a4", "#b3430c", "#f6d9cc"
_BAR, _LINE = "#c3cbd4", "#24734a"


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What is drawn.

    Attributes:
        waits: Of each job, the hour of its queueing and the seconds until it started.
        bins: Hours of a quarter's middle, its median and its 95th percentile.
        arrivals: Jobs queued in each quarter of an hour.
        alive: Hours and the instances alive then.
        outage: First and last hour without any capacity.
        title: Above it all.
    """

    waits: Sequence[tuple[float, float]]
    bins: Sequence[tuple[float, float, float]]
    arrivals: Sequence[int]
    alive: Sequence[tuple[float, int]]
    outage: tuple[float, float]
    title: str


def draw(picture: Picture) -> str:
    """Return the picture as SVG."""
    longest = max((seconds for _, seconds in picture.waits), default=60.0)
    low, high = 1.0, max(2.0, math.log10(longest * 1.5))

    def x(hour: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * hour / _HOURS

    def y(seconds: float) -> float:
        share = (math.log10(max(seconds, 10.0**low)) - low) / (high - low)
        return _UPPER[1] - (_UPPER[1] - _UPPER[0]) * share

    parts = [
        _open(),
        f"<title>{picture.title}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(_LEFT, 24, picture.title, size=15, weight="600"),
    ]
    begin, end = picture.outage
    for top, bottom in (_UPPER, _LOWER):
        parts.append(
            f'<rect x="{x(begin):.1f}" y="{top}" width="{x(end) - x(begin):.1f}" '
            f'height="{bottom - top}" fill="{_OUTAGE}"/>'
        )
    parts.append(_text(x(end) + 6, _UPPER[0] + 16, "no capacity for an hour", fill=_HIGH))
    parts += _waits(picture, x, y, 10.0**high)
    parts += _load(picture, x)
    for top, bottom in (_UPPER, _LOWER):
        parts += [_line(_LEFT, bottom, _RIGHT, bottom, _MUTED), _line(_LEFT, top, _LEFT, bottom)]
    for hour in range(0, _HOURS + 1, 2):
        parts.append(_text(x(hour), _LOWER[1] + 18, f"{hour:02}:00", anchor="middle", fill=_MUTED))
    parts.append(_text(_RIGHT, _LOWER[1] + 36, "time of queueing, UTC", anchor="end", fill=_MUTED))
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _open() -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" role="img" '
        'font-family="system-ui, Helvetica, Arial, sans-serif" font-size="12">'
    )


def _waits(
    picture: Picture, x: Callable[[float], float], y: Callable[[float], float], most: float
) -> list[str]:
    parts = []
    marks = ((10, "10 s"), (30, "30 s"), (60, "1 min"), (300, "5 min"), (900, "15 min"))
    for seconds, name in (*marks, (3600, "1 h"), (4 * 3600, "4 h")):
        if seconds <= most:
            parts.append(_line(_LEFT, y(seconds), _RIGHT, y(seconds)))
            parts.append(_text(_LEFT - 8, y(seconds) + 4, name, anchor="end", fill=_MUTED))
    dots = "".join(f"M{x(hour):.1f} {y(seconds):.1f}h0" for hour, seconds in picture.waits)
    parts.append(
        f'<path d="{dots}" stroke="{_DOT}" stroke-width="2.4" stroke-linecap="round" '
        f'stroke-opacity="0.35" fill="none"/>'
    )
    median = [(x(hour), y(middle)) for hour, middle, _ in picture.bins]
    high = [(x(hour), y(high)) for hour, _, high in picture.bins]
    parts += [_path(high, _HIGH, 1.6), _path(median, _MEDIAN, 2.2)]
    dot = f'<circle cx="{_LEFT + 6}" cy="40" r="3" fill="{_DOT}"/>'
    parts += [dot, _text(_LEFT + 16, 44, "a job, from queued to started", fill=_MUTED)]
    at = _LEFT + 214
    for name, colour in (("median", _MEDIAN), ("95th percentile", _HIGH)):
        parts.append(_line(at, 40, at + 22, 40, colour, width=2.2))
        parts.append(_text(at + 28, 44, f"{name} of each quarter of an hour", fill=_MUTED))
        at += 232
    return parts


def _load(picture: Picture, x: Callable[[float], float]) -> list[str]:
    top, bottom = _LOWER
    most = max([*picture.arrivals, *(count for _, count in picture.alive), 1])
    step = next(s for s in (10, 25, 50, 100, 250, 500, 1000, 2500) if most / s <= 5)

    def height(count: float) -> float:
        return (bottom - top) * count / most

    parts = []
    for count in range(step, most + 1, step):
        parts.append(_line(_LEFT, bottom - height(count), _RIGHT, bottom - height(count)))
        mark = bottom - height(count) + 4
        parts.append(_text(_LEFT - 8, mark, str(count), anchor="end", fill=_MUTED))
    for quarter, count in enumerate(picture.arrivals):
        left = x(quarter / 4)
        parts.append(
            f'<rect x="{left + 0.6:.1f}" y="{bottom - height(count):.1f}" '
            f'width="{x(0.25) - x(0) - 1.2:.1f}" height="{height(count):.1f}" fill="{_BAR}"/>'
        )
    line = [(x(hour), bottom - height(count)) for hour, count in picture.alive]
    parts.append(_path(line, _LINE, 1.8))
    parts.append(f'<rect x="{_LEFT}" y="{top - 18}" width="12" height="10" fill="{_BAR}"/>')
    parts.append(_text(_LEFT + 18, top - 9, "jobs queued in each quarter of an hour", fill=_MUTED))
    parts.append(_line(_LEFT + 260, top - 13, _LEFT + 282, top - 13, _LINE, width=1.8))
    parts.append(_text(_LEFT + 288, top - 9, "instances alive", fill=_MUTED))
    return parts


def _line(
    x1: float, y1: float, x2: float, y2: float, /, colour: str = _GRID, *, width: float = 1.0
) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="{colour}" stroke-width="{width}"/>'
    )


def _path(points: Iterable[tuple[float, float]], colour: str, width: float) -> str:
    steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return (
        f'<path d="M{steps}" fill="none" stroke="{colour}" stroke-width="{width}" '
        f'stroke-linejoin="round"/>'
    )


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    fill: str = _INK,
    size: int = 12,
    weight: str = "400",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}" '
        f'font-size="{size}" font-weight="{weight}">{text}</text>'
    )
