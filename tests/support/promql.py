"""What dashboards, rules and runbooks ask of Prometheus, taken apart with promql-parser."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import promql_parser

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import timedelta

_GRAFANA_VARIABLE = re.compile(r"\$\{?(\w+)\}?")


@dataclass(frozen=True, slots=True)
class Selector:
    """A metric as an expression asks for it."""

    metric: str
    matchers: tuple[str, ...]
    """As written, sorted: `job=~"$job"`."""
    range: timedelta | None
    functions: tuple[str, ...]
    """The functions around it, the innermost last."""

    @property
    def labels(self) -> set[str]:
        return {re.split("[=!]", matcher)[0] for matcher in self.matchers}


def filled(expr: str, values: Mapping[str, str]) -> str:
    """The expression with Grafana's variables replaced; KeyError for one that is not given."""
    return _GRAFANA_VARIABLE.sub(lambda match: values[match[1]], expr)


def selectors(expr: str) -> list[Selector]:
    """Every metric that the expression asks for; ValueError if it is no PromQL."""
    return list(_selectors(promql_parser.parse(expr), (), None))


def grouping_labels(expr: str) -> set[str]:
    """The labels that the expression aggregates and matches by."""
    return {label for node in _nodes(promql_parser.parse(expr)) for label in _labels(node)}


def _labels(node: Any) -> Iterator[str]:
    modifier = getattr(node, "modifier", None)
    yield from getattr(modifier, "labels", None) or ()
    yield from getattr(getattr(modifier, "matching", None), "labels", None) or ()
    yield from getattr(modifier, "group_labels", None) or ()


def _children(node: Any) -> Iterator[Any]:
    for name in ("expr", "param", "lhs", "rhs", "vector_selector"):
        child = getattr(node, name, None)
        if isinstance(child, promql_parser.Expr):
            yield child
    yield from getattr(node, "args", ())


def _nodes(node: Any) -> Iterator[Any]:
    yield node
    for child in _children(node):
        yield from _nodes(child)


def _selectors(node: Any, functions: tuple[str, ...], span: timedelta | None) -> Iterator[Selector]:
    if isinstance(node, promql_parser.VectorSelector):
        matchers = tuple(sorted(str(matcher) for matcher in node.matchers.matchers))
        yield Selector(node.name or "", matchers, span, functions)
        return
    if isinstance(node, promql_parser.Call):
        functions = (*functions, node.func.name)
    if isinstance(node, promql_parser.MatrixSelector):
        span = node.range
    for child in _children(node):
        yield from _selectors(child, functions, span)
