"""What the recipe takes from the engines, at one place."""

from __future__ import annotations

from engines.audio import hann_window, loudness_lufs, mel_filterbank, resample, with_gain
from engines.checkpoints.random_tokenizer import TAGS
from engines.conditioning import random_weights, tokenizer, xvector
from engines.conditioning.builtin import save_builtin
from engines.conditioning.mel import prompt_mel
from engines.conditioning.speaker import SpeakerEncoder, mel_windows
from engines.conditioning.tokenizer import RATE_HZ as HEARING_RATE_HZ
from engines.conditioning.tokenizer import SpeechTokenizer
from engines.conditioning.xvector import XVectorEncoder, kaldi_fbank
from engines.config import Sampling
from engines.model_spec import (
    MAX_S3GEN_PROMPT_TOKENS,
    MAX_T3_PROMPT_TOKENS,
    MEL_BANDS,
    MEL_FRAMES_PER_TOKEN,
    MEL_HOP_SAMPLES,
    MODELS,
    SAMPLE_RATE_HZ,
    SAMPLES_PER_TOKEN,
    SILENCE_SPEECH_TOKEN,
    SPEAKER_EMBEDDING_DIM,
    SPEECH_CODES,
    SPEECH_TOKENS_PER_S,
    SPEECH_VOCAB,
    START_SPEECH_TOKEN,
    STOP_SPEECH_TOKEN,
    TINY,
    X_VECTOR_DIM,
    FlowSpec,
    ModelSpec,
    T3Spec,
)
from engines.s3gen.nets import flow as flow_module
from engines.s3gen.nets import vocoder as vocoder_module
from engines.s3gen.nets import vocoder_weights
from engines.s3gen.nets.cfm import EULER_TIMES, Estimator, EulerSolver
from engines.s3gen.nets.encoder import TokenEncoder
from engines.s3gen.nets.vocoder import Vocoder
from engines.voice import Voice

__all__ = [
    "EULER_TIMES",
    "HEARING_RATE_HZ",
    "MAX_S3GEN_PROMPT_TOKENS",
    "MAX_T3_PROMPT_TOKENS",
    "MEL_BANDS",
    "MEL_FRAMES_PER_TOKEN",
    "MEL_HOP_SAMPLES",
    "MODELS",
    "SAMPLES_PER_TOKEN",
    "SAMPLE_RATE_HZ",
    "SILENCE_SPEECH_TOKEN",
    "SPEAKER_EMBEDDING_DIM",
    "SPEECH_CODES",
    "SPEECH_TOKENS_PER_S",
    "SPEECH_VOCAB",
    "START_SPEECH_TOKEN",
    "STOP_SPEECH_TOKEN",
    "TAGS",
    "TINY",
    "X_VECTOR_DIM",
    "Estimator",
    "EulerSolver",
    "FlowSpec",
    "ModelSpec",
    "Sampling",
    "SpeakerEncoder",
    "SpeechTokenizer",
    "T3Spec",
    "TokenEncoder",
    "Vocoder",
    "Voice",
    "XVectorEncoder",
    "flow_module",
    "hann_window",
    "kaldi_fbank",
    "loudness_lufs",
    "mel_filterbank",
    "mel_windows",
    "prompt_mel",
    "random_weights",
    "resample",
    "save_builtin",
    "tokenizer",
    "vocoder_module",
    "vocoder_weights",
    "with_gain",
    "xvector",
]  # fmt: skip
