"""The T3 backend that runs a net in this process: on torch, on ONNX Runtime, or on the published ONNX graphs."""

from __future__ import annotations

from engines.api import NULL_OBSERVER, Observer
from engines.device import PLAIN_THREAD, DeviceThread
from engines.errors import EngineFailure
from engines.t3.backend import T3Request
from engines.t3.decoder import DecoderLimits, T3Decoder
from engines.t3.generation import Generation
from engines.t3.net import Net
from engines.t3.step_loop import CLOSING, StepLoop


class LocalT3Backend:
    """T3Backend on any Net. Up to `limits.max_streams` requests are decoded together, the others wait in order."""

    def __init__(
        self,
        net: Net,
        limits: DecoderLimits,
        observer: Observer = NULL_OBSERVER,
        on_device: DeviceThread = PLAIN_THREAD,
    ) -> None:
        self.name = net.name
        self._net: Net | None = net  # None once closed: the net's memory is freed with the step loop
        decoder = T3Decoder(net, limits)
        self._max_positions, self.failed_captures = decoder.max_positions, decoder.failed_captures
        self._steps = StepLoop(decoder, observer, on_device)

    def start(self, request: T3Request) -> Generation:
        """As T3Backend.start. Raises InvalidInput as `Net.check_prompt`, and EngineFailure after `close`."""
        if self._net is None:
            raise EngineFailure("the engine is closed")
        max_prompt = self._max_positions - request.sampling.max_speech_tokens
        self._net.check_prompt(request.voice, request.text_tokens, max_prompt)
        return Generation.start(self._steps, request)

    async def close(self) -> None:
        """As T3Backend.close. Idempotent."""
        await CLOSING.run(self._steps.close)
        self._net = None
