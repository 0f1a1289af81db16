"""Every net and T3's step on fake CUDA tensors: no tensor is on the wrong device, and nothing waits for the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from engines import device as device_module
from engines.config import Sampling
from engines.model_spec import SPEECH_VOCAB, STANDARD_TINY, TINY, X_VECTOR_DIM, ModelSpec
from engines.s3gen.cache.cached_flow import FlowBlocks
from engines.s3gen.export.graphs import CFM, ENCODER, VOCODER, Port
from engines.s3gen.gpu import cached_graphs as cached_graphs_module
from engines.s3gen.gpu import static_keys as static_keys_module
from engines.s3gen.gpu.cached_graphs import StaticBlocks
from engines.s3gen.gpu.torch_graphed import FLOW_INPUTS, FlowNet
from engines.s3gen.nets.encoder import PositionCache
from engines.s3gen.nets.flow import load_flow
from engines.s3gen.nets.vocoder_weights import load_vocoder
from engines.t3 import attention as attention_module
from engines.t3 import decoder as decoder_module
from engines.t3 import model as model_module
from engines.t3 import sampler as sampler_module
from engines.t3.alignment.reader import ReadSegment, SegmentReader, ToRead
from engines.t3.alignment.tap import AlignmentHeads
from engines.t3.decoder import T3Decoder
from engines.t3.family import LLAMA
from engines.t3.gpu import net as net_module
from engines.t3.gpu import step as step_module
from engines.t3.gpu.net import StaticT3Net
from engines.t3.gpu.step import StaticPass
from engines.t3.llama import conditioning as conditioning_module
from engines.t3.llama import net as llama_module
from engines.t3.llama import passes as guided_passes_module
from engines.t3.llama.net import LlamaNet
from engines.t3.llama.weights import block_tensors, outer_tensors, spec_of
from engines.t3.model import T3Net
from engines.t3.vllm import sampler as vllm_sampler_module
from engines.t3.vllm.llama.vocab import LaneIds
from engines.t3.vllm.sampler import NOT_FINITE_TOKEN, BatchSampler, Row
from engines.t3.vllm.vocab import IdSpace
from tests.engines.s3gen import small_nets
from tests.engines.s3gen.onnx_setting import checkpoint
from tests.engines.s3gen.small_nets import GUIDED_TINY
from tests.engines.t3.llama.setting import request as guided_request
from tests.engines.t3.setting import limits, request, voice

CUDA = torch.device("cuda:0")
# operations that make the host wait for the device, or read what it computes
_WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "_to_copy_to_host")


class Indexing(TorchFunctionMode):
    """x[...] by separate operations: torch without CUDA cannot index a CUDA tensor, not even a fake one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__getitem__:
            return self._index(args[0], args[1] if isinstance(args[1], tuple) else (args[1],))
        if func is Tensor.__setitem__:
            keys = args[1] if isinstance(args[1], tuple) else (args[1],)
            assert not any(isinstance(key, Tensor) for key in keys), "only a view can be assigned to here"
            return torch.ops.aten.copy_(self._index(args[0], keys), args[2])
        if func is Tensor.copy_:
            return torch.ops.aten.copy_(*args, **(kwargs or {}))
        if func is Tensor.contiguous:
            return args[0].clone(memory_format=torch.contiguous_format)
        if func is Tensor.__invert__:
            return torch.logical_not(args[0])
        return func(*args, **(kwargs or {}))

    def _index(self, x: Tensor, keys: tuple[Any, ...]) -> Tensor:
        given = sum(key is not None and key is not Ellipsis for key in keys)
        axis = 0
        for key in keys:
            if key is Ellipsis:
                axis += x.dim() - axis - (given - axis)
            elif key is None:
                x, axis = x.unsqueeze(axis), axis + 1
            elif isinstance(key, int):
                x = x.select(axis, key)
            elif isinstance(key, Tensor):
                x, axis = x.index_select(axis, key), axis + 1
            else:
                start, stop, step = key.indices(x.shape[axis])
                x, axis = torch.ops.aten.slice(x, axis, start, stop, step), axis + 1
        return x


class NoWaiting(TorchDispatchMode):
    """Raises on an operation that a CUDA graph cannot hold."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        assert name not in _WAITING, f"{name} waits for the device"
        if func is torch.ops.aten.convolution.default:
            return _convolution(func, args)
        result = func(*args, **kwargs)
        if name == "_to_copy":
            source, target = args[0].device.type, kwargs.get("device")
            assert not (source == "cuda" and target is not None and target.type == "cpu"), "a copy to the host"
            assert not (source == "cpu" and target is not None and target.type == "cuda"), "a copy from pageable memory"
        if name == "copy_" and args[0].device.type == "cuda" and args[1].device.type == "cpu":
            assert len(args) > 2, "a copy from pageable memory"
            assert args[2], "a copy from pageable memory"
        return result


def _convolution(func: Any, args: Any) -> Tensor:
    """The result's shape; torch without CUDA cannot choose an implementation for a CUDA tensor."""
    assert {arg.device.type for arg in args if isinstance(arg, Tensor)} == {"cuda"}
    made = func(*(arg.to("meta") if isinstance(arg, Tensor) else arg for arg in args))
    return torch.empty(made.shape, dtype=made.dtype, device=CUDA)


@contextmanager
def fake_gpu() -> Iterator[FakeTensorMode]:
    # not inference mode: in it, a dispatch mode sees operations before they are broken down
    with FakeTensorMode() as mode, torch.no_grad(), Indexing():
        yield mode


def on_gpu(net: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """The net with its weights as fake tensors on the GPU."""
    for module in net.modules():
        for name, tensor in list(module._parameters.items()):
            if tensor is not None:
                module._parameters[name] = nn.Parameter(_fake(tensor), requires_grad=False)
        for name, tensor in list(module._buffers.items()):
            if tensor is not None:
                module._buffers[name] = _fake(tensor)
    return net


def _fake(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=CUDA)


def inputs(ports: tuple[Port, ...], sizes: dict[str, int], dtypes: dict[str, torch.dtype]) -> list[Tensor]:
    return [torch.zeros(p.shape(sizes), dtype=dtypes[p.dtype], device=CUDA) for p in ports]


@pytest.mark.parametrize("spec", [TINY, GUIDED_TINY], ids=["meanflow", "guided"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_captured_call_of_s3gen_stays_on_the_gpu_and_waits_for_nothing(
    spec: ModelSpec, dtype: torch.dtype, rows: int
) -> None:
    flow = small_nets.flow(spec).to(dtype)
    vocoder = load_vocoder(checkpoint().s3gen_path, checkpoint().spec)
    vocoder.to_filter_dtype(dtype)
    dtypes = {"float32": torch.float32, "int64": torch.int64}
    with fake_gpu() as mode:
        net = on_gpu(FlowNet(flow.encoder, flow.solver), mode)
        sizes = ENCODER.sizes(rows, 32)
        arguments = inputs(FLOW_INPUTS, sizes, dtypes)
        on_gpu(vocoder, mode)
        vocoder_arguments = inputs(VOCODER.inputs, VOCODER.sizes(rows, 48), dtypes)
        with NoWaiting():
            mel = net(*arguments)
            waveform, f0_hz = vocoder(*vocoder_arguments)
    assert mel.shape == CFM.outputs[0].shape(sizes)
    assert {mel.device, waveform.device, f0_hz.device} == {CUDA}
    assert waveform.shape == (rows, 48 * 480)


def test_a_wait_is_found() -> None:
    with fake_gpu():
        x = torch.zeros(4, device=CUDA)
        with NoWaiting(), pytest.raises(AssertionError, match="to the host"):
            x.cpu()
        with pytest.raises((RuntimeError, AssertionError), match=r"device|wait"):
            x + torch.zeros(4)


class WalkedGraphs:
    """A capture that looks at every operation."""

    def __init__(self, captured: list[int]) -> None:
        self._captured = captured

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        with NoWaiting():
            work()
        self._captured.append(1)
        return work


def sent_by(copies: list[tuple[int, ...]]) -> Callable[[Tensor, Tensor], None]:
    """device.send, which torch without CUDA cannot do."""

    def send(target: Tensor, staged: Tensor) -> None:
        assert (target.device, staged.device.type) == (CUDA, "cpu")
        assert target.shape == staged.shape
        assert target.dtype == staged.dtype
        assert target.is_contiguous(), "a copy of parts would go through pageable memory"
        assert staged.is_contiguous(), "a copy of parts would go through pageable memory"
        copies.append(tuple(target.shape))

    return send


class FakeStep:
    """T3 of random dimensions on a fake GPU: what is read back are zeros, and each read is counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reads = 0
        self.sent: list[tuple[int, ...]] = []
        self.copies: list[tuple[int, ...]] = []
        monkeypatch.setattr(sampler_module, "read_back", self._read_back)
        # as `fake_gpu`; torch itself uses its inference mode as well
        usual = SimpleNamespace(inference_mode=torch.no_grad)
        monkeypatch.setattr(decoder_module, "torch", usual)
        llama_modules = (llama_module, guided_passes_module, conditioning_module)
        for module in (sampler_module, model_module, vllm_sampler_module, *llama_modules):
            monkeypatch.setattr(module, "to_device", self._to_device)
        for module in (model_module, llama_module):
            monkeypatch.setattr(module, "check_tensors", lambda path, tensors: None)
            monkeypatch.setattr(module, "load_tensors", lambda path, tensors, prefix="": self._weights(tensors))

    def _read_back(self, tokens: Tensor) -> list[int]:
        assert tokens.device == CUDA
        self.reads += 1
        return [0] * tokens.numel()

    def _to_device(self, values: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
        made = torch.tensor(values, dtype=dtype, device="meta")
        self.sent.append(tuple(made.shape))
        return torch.empty(made.shape, dtype=dtype, device=device)

    def _weights(self, tensors: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
        return {name: torch.empty(shape, device=CUDA) for name, shape in tensors.items()}

    def net(self, kind: type[T3Net] = T3Net, dtype: torch.dtype = torch.float32) -> T3Net:
        return kind.load(Path("absent"), TINY, CUDA, dtype=dtype)


def test_every_step_of_t3_stays_on_the_gpu_and_waits_once_for_its_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefill in chunks, a prefix that is computed and one that is cached, decoding beside a prefill, greedy and drawn
    rows, growth of the cache, pauses, and the end of a sequence."""
    gpu = FakeStep(monkeypatch)
    with fake_gpu(), NoWaiting():
        decoder = T3Decoder(gpu.net(), limits(max_streams=3, prefill_chunk_positions=64))
        shared = voice(1, prompt_tokens=230)
        sequences = [
            decoder.add(request(1, of=shared, max_speech_tokens=12)),
            decoder.add(request(2, of=shared, temperature=0.0, max_speech_tokens=8)),
            decoder.add(request(3, top_k=0, top_p=1.0, max_speech_tokens=10)),
            decoder.add(request(4, of=shared, max_speech_tokens=3)),
        ]
        sequences[0].target_tokens = 6
        steps = mixed = 0
        while not decoder.idle or sequences[0].paused:
            if decoder.idle:
                sequences[0].target_tokens = float("inf")
            reads, sent = gpu.reads, len(gpu.sent)
            decoding = any(s.decoding and not s.paused for s in decoder.sequences)
            prompts = sum(s.prompt is None and not s.decoding for s in decoder.sequences)
            progress = decoder.step()
            assert not [p.error for p in progress if p.error]
            steps += 1
            assert gpu.reads - reads <= 1, "one wait a step, for the drawn tokens"
            if decoding:
                assert gpu.reads - reads == 1
            if not prompts and decoding:
                assert len(gpu.sent) - sent == 2, "the last tokens, and the sampler's table"
            mixed += decoding and bool(prompts)
    assert [len(s.speech.raw) for s in sequences] == [13, 9, 11, 4]
    assert mixed
    assert steps > 15


def test_every_step_with_guidance_stays_on_the_gpu_and_waits_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of many kinds at once, one of them 0; a voice's rows computed once, its prefix cached."""
    gpu = FakeStep(monkeypatch)
    with fake_gpu():
        net = LlamaNet.load(Path("absent"), STANDARD_TINY, CUDA)
        with NoWaiting():
            step_with_guidance(gpu, net)


def step_with_guidance(gpu: FakeStep, net: LlamaNet) -> None:
    decoder = T3Decoder(net, limits(max_streams=3, prefill_chunk_positions=40))
    shared = voice(1, prompt_tokens=150)
    sequences = [
        decoder.add(guided_request(seed, of=shared, cfg_weight=weight, max_speech_tokens=6))
        for seed, weight in enumerate((0.5, 0.0, 1.0, 0.3))
    ]
    while not decoder.idle:
        reads, sent = gpu.reads, len(gpu.sent)
        decoding = any(s.decoding for s in decoder.sequences)
        prompts = any(s.prompt is None and not s.decoding for s in decoder.sequences)
        assert not [p.error for p in decoder.step() if p.error]
        assert gpu.reads - reads <= 1, "one wait a step, for the drawn tokens"
        if decoding and not prompts:
            assert len(gpu.sent) - sent == 3, "tokens with places, rows with weights, the sampler's table"
    assert [len(s.speech.raw) for s in sequences] == [6, 6, 6, 6]


def test_every_static_step_stays_on_the_gpu_and_waits_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Captures of all sizes, then steps of all kinds, each with one small copy to the device."""
    gpu = FakeStep(monkeypatch)
    monkeypatch.setattr(step_module, "read_back", gpu._read_back)
    monkeypatch.setattr(step_module, "staging_memory", lambda shape, dtype, device: torch.zeros(*shape, dtype=dtype))
    monkeypatch.setattr(StaticPass, "_stage", lambda self, rows: gpu.sent.append((len(rows),)))
    monkeypatch.setattr(StaticPass, "_stage_row", lambda *_: None)
    captured: list[int] = []

    monkeypatch.setattr(net_module, "CudaGraphs", lambda device, priority: WalkedGraphs(captured))
    monkeypatch.setattr(step_module, "send", sent_by(gpu.copies))
    with fake_gpu():
        net = gpu.net(StaticT3Net, torch.float16)
        decoder = T3Decoder(net, limits(max_streams=3, max_positions=1024, prefill_chunk_positions=64))
        steps = decoder._pass
        assert isinstance(steps, StaticPass)
        assert steps.graphs == len(captured) == 3 * 2
        assert steps.cache.kv.dtype == torch.float16
        with NoWaiting():
            shared = voice(1, prompt_tokens=230)
            sequences = [
                decoder.add(request(1, of=shared, max_speech_tokens=12)),
                decoder.add(request(2, of=shared, temperature=0.0, max_speech_tokens=8)),
                decoder.add(request(3, top_k=0, top_p=1.0, max_speech_tokens=10)),
                decoder.add(request(4, of=shared, max_speech_tokens=3)),
            ]
            while not decoder.idle:
                reads, sent = gpu.reads, len(gpu.sent) + len(gpu.copies)
                decoding = any(s.decoding for s in decoder.sequences)
                embedded = any(s.prompt is None and not s.decoding for s in decoder.sequences)
                assert not [p.error for p in decoder.step() if p.error]
                assert gpu.reads - reads <= 1
                if decoding:
                    assert gpu.reads - reads == 1, "one wait a step, for the drawn tokens"
                    assert embedded or len(gpu.sent) + len(gpu.copies) - sent == 2, "one table a step, staged and sent"
    assert steps.eager == 0 < steps.replayed
    assert [len(s.speech.raw) for s in sequences] == [13, 9, 11, 4]


def test_captured_blocks_of_cached_decoding_stay_on_the_gpu_and_wait_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copies: list[tuple[int, ...]] = []
    captured: list[int] = []
    for module in (cached_graphs_module, static_keys_module):
        monkeypatch.setattr(module, "send", sent_by(copies))
        monkeypatch.setattr(module, "staging_memory", lambda shape, dtype, device: torch.zeros(*shape, dtype=dtype))
    spec = checkpoint().spec.flow
    flow = load_flow(checkpoint().s3gen_path, checkpoint().spec).half()
    with fake_gpu() as mode:
        on_gpu(flow, mode)
        blocks = FlowBlocks(flow, spec, PositionCache(flow.encoder))
        static = StaticBlocks(blocks, PositionCache(flow.encoder), 12, rows=(1, 2), tokens=(8, 16), prompt_tokens=20)
        static.capture(WalkedGraphs(captured))
        assert len(captured) == static.graphs == 4
        done = static._results[2, 16]
        assert {done.mel.device, done.kv.steps.device, done.conv_states.steps.device} == {CUDA}
        assert done.mel.shape == (2, 32, 80)
        assert done.kv.steps.dtype == torch.float16
        static.keys.set_lengths()
        assert copies == [(2, 2)]


def test_a_draw_under_vllm_waits_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are due and others, and a sequence that goes on in another slot with what it has drawn."""
    gpu = FakeStep(monkeypatch)
    rows = [Row(1, "a", Sampling(), ()), Row(2, "b", Sampling(temperature=0.0), (5, 6, 5))]
    batch = SimpleNamespace(size=4, due=lambda: rows)
    with fake_gpu(), NoWaiting():
        sampler = BatchSampler(batch, 4, CUDA, ids=IdSpace(text_vocab=10, voice_slots=1))
        for _ in range(2):
            gpu.reads = 0
            tokens = sampler.tokens(torch.empty(4, SPEECH_VOCAB, device=CUDA))
            assert gpu.reads == 1
    assert tokens == [NOT_FINITE_TOKEN, 0, 0, NOT_FINITE_TOKEN]


def test_a_guided_draw_under_vllm_waits_once(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeStep(monkeypatch)
    ids = LaneIds(spec_of(STANDARD_TINY), 4)
    rows = [Row(1, "a", LLAMA.sampling, ()), Row(2, "b", LLAMA.sampling, (ids.drawn(5, 0), ids.drawn(5, 1)))]
    batch = SimpleNamespace(size=4, due=lambda: rows)

    def guided(lanes: Tensor, weights: Tensor) -> Tensor:
        with_text, without_text = lanes.chunk(2, -1)
        return with_text + weights * (with_text - without_text)

    with fake_gpu(), NoWaiting():
        sampler = BatchSampler(batch, 4, CUDA, ids=ids, rules=LLAMA, guided=guided)
        tokens = sampler.tokens(torch.empty(4, 2 * LLAMA.speech_vocab, device=CUDA))
    assert gpu.reads == 1
    assert tokens == [NOT_FINITE_TOKEN, ids.drawn(0, 0), ids.drawn(0, 2), NOT_FINITE_TOKEN]


def gpt2_net_on_vllms_tensors() -> T3Net:
    """As vLLM has them: matrices are (out, in)."""
    outer = {
        name: torch.empty(shape, device=CUDA, dtype=torch.float32 if name.startswith("cond_enc") else torch.float16)
        for name, shape in model_module.outer_tensors(TINY.t3).items()
    }
    shapes = model_module.block_tensors(TINY.t3)
    block = {name: torch.empty(shape[::-1], device=CUDA, dtype=torch.float16).t() for name, shape in shapes.items()}
    return T3Net.of_tensors(outer, [block, block], TINY.t3, torch.float16)


def llama_net_on_vllms_tensors() -> LlamaNet:
    """As vLLM has them: some matrices are one."""
    spec = spec_of(STANDARD_TINY)
    shapes = outer_tensors(spec)
    outer = {name: torch.empty(shape, device=CUDA, dtype=torch.float16) for name, shape in shapes.items()}
    float32 = {name: torch.empty(shape, device=CUDA) for name, shape in shapes.items()}
    block = {name: torch.empty(shape, device=CUDA, dtype=torch.float16) for name, shape in block_tensors(spec).items()}
    for joined, parts in (("self_attn.qkv_proj", ("q", "k", "v")), ("mlp.gate_up_proj", ("gate", "up"))):
        at = joined.split(".")[0]
        block[f"{joined}.weight"] = torch.cat([block.pop(f"{at}.{part}_proj.weight") for part in parts])
    conditioning = conditioning_module.Conditioning(float32, spec, CUDA)
    return LlamaNet.of_tensors(outer, [block, block], spec, torch.float16, conditioning)


@pytest.mark.parametrize("kind", ["own", "gpt2", "llama"])
def test_a_pass_for_words_waits_for_nothing_before_its_rows_are_read(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float16, of two segments of a voice together, whose prefix is read once; then of one that was dropped."""
    gpu = FakeStep(monkeypatch)
    asked = guided_request if kind == "llama" else request
    made = {"gpt2": gpt2_net_on_vllms_tensors, "llama": llama_net_on_vllms_tensors}
    with fake_gpu():
        net = made[kind]() if kind in made else gpu.net(dtype=torch.float16)
        with NoWaiting():
            reader = SegmentReader(AlignmentHeads(((0, 0), (1, 0), (1, 1))), 600)
            shared = voice(1, prompt_tokens=150)
            segments = [ReadSegment(asked(seed, of=shared)) for seed in (1, 2)]
            reader.read_together(net, [ToRead(segment, [5, 6, 7]) for segment in segments])
            for segment in segments:
                tap = reader._kept[segment].tap
                assert tap is not None
                assert tap.rows == 3
                assert {(key.device, key.dtype) for key in tap._keys} == {(CUDA, torch.float16)}
                assert {page.device for page in reader._kept[segment].slot._pages} == {CUDA}
                segment.tokens += [5, 6, 7]
            reader._drop(shared.key)
            assert not any(reader.keeps(segment) for segment in segments)
            reader.read_together(net, [ToRead(segments[0], [8] * 60)])
            again = reader._kept[segments[0]].tap
            assert again is not None
            assert again.rows == 63
    assert gpu.reads == 0


def test_a_step_of_vllm_that_draws_nothing_waits_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of a long prompt. vLLM writes the next step's inputs into pinned memory that this one's copies read."""
    gpu = FakeStep(monkeypatch)
    waits: list[torch.device] = []
    monkeypatch.setattr(vllm_sampler_module, "wait_until_done", waits.append)
    batch = SimpleNamespace(size=1, due=list)
    with fake_gpu(), NoWaiting():
        sampler = BatchSampler(batch, 4, CUDA, ids=IdSpace(text_vocab=10, voice_slots=1))
        assert sampler.tokens(torch.empty(1, SPEECH_VOCAB, device=CUDA)) == [NOT_FINITE_TOKEN]
    assert waits == [CUDA]
    assert gpu.reads == 0


def wait_for_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first form of the code: are they finite?"""
    logits = T3Net.speech_logits

    def checked(self: T3Net, hidden: Tensor) -> Tensor:
        made = logits(self, hidden)
        assert torch.isfinite(made).all().item()
        return made

    monkeypatch.setattr(T3Net, "speech_logits", checked)


def index_by_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first form of the code: the rows of a net's result by a list, which is copied from pageable memory."""
    logits = T3Net.speech_logits

    def indexed(self: T3Net, hidden: Tensor) -> Tensor:
        rows = torch.tensor(list(range(len(hidden)))).to(hidden.device)
        return logits(self, hidden.index_select(0, rows))

    monkeypatch.setattr(T3Net, "speech_logits", indexed)


def mask_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor of a step on another device than the net."""
    made = attention_module.causal_mask
    monkeypatch.setattr(attention_module, "causal_mask", lambda span, _, dtype: made(span, torch.device("cpu"), dtype))


def errors_of_a_short_walk(gpu: FakeStep) -> list[str]:
    with fake_gpu(), NoWaiting():
        decoder = T3Decoder(gpu.net(), limits())
        decoder.add(request(1, max_speech_tokens=5))
        return [str(progress.error) for _ in range(4) for progress in decoder.step() if progress.error]


@pytest.mark.parametrize(
    ("mutation", "words"),
    [
        (wait_for_logits, "waits for the device"),
        (index_by_a_list, "pageable memory"),
        (mask_on_the_host, "device"),
    ],
)
def test_the_walk_finds_a_wait_and_a_wrong_device(
    mutation: Callable[[pytest.MonkeyPatch], None], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = FakeStep(monkeypatch)
    assert not errors_of_a_short_walk(gpu)
    mutation(monkeypatch)
    (error,) = errors_of_a_short_walk(gpu)
    assert words in error


def test_dynamo_traces_the_embedding_of_vllms_model_as_one_graph() -> None:
    """A break in it would put the gather outside the CUDA graphs."""
    from engines.t3.vllm.embedding import IdEmbedding
    from engines.t3.vllm.vocab import IdSpace

    space = IdSpace(TINY.t3.text_vocab, 8)
    embedding = IdEmbedding(space, 16)
    nn.init.normal_(embedding.table)
    compiled = torch.compile(embedding, backend="eager", fullgraph=True, dynamic=True)
    for count in (1, 5, 33):
        ids = torch.arange(count) * 397 % space.rows
        torch.testing.assert_close(compiled(ids), embedding(ids))
    assert X_VECTOR_DIM


def test_numbers_go_to_a_gpu_from_pinned_memory_and_the_host_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []

    def tensor(values: Any, **options: Any) -> Any:
        calls.append(("tensor", options))
        return SimpleNamespace(to=lambda device, **how: calls.append((str(device), how)))

    monkeypatch.setattr(device_module, "torch", SimpleNamespace(tensor=tensor))
    device_module.to_device([1, 2], torch.int64, CUDA)
    assert calls == [("tensor", {"dtype": torch.int64, "pin_memory": True}), ("cuda:0", {"non_blocking": True})]
