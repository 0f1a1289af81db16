"""The dimensions of the models: time base, speech vocabulary, and the layer sizes of each family member."""

from __future__ import annotations

from dataclasses import dataclass, replace

from engines.text.languages.codes import NAMES, scripts_of

# One time base: 25 speech tokens, 50 mel frames and 24 000 samples per second.
SAMPLE_RATE_HZ = 24_000
SPEECH_TOKENS_PER_S = 25
MEL_FRAMES_PER_TOKEN = 2
MEL_HOP_SAMPLES = 480
SAMPLES_PER_TOKEN = MEL_FRAMES_PER_TOKEN * MEL_HOP_SAMPLES
assert SAMPLES_PER_TOKEN * SPEECH_TOKENS_PER_S == SAMPLE_RATE_HZ
MEL_BANDS = 80

# Speech vocabulary: codes 0 to 6560, then the start and stop tokens, which only T3 uses.
SPEECH_CODES = 3**8
START_SPEECH_TOKEN = SPEECH_CODES
STOP_SPEECH_TOKEN = SPEECH_CODES + 1
SPEECH_VOCAB = SPEECH_CODES + 2
SILENCE_SPEECH_TOKEN = 4299  # upstream's S3GEN_SIL; three of them close every segment
SILENCE_TAIL_TOKENS = 3

# Limits of a voice's prompts (upstream: 15 s for T3, 10 s for S3Gen).
MAX_T3_PROMPT_TOKENS = 375
MAX_S3GEN_PROMPT_TOKENS = 250
SPEAKER_EMBEDDING_DIM = 256
X_VECTOR_DIM = 192


MEANFLOW_STEPS, MEANFLOW_FILE = 2, "s3gen_meanflow.safetensors"  # as distilled
GUIDED_STEPS, GUIDED_FILE = 10, "s3gen.safetensors"  # as published for standard and Multilingual


@dataclass(frozen=True)
class T3Spec:
    """GPT-2 over [speaker][prompt speech tokens][text][start of speech][speech tokens]."""

    layers: int
    width: int
    heads: int
    positions: int
    text_vocab: int


@dataclass(frozen=True)
class LlamaSpec(T3Spec):
    """Llama over [conditioning][text][start of speech twice][speech tokens], for standard and Multilingual.

    `positions` is what a sequence can have in all: conditioning, every text position and every speech position.
    """

    feed_forward: int
    speech_vocab: int  # rows of the head; those above the stop token are drawn from too and mean nothing
    text_positions: int  # learned ones, the marks around the text included
    speech_positions: int  # learned ones, beside the rotary positions of the whole sequence
    perceiver_rows: int = 32  # that a voice's prompt becomes
    perceiver_heads: int = 4

    @property
    def voice_rows(self) -> int:
        """Rows at the start of a prompt that depend on the voice alone: the speaker, and the perceiver's."""
        return 1 + self.perceiver_rows

    @property
    def conditioning_rows(self) -> int:
        """Rows before the text: the voice's, and the one of its exaggeration."""
        return self.voice_rows + 1


@dataclass(frozen=True)
class FlowSpec:
    """Flow encoder (conformer, width `width`) and CFM U-Net (width `channels`).

    guided_steps  Euler steps of a CFM that is guided by an unconditional one; 0: two steps of a meanflow CFM
    """

    width: int
    heads: int
    feed_forward: int
    encoder_layers: int
    up_layers: int
    channels: int
    mid_stages: int
    blocks_per_stage: int
    cfm_heads: int
    cfm_head_dim: int
    guided_steps: int = 0

    @property
    def steps(self) -> int:
        """Euler steps from noise to mel."""
        return self.guided_steps or MEANFLOW_STEPS

    @property
    def lanes(self) -> int:
        """Rows of the CFM for each row of a batch: with guidance the conditional one and the unconditional one."""
        return 2 if self.guided_steps else 1


@dataclass(frozen=True)
class VocoderSpec:
    """HiFT: `base_channels` is halved at each of the three upsamplings (8, 5, 3); then an iSTFT of hop 4."""

    base_channels: int
    f0_channels: int


@dataclass(frozen=True)
class ConditioningSpec:
    """The nets that turn reference audio into a Voice."""

    speaker_hidden: int  # voice encoder: 3-layer LSTM
    tokenizer_width: int  # S3 tokenizer v2
    tokenizer_heads: int
    tokenizer_layers: int
    xvector_init_channels: int  # CAMPPlus; its block depths 12, 24, 16 never change
    xvector_growth: int
    t3_prompt_tokens: int = MAX_T3_PROMPT_TOKENS  # of the reference's start
    normalizes_loudness: bool = True  # whether the model was trained on references of one loudness


@dataclass(frozen=True)
class ModelSpec:
    """Dimensions of one family member, and what it was trained to speak. Turbo and Nano differ in T3 only, as do
    standard and Multilingual.

    t3_name      the file of T3's weights; empty: t3_NAME_v1.safetensors
    s3gen_name   the file of S3Gen's weights, S3 tokenizer and CAMPPlus included
    tokenizer_name  the file of the text tokenizer; empty: GPT-2's files
    languages    codes of the languages that can be chosen; empty: none can
    scripts      scripts of its training text, as Unicode's character names begin
    speaks_tags  whether it was trained on paralinguistic tags, such as [laugh]
    clones_speakers  whether it was trained on enough speakers to follow one that it never met
    longest_segment_text_tokens  text tokens of the longest segment that it speaks well
    """

    name: str
    t3: T3Spec
    flow: FlowSpec
    vocoder: VocoderSpec
    conditioning: ConditioningSpec
    t3_name: str = ""
    s3gen_name: str = MEANFLOW_FILE
    tokenizer_name: str = ""
    languages: tuple[str, ...] = ()
    scripts: tuple[str, ...] = ("LATIN",)
    speaks_tags: bool = True
    clones_speakers: bool = True
    # T3 stops after 1000 speech tokens, 40 s. Slow English takes 0.4 s for a text token of GPT-2's vocabulary (four
    # characters, 10 a second), so that 100 text tokens always fit.
    longest_segment_text_tokens: int = 100

    @property
    def t3_file(self) -> str:
        """The file name of T3's weights in a checkpoint folder; it identifies the model."""
        return self.t3_name or f"t3_{self.name}_v1.safetensors"

    @property
    def is_llama(self) -> bool:
        """Whether T3 is of the family of standard and Multilingual."""
        return isinstance(self.t3, LlamaSpec)

    @property
    def voice_models(self) -> tuple[str, ...]:
        """The models whose voices this one speaks: those that differ in T3 only."""
        return tuple(other.name for other in MODELS.values() if _without_t3(other) == _without_t3(self))


def with_guided_flow(spec: ModelSpec) -> ModelSpec:
    """The same model with the flow of standard and Multilingual: Euler steps with guidance."""
    return replace(spec, flow=replace(spec.flow, guided_steps=GUIDED_STEPS), s3gen_name=GUIDED_FILE)


def with_meanflow(spec: ModelSpec) -> ModelSpec:
    """The same model with the flow that was distilled to two steps."""
    return replace(spec, flow=replace(spec.flow, guided_steps=0), s3gen_name=MEANFLOW_FILE)


def _without_t3(spec: ModelSpec) -> tuple[FlowSpec, VocoderSpec, ConditioningSpec]:
    return replace(spec.flow, guided_steps=0), spec.vocoder, spec.conditioning  # voices do not depend on steps


_FULL_FLOW = FlowSpec(
    width=512, heads=8, feed_forward=2048, encoder_layers=6, up_layers=4,
    channels=256, mid_stages=12, blocks_per_stage=4, cfm_heads=8, cfm_head_dim=64,
)  # fmt: skip
_FULL_VOCODER = VocoderSpec(base_channels=512, f0_channels=512)
_FULL_CONDITIONING = ConditioningSpec(
    speaker_hidden=256, tokenizer_width=1280, tokenizer_heads=20, tokenizer_layers=6,
    xvector_init_channels=128, xvector_growth=32,
)  # fmt: skip

TURBO = ModelSpec("turbo", T3Spec(24, 1024, 16, 8196, 50276), _FULL_FLOW, _FULL_VOCODER, _FULL_CONDITIONING)
NANO = ModelSpec("nano", T3Spec(12, 768, 12, 8196, 50276), _FULL_FLOW, _FULL_VOCODER, _FULL_CONDITIONING)
# The CFM needs more channels than mel bands, or it cannot remove the noise. The text vocabulary consists of words and
# of pieces of words.
TINY = ModelSpec(
    "tiny",
    T3Spec(layers=4, width=192, heads=4, positions=2048, text_vocab=28_672),
    FlowSpec(
        width=128, heads=2, feed_forward=256, encoder_layers=2, up_layers=2,
        channels=128, mid_stages=2, blocks_per_stage=1, cfm_heads=2, cfm_head_dim=32,
    ),
    VocoderSpec(base_channels=128, f0_channels=64),
    ConditioningSpec(
        speaker_hidden=64, tokenizer_width=128, tokenizer_heads=2, tokenizer_layers=2,
        xvector_init_channels=32, xvector_growth=8,
    ),
    speaks_tags=False,
    clones_speakers=False,
    longest_segment_text_tokens=60,
)  # fmt: skip


def _llama(
    text_vocab: int, *, layers: int = 30, width: int = 1024, heads: int = 16, feed_forward: int = 4096
) -> LlamaSpec:
    text, speech = 2050, 4100
    return LlamaSpec(
        layers, width, heads, 34 + text + 1 + speech, text_vocab,
        feed_forward=feed_forward, speech_vocab=8194, text_positions=text, speech_positions=speech,
    )  # fmt: skip


_STANDARD_TOKENIZER, _MULTILINGUAL_TOKENIZER = "tokenizer.json", "grapheme_mtl_merged_expanded_v1.json"
_LANGUAGES = tuple(NAMES)
# Slow English takes 0.1 s a character. A text token of these vocabularies is about 1.8 characters of English, spaces
# among them, so that 200 take 36 s of the 40 s after which T3 stops.
_LONGEST_SEGMENT_TEXT_TOKENS = 200
_LLAMA_CONDITIONING = replace(_FULL_CONDITIONING, t3_prompt_tokens=150, normalizes_loudness=False)


def _llama_model(name: str, t3_name: str, *, languages: tuple[str, ...] = (), tiny: bool = False) -> ModelSpec:
    text_vocab = 2454 if languages else 704
    conditioning = replace(TINY.conditioning, t3_prompt_tokens=150, normalizes_loudness=False)
    spec = ModelSpec(
        name,
        _llama(text_vocab, layers=4, width=128, heads=4, feed_forward=256) if tiny else _llama(text_vocab),
        TINY.flow if tiny else _FULL_FLOW,
        TINY.vocoder if tiny else _FULL_VOCODER,
        conditioning if tiny else _LLAMA_CONDITIONING,
        t3_name=t3_name,
        tokenizer_name=_MULTILINGUAL_TOKENIZER if languages else _STANDARD_TOKENIZER,
        languages=languages,
        scripts=tuple(dict.fromkeys(script for language in languages or ("en",) for script in scripts_of(language))),
        speaks_tags=False,
        longest_segment_text_tokens=_LONGEST_SEGMENT_TEXT_TOKENS,
    )
    return with_guided_flow(spec)


STANDARD = _llama_model("standard", "t3_cfg.safetensors")
MULTILINGUAL = _llama_model("multilingual", "t3_mtl23ls_v3.safetensors", languages=_LANGUAGES)
MULTILINGUAL_V2 = _llama_model("multilingual-v2", "t3_mtl23ls_v2.safetensors", languages=_LANGUAGES)
# random weights of small nets, for tests
STANDARD_TINY = _llama_model("standard-tiny", "", tiny=True)
MULTILINGUAL_TINY = _llama_model("multilingual-tiny", "", languages=_LANGUAGES, tiny=True)
MODELS = {
    spec.name: spec
    for spec in (TURBO, NANO, TINY, STANDARD, MULTILINGUAL, MULTILINGUAL_V2, STANDARD_TINY, MULTILINGUAL_TINY)
}
