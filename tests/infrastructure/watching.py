"""What alarms and dashboards of a template refer to, metric by metric."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.infrastructure.templates import Template, construct_path, flat

_SEARCH: Final = re.compile(r"SEARCH\('\{(?P<schema>[^}]+)\} (?P<wanted>[^']+)'")
_TERM: Final = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A metric that an alarm or a widget names.

    Attributes:
        by: The alarm's id or the widget's title.
        namespace: Of the metric.
        name: Of the metric.
        dimensions: Names and values, sorted.
        free: Dimensions that may have any value, as a search finds them.
        region: Of the metric; empty for the template's own.
    """

    by: str
    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...]
    free: frozenset[str] = frozenset()
    region: str = ""

    def fits(self, name: str, dimensions: Mapping[str, str]) -> bool:
        """Tell whether a series that was emitted is one of those that are meant."""
        given = {key: value for key, value in dimensions.items() if key not in self.free}
        return (
            name == self.name
            and given == dict(self.dimensions)
            and self.free <= dimensions.keys() - given.keys()
        )


def widgets_of(template: Template) -> list[dict[str, Any]]:
    """Return the widgets of all dashboards."""
    return [
        widget
        for page in template.of_type("AWS::CloudWatch::Dashboard").values()
        for widget in json.loads(flat(page["Properties"]["DashboardBody"]))["widgets"]
    ]


def of_alarms(template: Template) -> Iterator[Reference]:
    """Yield what alarms watch, inside of expressions as well."""
    for resource in template.of_type("AWS::CloudWatch::Alarm").values():
        by = construct_path(resource).split("/")[-2]
        properties = resource["Properties"]
        parts = [
            m["MetricStat"]["Metric"] for m in properties.get("Metrics", []) if "MetricStat" in m
        ]
        for metric in parts or [properties]:
            pairs = sorted((d["Name"], flat(d["Value"])) for d in metric.get("Dimensions", []))
            yield Reference(by, metric["Namespace"], metric["MetricName"], tuple(pairs))


def of_widgets(template: Template) -> Iterator[Reference]:
    """Yield what widgets show, searches included."""
    for widget in widgets_of(template):
        properties = widget["properties"]
        for metric in properties.get("metrics", ()):
            yield from _shown(properties["title"], metric)


def _shown(title: str, metric: Sequence[Any]) -> Iterator[Reference]:
    options = metric[-1] if isinstance(metric[-1], dict) else {}
    words = [word for word in metric if isinstance(word, str)]
    if words:
        namespace, name, *pairs = words
        dimensions = sorted(zip(pairs[::2], pairs[1::2], strict=True))
        yield Reference(title, namespace, name, tuple(dimensions), region=options.get("region", ""))
    elif found := _SEARCH.match(options.get("expression", "")):
        namespace, *names = found["schema"].split(",")
        fixed = dict(_TERM.findall(found["wanted"]))
        name = fixed.pop("MetricName")
        free = frozenset(names) - fixed.keys()
        yield Reference(title, namespace, name, tuple(sorted(fixed.items())), free)
