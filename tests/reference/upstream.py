"""The published package (chatterbox-tts 0.1.7) as the reference, on the CPU, at any of our model's dimensions.

torchaudio, which it imports but which has no CPU build everywhere, is met by a stub with the two functions its
Turbo path really calls (resampling and Kaldi's filterbank), in plain torch. The package's heavy `__init__` (Gradio,
the watermarker) is bypassed.
"""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import math
import sys
import types

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from engines.model_spec import LlamaSpec, ModelSpec


class _Resample(nn.Module):
    """torchaudio.transforms.Resample with its defaults (windowed sinc, width 6, rolloff 0.99)."""

    def __init__(self, orig_hz: int, new_hz: int) -> None:
        super().__init__()
        common = math.gcd(orig_hz, new_hz)
        self.orig, self.new = orig_hz // common, new_hz // common
        base = min(self.orig, self.new) * 0.99
        self.width = math.ceil(6 * self.orig / base)
        taps = torch.arange(-self.width, self.width + self.orig, dtype=torch.float64)[None, None] / self.orig
        t = (torch.arange(0, -self.new, -1, dtype=torch.float64)[:, None, None] / self.new + taps) * base
        t = t.clamp(-6, 6)
        window = torch.cos(t * math.pi / 12) ** 2
        t = t * math.pi
        kernel = torch.where(t == 0, torch.ones_like(t), t.sin() / t) * window * base / self.orig
        self.register_buffer("kernel", kernel.float())

    def forward(self, wav: torch.Tensor) -> torch.Tensor:
        flat = wav.reshape(-1, wav.shape[-1])
        padded = F.pad(flat, (self.width, self.width + self.orig))
        out = F.conv1d(padded[:, None], self.kernel, stride=self.orig).transpose(1, 2).reshape(flat.shape[0], -1)
        return out[..., : math.ceil(self.new * wav.shape[-1] / self.orig)].reshape(*wav.shape[:-1], -1)


def _kaldi_fbank(wav: torch.Tensor, num_mel_bins: int = 80, **_: object) -> torch.Tensor:
    """torchaudio.compliance.kaldi.fbank with its defaults at 16 kHz, no dither: (frames, num_mel_bins)."""
    frames = wav[0].unfold(0, 400, 160)
    frames = frames - frames.mean(1, keepdim=True)
    frames = frames - 0.97 * torch.cat([frames[:, :1], frames[:, :-1]], 1)
    window = torch.hann_window(400, periodic=False) ** 0.85
    power = torch.fft.rfft(F.pad(frames * window, (0, 112))).abs() ** 2
    mel = 1127.0 * np.log(1 + np.arange(256) * 16000 / 512 / 700.0)
    low, high = (1127.0 * np.log(1 + f / 700.0) for f in (20.0, 8000.0))
    step = (high - low) / (num_mel_bins + 1)
    centre = low + step * np.arange(1, num_mel_bins + 1)[:, None]
    triangles = np.maximum(0, np.minimum((mel - centre) / step + 1, (centre - mel) / step + 1))
    filters = torch.tensor(np.pad(triangles, ((0, 0), (0, 1))), dtype=torch.float32)
    return (power @ filters.T).clamp_min(torch.finfo(torch.float32).eps).log()


def _stub_imports() -> None:
    torchaudio = types.ModuleType("torchaudio")
    transforms = types.ModuleType("torchaudio.transforms")
    compliance = types.ModuleType("torchaudio.compliance")
    kaldi = types.ModuleType("torchaudio.compliance.kaldi")
    transforms.Resample, kaldi.fbank = _Resample, _kaldi_fbank
    torchaudio.transforms, torchaudio.compliance, compliance.kaldi = transforms, compliance, kaldi
    for module in (torchaudio, transforms, compliance, kaldi):
        module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
        sys.modules[module.__name__] = module
    package = types.ModuleType("chatterbox")
    located = importlib.metadata.distribution("chatterbox-tts").locate_file("chatterbox")
    package.__path__ = [str(located)]
    sys.modules["chatterbox"] = package


if "chatterbox" not in sys.modules:
    _stub_imports()

import chatterbox.models.s3gen.flow_matching as _flow_matching  # noqa: E402
import chatterbox.models.t3.t3 as _t3_module  # noqa: E402
from chatterbox.models.s3gen.configs import CFM_PARAMS  # noqa: E402
from chatterbox.models.s3gen.decoder import ConditionalDecoder  # noqa: E402
from chatterbox.models.s3gen.f0_predictor import ConvRNNF0Predictor  # noqa: E402
from chatterbox.models.s3gen.flow import CausalMaskedDiffWithXvec  # noqa: E402
from chatterbox.models.s3gen.flow_matching import CausalConditionalCFM  # noqa: E402
from chatterbox.models.s3gen.hifigan import HiFTGenerator  # noqa: E402
from chatterbox.models.s3gen.s3gen import S3Token2Wav  # noqa: E402
from chatterbox.models.s3gen.transformer.upsample_encoder import (  # noqa: E402
    PreLookaheadLayer,
    Upsample1D,
    UpsampleConformerEncoder,
)
from chatterbox.models.s3gen.xvector import CAMPPlus  # noqa: E402
from chatterbox.models.t3.llama_configs import LLAMA_CONFIGS  # noqa: E402
from chatterbox.models.t3.modules.cond_enc import T3Cond  # noqa: E402
from chatterbox.models.t3.modules.perceiver import Perceiver  # noqa: E402
from chatterbox.models.t3.modules.t3_config import T3Config  # noqa: E402
from chatterbox.models.t3.t3 import T3  # noqa: E402
from chatterbox.models.voice_encoder import VoiceEncConfig, VoiceEncoder  # noqa: E402
from s3tokenizer.model_v2 import AudioEncoderV2, FSQVectorQuantization  # noqa: E402

_flow_matching.tqdm = lambda steps, **_: steps
_flow_matching.print = lambda *_, **__: None
_t3_module.tqdm = lambda steps, **_: steps
# decides on the alignment analyzer alone, which 0.1.7 still has and upstream removed later: nothing is compared with it
T3Config.is_multilingual = property(lambda _: False)

__all__ = ["T3Cond", "s3gen", "t3", "voice_encoder"]


def t3(spec: ModelSpec) -> T3:
    """Upstream's T3 with our dimensions, without weights, including `tfmr.wte`, as in its files."""
    name = f"mynah_{spec.name}"
    if isinstance(spec.t3, LlamaSpec):
        return _llama_t3(name, spec.t3)
    LLAMA_CONFIGS[name] = {
        **LLAMA_CONFIGS["GPT2_medium"],
        "n_embd": spec.t3.width,
        "hidden_size": spec.t3.width,
        "n_layer": spec.t3.layers,
        "n_head": spec.t3.heads,
        "n_positions": spec.t3.positions,
        "n_ctx": spec.t3.positions,
        "vocab_size": spec.t3.text_vocab,
    }
    hp = T3Config(text_tokens_dict_size=spec.t3.text_vocab)
    hp.llama_config_name = name
    hp.speech_tokens_dict_size = 6563
    hp.input_pos_emb = None
    hp.speech_cond_prompt_len = 375
    hp.use_perceiver_resampler = False
    hp.emotion_adv = False
    return T3(hp).eval()


def _llama_t3(name: str, spec: LlamaSpec) -> T3:
    LLAMA_CONFIGS[name] = {
        **LLAMA_CONFIGS["Llama_520M"],
        "hidden_size": spec.width,
        "intermediate_size": spec.feed_forward,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.heads,
        "head_dim": spec.width // spec.heads,
        "attn_implementation": "eager",  # as `output_attentions` makes it
        "torch_dtype": "float32",
    }
    hp = T3Config(text_tokens_dict_size=spec.text_vocab)
    hp.llama_config_name = name
    model = T3(hp)
    model.cond_enc.perceiver = Perceiver(spec.perceiver_rows, spec.width, spec.width, spec.perceiver_heads)
    return model.eval()


def s3gen(spec: ModelSpec) -> S3Token2Wav:
    """Upstream's S3Gen (tokenizer, speaker encoder, flow, vocoder) with our dimensions, without weights."""
    model = S3Token2Wav(meanflow=not spec.flow.guided_steps)
    if spec.flow.width < 512:
        _shrink(model, spec)
    return model.eval()


def _shrink(model: S3Token2Wav, spec: ModelSpec) -> None:
    flow, cond = spec.flow, spec.conditioning
    encoder = UpsampleConformerEncoder(
        output_size=flow.width, input_size=flow.width, attention_heads=flow.heads, linear_units=flow.feed_forward,
        num_blocks=flow.encoder_layers, input_layer="linear", pos_enc_layer_type="rel_pos_espnet",
        selfattention_layer_type="rel_selfattn", use_cnn_module=False, macaron_style=False,
    )  # fmt: skip
    # upstream hard-codes 512 channels and 4 upper blocks; other sizes are arguments
    encoder.pre_lookahead_layer = PreLookaheadLayer(channels=flow.width, pre_lookahead_len=3)
    encoder.up_layer = Upsample1D(channels=flow.width, out_channels=flow.width, stride=2)
    encoder.up_encoders = encoder.up_encoders[: flow.up_layers]
    estimator = ConditionalDecoder(
        in_channels=320, out_channels=80, causal=True, channels=[flow.channels], dropout=0.0,
        attention_head_dim=flow.cfm_head_dim, n_blocks=flow.blocks_per_stage, num_mid_blocks=flow.mid_stages,
        num_heads=flow.cfm_heads, act_fn="gelu", meanflow=not flow.guided_steps,
    )  # fmt: skip
    decoder = CausalConditionalCFM(spk_emb_dim=80, cfm_params=CFM_PARAMS, estimator=estimator)
    model.flow = CausalMaskedDiffWithXvec(input_size=flow.width, encoder=encoder, decoder=decoder)
    model.mel2wav = HiFTGenerator(
        base_channels=spec.vocoder.base_channels, sampling_rate=24000, upsample_rates=[8, 5, 3],
        upsample_kernel_sizes=[16, 11, 7], source_resblock_kernel_sizes=[7, 7, 11],
        source_resblock_dilation_sizes=[[1, 3, 5]] * 3,
        f0_predictor=ConvRNNF0Predictor(cond_channels=spec.vocoder.f0_channels),
    )  # fmt: skip
    model.tokenizer.encoder = AudioEncoderV2(
        128, cond.tokenizer_width, cond.tokenizer_heads, cond.tokenizer_layers, 2, False
    )
    model.tokenizer.quantizer = FSQVectorQuantization(cond.tokenizer_width, 3**8)
    model.speaker_encoder = CAMPPlus(
        memory_efficient=False, init_channels=cond.xvector_init_channels, growth_rate=cond.xvector_growth
    )


def voice_encoder(spec: ModelSpec) -> VoiceEncoder:
    """Upstream's voice encoder with our dimensions, without weights."""
    hp = VoiceEncConfig()
    hp.ve_hidden_size = spec.conditioning.speaker_hidden
    return VoiceEncoder(hp).eval()
