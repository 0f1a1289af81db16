"""Uploads, stored voices and their storage."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from k8s.dashboards.panels import board, lines
from k8s.dashboards.promql import RULES, Query, by_pod, per_second, quantiles

_VOLUME = f'{RULES},persistentvolumeclaim=~"mynah-.*"'


def voices() -> Dashboard:
    """Uploads of reference audio, stored voices, and the storage that they and the weights lie on."""
    free = f"kubelet_volume_stats_available_bytes{{{_VOLUME}}} / kubelet_volume_stats_capacity_bytes{{{_VOLUME}}}"
    refused = 'reason=~"UPLOAD.*|VOICE.*|AUDIO.*|CONSENT.*|STOR.*"'
    return board(
        "voices",
        "Mynah · Voices",
        voices.__doc__ or "",
        [
            (
                "Uploads",
                [
                    lines(
                        "Uploads at work",
                        "Uploads that are being received or made into voices, by pod; each takes one of --max-uploads.",
                        [by_pod("mynah_uploads_active")],
                        stacked=True,
                    ),
                    lines(
                        "Time to make a voice",
                        "From an upload's last byte to its stored voice.",
                        quantiles("mynah_voice_creation_seconds"),
                        "s",
                    ),
                    lines(
                        "Refused and failed",
                        "Calls about voices and uploads that ended with an error, by reason.",
                        [per_second("mynah_errors_total", "reason", refused)],
                        "ops",
                        stacked=True,
                    ),
                ],
            ),
            (
                "Voices",
                [
                    lines(
                        "Stored voices",
                        "As each pod saw the store last; pods that share a store differ until their next look.",
                        [by_pod("mynah_voices_stored")],
                    ),
                    lines(
                        "Created and deleted",
                        "Each is also a line of the log's audit, with the key and the consent.",
                        [per_second("mynah_voice_changes_total", "change")],
                        "ops",
                        stacked=True,
                    ),
                    lines(
                        "Damaged files",
                        "Files among the stored voices that are not voices; the log names each once.",
                        [by_pod("mynah_voice_files_damaged")],
                    ),
                ],
            ),
            (
                "Storage",
                [
                    lines(
                        "Storage errors",
                        "Calls that failed because of the voice store or the disk, by reason.",
                        [per_second("mynah_storage_errors_total", "reason")],
                        "ops",
                        stacked=True,
                        width=12,
                    ),
                    lines(
                        "Free space of the volumes",
                        "Of the claims `mynah-voices` and `mynah-models`, by the kubelet; under 10 % is an alert.",
                        [Query(free, "{{persistentvolumeclaim}}")],
                        "percentunit",
                        top=1.0,
                        width=12,
                    ),
                ],
            ),
        ],
    )
