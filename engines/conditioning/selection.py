"""Which part of a recording a voice is made from, and what is wrong with that part.

A clean recording is used from its beginning to its end, as upstream uses it. Otherwise the part begins where speech
does, at the best place, and ends before a long pause.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from engines.audio import Samples, resample
from engines.conditioning.spectral_change import HOP_S, RATE_HZ, changing
from engines.conditioning.speech_detector import FRAME_S, speech_probabilities, speech_segments
from engines.errors import InvalidInput
from engines.model_spec import SAMPLE_RATE_HZ
from engines.voice_report import VoiceReport, VoiceWarning

MIN_SPEECH_S = 5.0
PROMPT_S = 15.0  # the model continues at most this much: it is what the choice is about
_EDGE_S = 0.5  # what may remain before the first word and behind the last one of a clean recording
_MARGIN_S = 0.15  # what remains of more than that: a word's attack and its end
_MAX_PAUSE_S = 1.5  # a longer one ends the part
_BETTER = 1.15  # another place must be this much better than the first one
_MAX_OFFSET = 0.01  # of full scale; a converter's ordinary offset lies below
_CLEAN_DB, _NOISY_DB, _MAX_DB = 20.0, 15.0, 60.0
_CLIPPED_SHARE, _MIN_CREST = 0.012, 2.5  # clean speech: below 0.005, above 4
_FRAME_SAMPLES = round(FRAME_S * SAMPLE_RATE_HZ)
_NOISE_FRAMES, _QUIET_SHARE = 62, 0.05  # two seconds, and how much of them is quiet between words

Span = tuple[float, float]  # seconds


@dataclass(frozen=True)
class Selection:
    """The used part of a recording, without offset, and its report."""

    samples: Samples
    report: VoiceReport


def without_offset(samples: Samples) -> tuple[Samples, float]:
    """Returns the samples without their mean, and the mean; unchanged and 0.0 where the mean does not matter."""
    mean = float(samples.mean(dtype=np.float64)) if len(samples) else 0.0
    if abs(mean) <= _MAX_OFFSET * max(1.0, float(np.abs(samples).max(initial=0.0))):
        return samples, 0.0
    return samples - np.float32(mean), mean


def select(samples: Samples, warnings: tuple[VoiceWarning, ...] = ()) -> Selection:
    """Returns the best part of mono 24 kHz samples. `warnings` about the whole recording come last in the report.

    Raises InvalidInput for the field "audio" with reason AUDIO_TOO_LITTLE_SPEECH. Blocks, about 5 ms per second.
    """
    recording = _Recording(samples)
    begin_s, end_s = recording.best_span()
    part, offset = without_offset(samples[round(begin_s * SAMPLE_RATE_HZ) : round(end_s * SAMPLE_RATE_HZ)])
    found = recording.warnings((begin_s, end_s))
    if offset and not any(warning.reason == "DC_OFFSET" for warning in warnings):
        warnings = (offset_warning(offset), *warnings)
    report = VoiceReport(
        used_from_s=round(begin_s, 3),
        used_s=round(len(part) / SAMPLE_RATE_HZ, 3),
        speech_share=round(recording.speech_s((begin_s, end_s)) / (end_s - begin_s), 3),
        speech_to_noise_db=round(recording.speech_to_noise_db((begin_s, end_s)), 1),
        warnings=(*found, *warnings),
    )
    return Selection(part, report)


class _Recording:
    """A recording with its speech found."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._duration_s = len(samples) / SAMPLE_RATE_HZ
        self._segments = _speech(samples)
        frames = samples[: len(samples) // _FRAME_SAMPLES * _FRAME_SAMPLES].reshape(-1, _FRAME_SAMPLES)
        self._power = np.var(frames, axis=1, dtype=np.float64)  # an offset is neither speech nor noise
        self._is_speech = np.zeros(len(frames), bool)
        for begin_s, end_s in self._segments:
            self._is_speech[round(begin_s / FRAME_S) : round(end_s / FRAME_S)] = True

    def best_span(self) -> Span:
        """Returns where the used part begins and ends. Raises InvalidInput if there is too little speech."""
        runs = [run for run in self._runs() if run[1] - run[0] >= MIN_SPEECH_S]
        starts = [(start, run[1]) for run in runs for start in self._starts(run)]
        if not starts:
            return self._span_with_pauses()
        scores = [self._score(span) for span in starts]
        best = int(np.argmax(scores))
        return starts[best] if scores[best] > _BETTER * scores[0] else starts[0]

    def _runs(self) -> list[Span]:
        """Speech with its short pauses, and the edges of silence that belong to it."""
        runs: list[Span] = []
        for begin_s, end_s in self._segments:
            if runs and begin_s - runs[-1][1] <= _MAX_PAUSE_S:
                runs[-1] = (runs[-1][0], end_s)
            else:
                runs.append((begin_s, end_s))
        return [(self._begin_before(begin_s), self._end_behind(end_s)) for begin_s, end_s in runs]

    def _begin_before(self, speech_s: float) -> float:
        return 0.0 if speech_s <= _EDGE_S else speech_s - _MARGIN_S

    def _end_behind(self, speech_s: float) -> float:
        left_s = self._duration_s - speech_s
        return self._duration_s if left_s <= _EDGE_S else speech_s + _MARGIN_S

    def _starts(self, run: Span) -> list[float]:
        """Where a part may begin: at the run's own begin, and at every phrase that leaves enough speech behind it."""
        phrases = [max(run[0], begin_s - 0.1) for begin_s, _ in self._segments if run[0] <= begin_s < run[1]]
        return [run[0], *(start for start in phrases[1:] if run[1] - start >= MIN_SPEECH_S)]

    def _score(self, span: Span) -> float:
        """Seconds of speech that the model continues, less where noise or clipping spoils them."""
        prompt = span[0], min(span[1], span[0] + PROMPT_S)
        clean = min(1.0, max(0.2, self.speech_to_noise_db(prompt) / _CLEAN_DB))
        return self.speech_s(prompt) * clean * (1.0 - min(0.5, 5.0 * self._clipped_share(prompt)))

    def _span_with_pauses(self) -> Span:
        """The part with the most speech where long pauses divide all of it. Raises InvalidInput."""
        runs = self._runs()
        begins = [begin for begin, _ in runs] or [0.0]
        spans = [(begin, min(begin + PROMPT_S, self._duration_s)) for begin in begins]
        kept = [sum(max(0.0, min(end, span[1]) - max(begin, span[0])) for begin, end in runs) for span in spans]
        best = int(np.argmax(kept))
        if kept[best] < MIN_SPEECH_S:
            raise self._too_little_speech()
        begin_s, end_s = spans[best]
        return begin_s, min(end_s, max(end for begin, end in runs if begin < end_s))

    def _too_little_speech(self) -> InvalidInput:
        speech_s = sum(end - begin for begin, end in self._segments)
        value = f"{speech_s:.1f} s of speech in {self._duration_s:.1f} s"
        allowed = f"at least {MIN_SPEECH_S:.0f} s of speech within {PROMPT_S:.0f} s"
        message = (
            f"audio has too little speech ({value}); it must have {allowed}. Send a recording of one person who speaks "
            "for 10 to 20 s, without music, tones or long pauses."
        )
        return InvalidInput("audio", message, "AUDIO_TOO_LITTLE_SPEECH", value=value, allowed=allowed)

    def speech_s(self, span: Span) -> float:
        """Seconds of the span in which there is speech."""
        return float(sum(max(0.0, min(end, span[1]) - max(begin, span[0])) for begin, end in self._segments))

    def speech_to_noise_db(self, span: Span) -> float:
        """How far the noise lies below the speech, 0 to 60 dB.

        The quietest frames of every two seconds are the noise there: words leave such gaps, also where a detector sees
        no pause. The upper quartile of these decides, so that noise in a part of the span counts.
        """
        low, high = math.floor(span[0] / FRAME_S), math.ceil(span[1] / FRAME_S)
        power, speech = self._power[low:high], self._is_speech[low:high]
        if not speech.any():
            return 0.0
        blocks = np.array_split(power, max(1, round(len(power) / _NOISE_FRAMES)))
        noise = float(np.quantile([np.quantile(block, _QUIET_SHARE) for block in blocks], 0.75))
        ratio = float(np.mean(power[speech])) / max(noise, 1e-12)
        return min(_MAX_DB, max(0.0, 10 * math.log10(max(ratio - 1.0, 1e-12))))

    def _clipped_share(self, span: Span) -> float:
        """About the share of samples that were cut off. In clean speech few samples come near the highest ones."""
        level = np.abs(self._samples[round(span[0] * SAMPLE_RATE_HZ) : round(span[1] * SAMPLE_RATE_HZ)])
        peak, rms = float(np.quantile(level, 0.999)), float(np.sqrt(np.mean(level**2, dtype=np.float64)))
        if peak < _MIN_CREST * rms:
            return 1.0  # a square wave: its overshoots, once resampled, hide the cut
        share = float(np.mean(level > 0.9 * peak))
        return share if share > _CLIPPED_SHARE else 0.0

    def warnings(self, span: Span) -> tuple[VoiceWarning, ...]:
        """What makes the part worse, the worst first."""
        found: list[VoiceWarning] = []
        if (noise_db := self.speech_to_noise_db(span)) < _NOISY_DB:
            message = f"The speech is only {noise_db:.0f} dB above the noise: record in a quieter place."
            found.append(VoiceWarning("NOISY", message))
        if self._clipped_share(span) > 0.0:
            message = "The loudest parts of the speech are cut off (clipped): record with less gain."
            found.append(VoiceWarning("CLIPPED", message))
        if (pause_s := self._longest_pause_s(span)) > _MAX_PAUSE_S:
            message = f"The used part has a pause of {pause_s:.1f} s: speech made with this voice may pause, too."
            found.append(VoiceWarning("LONG_PAUSES", message))
        return tuple(found)

    def _longest_pause_s(self, span: Span) -> float:
        inside = [each for each in self._segments if each[0] < span[1] and each[1] > span[0]]
        return max((after[0] - before[1] for before, after in pairwise(inside)), default=0.0)


def _speech(samples: Samples) -> list[Span]:
    """Returns the segments that the voice detector finds and that change as speech does."""
    probabilities = speech_probabilities(samples)
    found = np.zeros(len(probabilities), bool)
    for begin_s, end_s in speech_segments(probabilities):
        found[round(begin_s / FRAME_S) : round(end_s / FRAME_S)] = True
    hops = round(FRAME_S / HOP_S)
    kept = changing(resample(samples, SAMPLE_RATE_HZ, RATE_HZ), np.repeat(found, hops))[::hops]
    return speech_segments(np.where(found & ~kept, np.float32(0.0), probabilities))


def offset_warning(offset: float) -> VoiceWarning:
    """The warning about a constant that was added to all samples."""
    message = f"An offset of {abs(offset):.0%} of full scale was removed from the recording: check the sound card."
    return VoiceWarning("DC_OFFSET", message)
