"""T3 on torch: its greedy tokens on this device and on the CPU, and the times of prefill and steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from bench.gpu.results import Recorder
from bench.gpu.steps import Machine, best_ms
from engines.conditioning.builtin import load_builtin
from engines.config import Sampling
from engines.planning.times import Times
from engines.t3.backend import T3Request
from engines.t3.decoder import DecoderLimits, T3Decoder
from engines.t3.gpu.net import StaticT3Net, check_static_net
from engines.t3.model import T3Net
from engines.t3.net import Net
from engines.t3.parity import T3ParityCheck
from engines.voice import Voice

_TEXT = tuple(range(1, 40))
_TOKENS = 64


def run(record: Recorder, machine: Machine) -> None:
    """Greedy tokens and times of every net of T3 that runs in this process."""
    checkpoint = machine.checkpoint()
    voice = load_builtin(checkpoint.conds_path)
    expected = drawn(T3Net.load(checkpoint.t3_path, checkpoint.spec, "cpu"), voice, 1)[0]
    torch_net = T3Net.load(checkpoint.t3_path, checkpoint.spec, machine.device)
    nets: dict[str, Net] = {
        "torch": torch_net,
        "torch_graphs fp32": StaticT3Net.load(checkpoint.t3_path, checkpoint.spec, machine.device),
    }
    if machine.on_gpu:
        half = StaticT3Net.load(checkpoint.t3_path, checkpoint.spec, machine.device, dtype=torch.float16)
        for streams in (1, 8, 32):
            _compare_logits(record, half, T3ParityCheck(torch_net), streams)
            _time(record, machine, "torch_graphs fp16", half, voice, streams)
    for name, net in nets.items():
        for streams in (1, machine.repeats(8, 2)):

            def compare(net: Net = net, streams: int = streams) -> str:
                for tokens in drawn(net, voice, streams):
                    assert _agreement(tokens, expected) > 0.9, f"{tokens[:20]} instead of {expected[:20]}"
                return f"{streams} streams, {len(expected)} greedy tokens"

            record.attempt(f"{name}: greedy tokens, {streams} streams", compare)
        _time_cold_prefill(record, machine, name, net, voice)
        for streams in (1, 8, 32) if machine.on_gpu else (1,):
            _time(record, machine, name, net, voice, streams)


def _compare_logits(record: Recorder, net: StaticT3Net, check: T3ParityCheck, streams: int) -> None:
    """Half precision and replayed graphs against torch in float32."""

    def compare() -> str:
        return "; ".join(str(one) for one in check_static_net(check, net, streams, 2048))

    record.attempt(f"torch_graphs fp16: logits, {streams} streams", compare)


def drawn(net: Net, voice: Voice, streams: int, tokens: int = _TOKENS) -> list[list[int]]:
    """The greedy tokens of equal requests, decoded together."""
    decoder = T3Decoder(net, DecoderLimits(streams))
    sampling = Sampling(temperature=0, max_speech_tokens=tokens)
    sequences = [decoder.add(T3Request(_TEXT, voice, sampling)) for _ in range(streams)]
    while decoder.sequences:
        for progress in decoder.step():
            if progress.error is not None:
                raise progress.error
    return [list(sequence.speech.raw) for sequence in sequences]


def _agreement(ours: Sequence[int], theirs: Sequence[int]) -> float:
    """The share of the tokens before the first that differs; rounding may flip a tie."""
    equal = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), len(theirs))
    return equal / max(1, len(theirs))


def _prefill(decoder: T3Decoder, voice: Voice) -> None:
    sequence = decoder.add(T3Request(_TEXT, voice, Sampling(seed=1, max_speech_tokens=1000)))
    while not sequence.decoding:
        decoder.step()
    decoder.release(sequence)


def _time_cold_prefill(record: Recorder, machine: Machine, name: str, net: Net, voice: Voice) -> None:
    """The whole prompt, of a voice that nothing is kept of."""
    decoder = T3Decoder(net, DecoderLimits(1, prefix_cache_bytes=0))
    took_ms = best_ms(lambda: _prefill(decoder, voice), machine, machine.repeats(3, 1))
    times = _planned(machine, name)
    planned_ms = None if times is None else times.t3_prefill_ms(1, warm=False)
    record.measured(f"{name}: prefill, voice cold", took_ms, "ms", planned=planned_ms)


def _time(record: Recorder, machine: Machine, name: str, net: Net, voice: Voice, streams: int) -> None:
    """Milliseconds of a prefill with the voice's prefix and of a step of all streams, and the step's kernels."""
    decoder = T3Decoder(net, DecoderLimits(streams))
    machine.synchronize()
    times = _planned(machine, name)
    planned_ms = None if times is None else times.t3_prefill_ms(1)
    record.measured(
        f"{name}: prefill, voice warm, {streams} streams",
        best_ms(lambda: _prefill(decoder, voice), machine, 3),
        "ms",
        planned=planned_ms,
    )
    for seed in range(streams):
        decoder.add(T3Request(_TEXT, voice, Sampling(seed=seed, max_speech_tokens=1000)))
    for _ in range(2 * streams + 4):
        decoder.step()
    with torch.inference_mode():
        planned_ms = None if times is None else times.t3_step_ms(streams)
        step_ms = best_ms(decoder.step, machine, machine.repeats(50, 3))
        record.measured(f"{name}: step, {streams} streams", step_ms, "ms", planned=planned_ms)
        launches, kernels = launches_of(decoder.step)
    note = "a graph is one" if machine.on_gpu else "operations of torch on a CPU"
    record.measured(f"{name}: launches of a step, {streams} streams", launches, "", note=note, kernels=kernels)


def _planned(machine: Machine, name: str) -> Times | None:
    """The plan of the net of this name; torch_graphs is planned in float16 alone."""
    backend, _, precision = name.partition(" ")
    return None if precision == "fp32" else machine.planned(backend, "torch")


def launches_of(call: Callable[[], object]) -> tuple[int, int]:
    """How often the host launches something in a call, and the kernels that ran; without a GPU the operations of torch,
    and 0."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    events = profiler.events()
    if not torch.cuda.is_available():
        return len(events), 0
    launches = [event for event in events if "LaunchKernel" in event.name or "GraphLaunch" in event.name]
    return len(launches), sum(event.device_type != torch.autograd.DeviceType.CPU for event in events)
