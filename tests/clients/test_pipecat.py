"""Pipecat's NVIDIA service with this server as its endpoint, in a pipeline."""

from __future__ import annotations

import asyncio

from pipecat.frames.frames import EndFrame, ErrorFrame, TTSAudioRawFrame, TTSSpeakFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineParams, PipelineTask
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.nvidia.tts import NvidiaTTSService

from tests.clients.conftest import Addresses

TEXT = "Good morning to everybody here."


class Recorder(FrameProcessor):
    """Records the audio and error frames that pass through."""

    def __init__(self) -> None:
        super().__init__()
        self.audio: list[TTSAudioRawFrame] = []
        self.errors: list[str] = []

    async def process_frame(self, frame, direction) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            self.audio.append(frame)
        if isinstance(frame, ErrorFrame):
            self.errors.append(frame.error)
        await self.push_frame(frame, direction)


async def test_a_pipeline_produces_speech(server: Addresses):
    settings = NvidiaTTSService.Settings(voice="mynah.default")
    tts = NvidiaTTSService(server=server.grpc, use_ssl=False, sample_rate=24_000, settings=settings)
    recorder = Recorder()
    task = PipelineTask(Pipeline([tts, recorder]), params=PipelineParams(audio_out_sample_rate=24_000))
    await task.queue_frames([TTSSpeakFrame(TEXT), EndFrame()])
    async with asyncio.timeout(30):
        await PipelineRunner(handle_sigint=False).run(task)
    assert not recorder.errors
    assert {frame.sample_rate for frame in recorder.audio} == {24_000}
    spoken_s = sum(len(frame.audio) for frame in recorder.audio) / 2 / 24_000
    assert spoken_s >= len(TEXT) * 0.04
    assert spoken_s < len(TEXT) * 0.04 + 0.5
