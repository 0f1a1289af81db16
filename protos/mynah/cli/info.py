"""What `mynah info` prints of a server."""

from __future__ import annotations

from mynah.client.events import ServerInfo
from mynah.client.settings import Sampling

_NAME_CELLS = 16


def info_lines(info: ServerInfo) -> list[str]:
    """Returns a line for each thing that the server says of itself; what it does not have or say has none."""
    limits = info.limits
    segment = f"at most {limits.max_segment_text_chars} chars, split at {limits.split_segment_text_chars} chars or "
    segment += f"{limits.max_segment_text_tokens} text tokens; {limits.max_segment_speech_tokens} speech tokens (40 ms)"
    rows = {
        "version": info.version,
        "model": f"{info.model}{' (random weights)' if info.random_weights else ''}",
        "models": ", ".join(model.name for model in info.models) if len(info.models) > 1 else "",
        "device": f"{info.device} (T3 {info.t3_runtime}, S3Gen {info.s3gen_runtime})",
        "decode": info.decode,
        "load": "" if info.load is None else f"{info.load:.2f} s of computing for 1 s of audio of one stream",
        "streams": f"{info.open_streams} of {limits.max_open_streams} open",
        "languages": ", ".join(info.languages),
        "defaults": _defaults(info),
        "tags": " ".join(info.tags),
        "sample rates": f"{', '.join(map(str, info.sample_rates_hz))} Hz; {info.native_sample_rate_hz} Hz is native",
        "formats": ", ".join(info.audio_formats),
        "word times": "yes" if info.word_times else f"no: {info.word_times_notice}",
        "continuity": "yes" if info.continuity else "no",
        "numbers read": ", ".join(info.normalized_languages),
        "SSML": ", ".join(info.ssml_elements),
        "waiting text": f"at most {limits.max_pending_text_chars} chars on a stream",
        "segment": segment,
        "flushes": f"at most {limits.max_pending_flushes} unanswered on a stream",
        "upload": f"at most {limits.max_upload_bytes} bytes",
        "time limits": f"{limits.idle_timeout_s:g} s without text, {limits.stall_timeout_s:g} s without reading",
        "setting": info.setting_reason,
        "notice": info.notice,
    }
    return [f"{name + ':':{_NAME_CELLS}}{value}" for name, value in rows.items() if value]


def _defaults(info: ServerInfo) -> str:
    """The model's defaults by the names of the options of `mynah say`; empty from an older server."""
    sampling: Sampling = info.sampling_defaults
    values = {
        "temperature": sampling.temperature,
        "top-k": sampling.top_k,
        "top-p": sampling.top_p,
        "min-p": info.min_p_default,
        "repetition-penalty": sampling.repetition_penalty,
        "cfg-weight": info.cfg_weight_default,
        "exaggeration": info.exaggeration_default,
    }
    return ", ".join(f"{name} {value:g}" for name, value in values.items() if value is not None)
