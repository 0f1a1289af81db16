"""The plan: stage times, time to first audio, streams, memory and cost of one model on one GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from engines.model_spec import SPEECH_TOKENS_PER_S, ModelSpec
from engines.planning.gpus import PRICES_DATE, Gpu
from engines.planning.stages import Window
from engines.planning.times import MOST_ROWS, Assumptions, Times
from engines.s3gen.streaming.schedule import SCHEDULES, Schedule, ScheduleStep
from engines.t3.alignment.memory import words_bytes
from engines.t3.gpu.memory import static_plan
from engines.t3.vllm.family import vllm_family
from engines.t3.vllm.memory import MemoryPlan, memory_plan, s3gen_bytes

FIRST_AUDIO_STREAMS = (1, 8, 32)
FIRST_SPEECH_TOKENS = 14  # ten of the first hop, three of lookahead, one that shows that the segment goes on
VOICE_SLOTS = 256  # of T3 on vLLM
MAX_POSITIONS = 2048
_MOST_STREAMS = 1 << 14


@dataclass(frozen=True)
class FirstAudio:
    """Milliseconds to the first audio of streams that start together: T3, S3Gen and the rest, for the median stream.

    `slowest_ms` is the whole time of the last one, whose window is in the last call.
    """

    streams: int
    t3_ms: float
    s3gen_ms: float
    rest_ms: float
    median_ms: float
    slowest_ms: float


@dataclass(frozen=True)
class Load:
    """What `streams` streams take while they speak, all with hops of `hop_tokens`: shares of the time.

    `limits` are the streams that each limit allows by itself; `carried` is the least of them.
    """

    hop_tokens: int
    window_ms: float
    gpu_busy: float
    host_busy: float
    limits: dict[str, int]
    carried: int
    usd_per_speech_hour: float  # with `streams` streams, or as many as are carried
    usd_per_speech_hour_full: float  # with `carried` streams


@dataclass(frozen=True)
class Plan:
    """All figures, and what they were computed from."""

    model: str
    gpu: Gpu
    streams: int
    t3: str
    s3gen: str
    schedule: str
    usd_per_hour: float
    prices_date: str
    assumptions: Assumptions
    stages_ms: dict[str, float]
    first_audio: list[FirstAudio]
    loads: list[Load]
    memory_mb: dict[str, float]
    memory_total_mb: float
    problems: list[str] = field(default_factory=list)  # why `streams` streams are too many

    @property
    def carried(self) -> int:
        """Streams that the GPU carries with the schedule's largest hops, which it takes under load."""
        return max(load.carried for load in self.loads)

    def as_json(self) -> dict[str, Any]:
        """All fields, and `carried`."""
        return {**asdict(self), "carried": self.carried}


@dataclass(frozen=True)
class Planner:
    """Makes plans: `times` for one model on one GPU, and a schedule by name."""

    times: Times
    schedule_name: str = "balanced"
    word_times: bool = True  # whether a net that reads words is beside T3

    @property
    def schedule(self) -> Schedule:
        """The schedule."""
        return SCHEDULES[self.schedule_name]

    def plan(self, streams: int, usd_per_hour: float | None = None) -> Plan:
        """The plan for `streams` streams."""
        times, price = self.times, price_of(self.times, usd_per_hour)
        by_hop = {step.hop_tokens: step for step in self.schedule.distinct_steps}
        steps = [step for hop, step in by_hop.items() if hop >= SPEECH_TOKENS_PER_S]
        memory = engine_memory(times.spec, streams, word_times=self.word_times, t3=times.t3)
        loads = [self._load(step, streams, price) for step in steps]
        return Plan(
            times.spec.name,
            times.gpu,
            streams,
            times.t3,
            times.s3gen,
            self.schedule_name,
            price,
            PRICES_DATE if usd_per_hour is None else "given",
            times.given,
            self.stages_ms(streams),
            [self.first_audio(count) for count in sorted({*FIRST_AUDIO_STREAMS, streams})],
            loads,
            {name: value / 1e6 for name, value in asdict(memory).items()},
            memory.total / 1e6,
            self._problems(streams, loads, memory),
        )

    def stages_ms(self, streams: int) -> dict[str, float]:
        """Each stage's time, for one stream and for as many as are planned."""
        times, first = self.times, Window.first(self.schedule)
        sized, rows = times.computed(first), min(streams, MOST_ROWS)
        stages = {
            "T3 prefill, cold voice": times.t3_prefill_ms(1, warm=False),
            "T3 prefill, warm voice": times.t3_prefill_ms(1),
            "T3 step": times.t3_step_ms(1),
            "S3Gen encoder, first window": times.s3gen_call_ms("encoder", 1, sized.tokens),
            "S3Gen CFM, first window": times.s3gen_call_ms("cfm", 1, sized.tokens),
            "S3Gen vocoder, first window": times.s3gen_call_ms("vocoder", 1, sized.frames),
        }
        if streams > 1:
            stages[f"T3 step of {streams} streams"] = times.t3_step_ms(streams)
            stages[f"S3Gen first windows of {rows} streams"] = times.window_ms(first, rows)
        for step in self.schedule.distinct_steps[1:]:
            window = Window.later(self.schedule, step)
            stages[f"S3Gen window of {step.hop_tokens} tokens"] = times.window_ms(window, 1)
        return stages

    def first_audio(self, streams: int) -> FirstAudio:
        """The time to first audio of streams that start together, with a warm voice."""
        times, window = self.times, Window.first(self.schedule)
        t3 = times.t3_prefill_ms(streams) + (FIRST_SPEECH_TOKENS - 1) * times.t3_step_ms(streams)
        limit = times.rows_of_a_call(window)
        median = times.window_ms(window, min(streams, limit * -(-((streams + 1) // 2) // limit)))
        last = times.window_ms(window, streams)
        rest = times.given.first_audio_ms + times.given.chunk_host_ms * streams
        return FirstAudio(streams, t3, median, rest, t3 + median + rest, t3 + last + rest)

    def _load(self, step: ScheduleStep, streams: int, price: float) -> Load:
        limits = {
            "GPU": _most(lambda n: self._gpu_busy(step, n) <= self.times.given.busy_limit),
            "host": _most(lambda n: self._host_busy(step, n) <= self.times.given.busy_limit),
            "T3's step": _most(
                lambda n: self.times.t3_step_ms(n) <= 1000 / SPEECH_TOKENS_PER_S * self.times.given.busy_limit
            ),
            "memory": _most(self._fits),
        }
        carried = min(limits.values())
        window = Window.later(self.schedule, step)
        return Load(
            step.hop_tokens,
            self.times.window_ms(window, 1),
            self._gpu_busy(step, streams),
            self._host_busy(step, streams),
            limits,
            carried,
            price / max(1, min(streams, carried)),
            price / max(1, carried),
        )

    def _fits(self, streams: int) -> bool:
        memory = engine_memory(self.times.spec, streams, word_times=self.word_times, t3=self.times.t3)
        return memory.total <= self.times.gpu.memory_gb * 1e9

    def _gpu_busy(self, step: ScheduleStep, streams: int) -> float:
        """The share of each second that T3 and S3Gen take of the GPU."""
        rows = min(streams, MOST_ROWS)
        windows_per_s = streams * SPEECH_TOKENS_PER_S / step.hop_tokens
        s3gen_ms = windows_per_s * self.times.window_ms(Window.later(self.schedule, step), rows) / rows
        return (SPEECH_TOKENS_PER_S * self.times.t3_step_gpu_ms(streams) + s3gen_ms) / 1000

    def _host_busy(self, step: ScheduleStep, streams: int) -> float:
        """The share of each second that one Python process computes."""
        given = self.times.given
        windows_per_s = streams * SPEECH_TOKENS_PER_S / step.hop_tokens
        host_ms = SPEECH_TOKENS_PER_S * self.times.t3_host_ms(streams)
        return (host_ms + windows_per_s * (given.window_host_ms + given.chunk_host_ms)) / 1000

    def _problems(self, streams: int, loads: list[Load], memory: MemoryPlan) -> list[str]:
        best = max(loads, key=lambda load: load.carried)
        return [
            f"{name} carries {most} streams at hops of {best.hop_tokens}"
            for name, most in best.limits.items()
            if streams > most
        ]


def engine_memory(spec: ModelSpec, streams: int, *, word_times: bool = True, t3: str = "vllm") -> MemoryPlan:
    """The engine's own sum for T3 in 16 bits on a backend, by which it starts or refuses; of torch's, which grows with
    its streams, what vLLM provides for as many.

    Words may be read by any head, so what T3's last layer needs is counted; an engine counts what its heads need.
    """
    positions = min(MAX_POSITIONS, spec.t3.positions - 1)
    words = words_bytes(spec.t3, spec.t3.layers, positions, lent=t3 == "vllm") if word_times else 0
    sizes = {"max_streams": streams, "max_positions": positions, "bytes_per_value": 2}
    sizes |= {"s3gen": s3gen_bytes(spec.flow), "words": words}
    if t3 == "torch_graphs":
        return static_plan(spec.t3, **sizes)
    return memory_plan(vllm_family(spec.t3, max(VOICE_SLOTS, streams)), **sizes)


def price_of(times: Times, usd_per_hour: float | None) -> float:
    """Dollars for an hour of the GPU: those given, else the table's."""
    return times.gpu.usd_per_hour if usd_per_hour is None else usd_per_hour


def _most(allowed: Callable[[int], bool]) -> int:
    """The largest number of streams that is allowed, 0 if none is; more streams are never easier."""
    if not allowed(1):
        return 0
    low, high = 1, 2
    while high <= _MOST_STREAMS and allowed(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if allowed(middle) else (low, middle)
    return low
