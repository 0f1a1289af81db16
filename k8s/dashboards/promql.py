"""PromQL of the dashboards: what a board's variables select, rates, quantiles."""

from __future__ import annotations

from dataclasses import dataclass

RULES = 'namespace=~"$namespace"'  # recording rules have no other label
PODS = f'{RULES},pod=~"$pod"'
RATE = "$__rate_interval"


@dataclass(frozen=True)
class Query:
    """A PromQL expression and its legend. `exemplars`: also points that lead to single streams' traces."""

    expr: str
    legend: str = ""
    exemplars: bool = False


def select(metric: str, *matchers: str) -> str:
    """The series of a metric in the chosen namespaces and pods."""
    return f"{metric}{{{','.join([PODS, *matchers])}}}"


def rate(metric: str, by: str = "", *matchers: str, every: str = "rate", over: str = RATE) -> str:
    """The summed rate of a counter, by labels; `every="increase"` counts instead."""
    return f"sum{f' by ({by})' if by else ''} ({every}({select(metric, *matchers)}[{over}]))"


def quantiles(histogram: str, *matchers: str, exemplars: bool = False) -> list[Query]:
    """p50, p95 and p99 of a histogram; exemplars are those of the last."""
    buckets = rate(f"{histogram}_bucket", "le", *matchers)
    return [
        Query(f"histogram_quantile({q / 100}, {buckets})", f"p{q}", exemplars=exemplars and q == 99)
        for q in (50, 95, 99)
    ]


def p95(histogram: str, by: str, *matchers: str, exemplars: bool = False) -> Query:
    buckets = rate(f"{histogram}_bucket", f"{by}, le", *matchers)
    return Query(f"histogram_quantile(0.95, {buckets})", legend(by), exemplars)


def mean(histogram: str, by: str) -> Query:
    return Query(f"{rate(f'{histogram}_sum', by)} / {rate(f'{histogram}_count', by)}", legend(by))


def heat(histogram: str, exemplars: bool = False) -> Query:
    """The counts of a histogram's buckets."""
    return Query(rate(f"{histogram}_bucket", "le", every="increase"), "{{le}}", exemplars)


def per_second(counter: str, by: str = "", *matchers: str) -> Query:
    return Query(rate(counter, by, *matchers), legend(by) if by else "per second")


def by_pod(metric: str, *matchers: str) -> Query:
    """A gauge of each pod."""
    return Query(select(metric, *matchers), legend("pod"))


def legend(by: str) -> str:
    """`a, b` as Grafana's template of both labels."""
    return ": ".join(f"{{{{{label}}}}}" for label in by.split(", "))
