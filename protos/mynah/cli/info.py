"""What `mynah info` prints of a server."""

from __future__ import annotations

from mynah.client.events import Limits, ModelInfo, ServerInfo
from mynah.client.settings import Sampling

_NAME_CELLS = 16


def info_lines(info: ServerInfo) -> list[str]:
    """Returns a line for each thing that the server says of itself; what it does not have or say has none.

    Further models have their lines at the end.
    """
    limits = info.limits
    first, *others = info.models or (info,)
    rows = {
        "version": info.version,
        "model": _named(info.model, info),
        "models": ", ".join(model.name for model in info.models) if others else "",
        "device": f"{info.device} ({_runtimes(info)})",
        "decode": info.decode,
        "load": "" if info.load is None else f"{info.load:.2f} s of computing for 1 s of audio of one stream",
        "streams": f"{info.open_streams} of {limits.max_open_streams} open",
        **_of_model(first),
        "sample rates": f"{', '.join(map(str, info.sample_rates_hz))} Hz; {info.native_sample_rate_hz} Hz is native",
        "formats": ", ".join(info.audio_formats),
        "numbers read": ", ".join(info.normalized_languages),
        "SSML": ", ".join(info.ssml_elements),
        "waiting text": f"at most {limits.max_pending_text_chars} chars on a stream",
        "segment": _segment(limits),
        "flushes": f"at most {limits.max_pending_flushes} unanswered on a stream",
        "upload": f"at most {limits.max_upload_bytes} bytes",
        "time limits": f"{limits.idle_timeout_s:g} s without text, {limits.stall_timeout_s:g} s without reading",
        "setting": info.setting_reason,
        "notice": info.notice,
    }
    lines = _lines(rows)
    for model in others:
        about = {"model": _named(model.name, model), "runtimes": _runtimes(model), "decode": model.decode}
        about |= _of_model(model)
        if model.limits is not None and (segment := _segment(model.limits)) != _segment(limits):
            about["segment"] = segment
        lines += ["", *_lines({**about, "notice": model.notice})]
    return lines


def _segment(limits: Limits) -> str:
    return (
        f"at most {limits.max_segment_text_chars} chars, split at {limits.split_segment_text_chars} chars or "
        f"{limits.max_segment_text_tokens} text tokens; {limits.max_segment_speech_tokens} speech tokens (40 ms)"
    )


def _lines(rows: dict[str, str]) -> list[str]:
    return [f"{name + ':':{_NAME_CELLS}}{value}" for name, value in rows.items() if value]


def _named(name: str, model: ServerInfo | ModelInfo) -> str:
    return f"{name}{' (random weights)' if model.random_weights else ''}"


def _runtimes(model: ServerInfo | ModelInfo) -> str:
    return f"T3 {model.t3_runtime}, S3Gen {model.s3gen_runtime}"


def _of_model(model: ServerInfo | ModelInfo) -> dict[str, str]:
    """What differs between models that a stream may ask for."""
    return {
        "languages": ", ".join(code for code in model.languages if code not in model.missing_languages),
        "not here": ", ".join(f"{code} (lacks {missing})" for code, missing in model.missing_languages.items()),
        "defaults": _defaults(model),
        "tags": " ".join(model.tags),
        "word times": "yes" if model.word_times else f"no: {model.word_times_notice}",
        "continuity": "yes" if model.continuity else "no",
    }


def _defaults(model: ServerInfo | ModelInfo) -> str:
    """The model's defaults by the names of the options of `mynah say`; empty from an older server."""
    sampling: Sampling = model.sampling_defaults
    values = {
        "temperature": sampling.temperature,
        "top-k": sampling.top_k,
        "top-p": sampling.top_p,
        "min-p": model.min_p_default,
        "repetition-penalty": sampling.repetition_penalty,
        "cfg-weight": model.cfg_weight_default,
        "exaggeration": model.exaggeration_default,
    }
    return ", ".join(f"{name} {value:g}" for name, value in values.items() if value is not None)
