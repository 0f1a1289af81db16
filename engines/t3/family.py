"""What the two families of T3 differ in beside their nets: how a token is drawn, and where speech ends.

Decoder, passes and pipeline take a Family and know nothing of one themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

from engines.config import Sampling
from engines.model_spec import SILENCE_TAIL_TOKENS, SPEECH_VOCAB, LlamaSpec, T3Spec
from engines.t3.sampler import GuidedRows, Rows
from engines.t3.speech_tokens import EndRules


@dataclass(frozen=True)
class Family:
    """The rules of one family.

    speech_vocab  ids that a token is drawn from, marks and unused ones included
    rows          upstream's order of processing logits
    end           where a segment's speech ends and what follows it
    sampling      upstream's defaults
    guided        whether it has guidance, exaggeration and min_p
    """

    speech_vocab: int
    rows: type[Rows]
    end: EndRules
    sampling: Sampling
    guided: bool


# Upstream's `inference_turbo`: temperature, top-k, top-p, penalty.
GPT2 = Family(
    SPEECH_VOCAB,
    Rows,
    EndRules(silence_tokens=SILENCE_TAIL_TOKENS, first_stop_ends=False, uncounted_draws=1),
    Sampling(),
    guided=False,
)
# Upstream's `inference`: guidance, penalty, temperature, min_p, top-p.
LLAMA = Family(
    8194,
    GuidedRows,
    EndRules(silence_tokens=0, first_stop_ends=True, uncounted_draws=0),
    Sampling(top_k=0, top_p=1.0, min_p=0.05, cfg_weight=0.5, exaggeration=0.5),
    guided=True,
)


def family_of(spec: T3Spec) -> Family:
    """The family of a T3 of these dimensions."""
    return LLAMA if isinstance(spec, LlamaSpec) else GPT2
