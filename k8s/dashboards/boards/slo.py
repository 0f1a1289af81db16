"""The objectives: what is left of their error budgets, and how fast these are used."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from k8s.dashboards.panels import Panel, board, lines, number, rows
from k8s.dashboards.promql import RULES, Query, rate

MONTH = "30d"
FAULTS = 'reason=~"ENGINE_.*|INTERNAL|T3_.*|WINDOW_.*|S3GEN_.*",reason!="ENGINE_BUSY"'  # as in rules.yaml
PAGE, TICKET = 14.4, 6  # how many times too fast the budget may be used, as in rules.yaml


def _share(bad: str, good: str, over: str = MONTH) -> str:
    return f"{rate(bad, over=over, every='increase')} / {rate(good, over=over, every='increase')}"


_ON_TIME = rate("mynah_ttfa_seconds_bucket", "", 'le="0.5"', every="increase", over=MONTH)
_SLOW = f"(1 - {_ON_TIME} / {rate('mynah_ttfa_seconds_count', every='increase', over=MONTH)})"
_SILENT = f"({_share('mynah_underrun_seconds_total', 'mynah_audio_seconds_total')})"
_ADMITTED = rate("mynah_streams_admitted_total", every="increase", over=MONTH)
_FAILED = f"(({rate('mynah_errors_total', '', FAULTS, every='increase', over=MONTH)} or vector(0)) / {_ADMITTED})"


def _left(title: str, of: str, bad_share: str, objective: float) -> Panel:
    about = f"Share of the error budget of 30 days that is left: {of}. Over as many days as Prometheus keeps samples."
    left = Query(f"1 - {bad_share} / {objective}", "left")
    return number(title, about, left, "percentunit", limit=0.0, good_above=True, width=8)


def _burn(title: str, of: str, rule: str, objective: float) -> Panel:
    about = (
        f"How many times faster than evenly over 30 days the budget for {of} is used. "
        f"{PAGE:g} for an hour and still is a page (the line); {TICKET} for six hours and still is a ticket."
    )
    windows = ("5m", "1h", "6h")
    burns = [Query(f"mynah:{rule}:ratio{window}{{{RULES}}} / {objective}", window) for window in windows]
    return lines(title, about, burns, "none", limit=PAGE)


def slo() -> Dashboard:
    """Error budgets and how fast they are used, as the alerts see them."""
    refused = f"mynah:refusals:ratio{{{RULES}}}"
    firing = f'ALERTS{{alertname=~"Mynah.*",alertstate="firing",{RULES}}}'
    serving = f"count(mynah_streams_capacity{{{RULES}}}) / count(mynah_build_info{{{RULES}}})"
    return board(
        "slo",
        "Mynah · Objectives",
        slo.__doc__ or "",
        [
            (
                "Error budget that is left",
                [
                    _left("First audio", "at most 5 % of first chunks take over 0.5 s", _SLOW, 0.05),
                    _left("Underruns", "silence of at most 0.1 % of the audio", _SILENT, 0.001),
                    _left("Errors", "at most 0.1 % of streams end by a fault of the server", _FAILED, 0.001),
                ],
            ),
            (
                "How fast it is used",
                [
                    _burn("First audio", "slow first chunks", "slow_first_audio", 0.05),
                    _burn("Underruns", "silence", "underrun", 0.001),
                    _burn("Errors", "failed streams", "errors", 0.001),
                ],
            ),
            (
                "Availability",
                [
                    lines(
                        "Refused streams",
                        "Share of requested streams that full or starting servers refuse. Refusals are retryable "
                        "and use no error budget; over 1 % there is an alert.",
                        [Query(refused, "refused")],
                        "percentunit",
                        limit=0.01,
                    ),
                    lines(
                        "Servers that serve",
                        "Share of the scraped servers that accept streams; the others start or drain.",
                        [Query(serving, "serving")],
                        "percentunit",
                        top=1.0,
                    ),
                    rows(
                        "Alerts that fire",
                        "Alerts of rules.yaml that fire now; each has a runbook in operations.md.",
                        Query(firing),
                        height=8,
                    ),
                ],
            ),
        ],
    )
