"""The id space and the embedding: every id has its row."""

from __future__ import annotations

import pytest
import torch

from engines.model_spec import NANO, SPEECH_VOCAB, START_SPEECH_TOKEN, TINY, ModelSpec
from engines.t3.vllm.embedding import IdEmbedding
from engines.t3.vllm.vocab import PROMPT_SPEECH_START, TEXT_START, IdSpace

SLOTS = 5


def space_of(spec: ModelSpec) -> IdSpace:
    return IdSpace(spec.t3.text_vocab, SLOTS)


def marked(space: IdSpace) -> IdEmbedding:
    """An embedding whose rows hold their own numbers."""
    embedding = IdEmbedding(space, width=1)
    embedding.table.data[:, 0] = torch.arange(space.rows)
    return embedding


@pytest.mark.parametrize("spec", [TINY, NANO], ids=lambda spec: spec.name)
def test_every_id_has_the_row_it_should_have(spec: ModelSpec) -> None:
    space = space_of(spec)
    embedding = marked(space)
    rows = embedding(torch.arange(space.ids)).flatten().tolist()
    speech, text, voices = (part.flatten().tolist() for part in (embedding.speech, embedding.text, embedding.voices))
    assert rows == speech + speech + text + voices
    assert (len(speech), len(text), len(voices)) == (SPEECH_VOCAB, spec.t3.text_vocab, SLOTS)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_ids_that_mean_nothing_embed_to_something_finite(dtype: torch.dtype) -> None:
    space = space_of(TINY)
    beyond = torch.arange(space.ids, space.ids + 70_000)
    extremes = torch.tensor([-1, -70_000, torch.iinfo(torch.int32).min, torch.iinfo(torch.int32).max])
    embedded = marked(space)(torch.cat([beyond, extremes]).to(dtype))
    assert bool(torch.isfinite(embedded).all())


def test_an_id_embeds_to_the_same_whatever_stands_beside_it() -> None:
    """Prompt and generated ids, voices and padding in one call, in any order and any number."""
    space = space_of(TINY)
    embedding = IdEmbedding(space, width=3)
    embedding.table.data.normal_(generator=torch.Generator().manual_seed(0))
    ids = torch.randint(-10, space.ids + 10, (400,), generator=torch.Generator().manual_seed(1))
    together = embedding(ids)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(2))
    assert torch.equal(embedding(ids[order]), together[order])
    assert torch.equal(torch.cat([embedding(part) for part in ids.split(7)]), together)


def test_the_embedding_is_captured_whole_and_at_any_length() -> None:
    """As vLLM compiles it: one graph, no branch on ids, no new graph for another number of rows."""
    space = space_of(TINY)
    embedding = marked(space)
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: object) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    compiled = torch.compile(embedding, fullgraph=True, dynamic=True, backend=backend)
    for rows in (3, 64, 500):
        ids = torch.arange(rows, dtype=torch.int32) * 37
        assert torch.equal(compiled(ids), embedding(ids))
    assert len(graphs) == 1


def test_a_prompt_is_laid_out_as_upstreams_and_uses_no_generated_id() -> None:
    space = space_of(TINY)
    prompt = space.prompt(3, [0, 6560], [0, 7, space.text_vocab - 1])
    assert prompt == [
        space.voice_start + 3,
        PROMPT_SPEECH_START,
        PROMPT_SPEECH_START + 6560,
        TEXT_START,
        TEXT_START + 7,
        space.voice_start - 1,
        PROMPT_SPEECH_START + START_SPEECH_TOKEN,
    ]
    assert min(prompt) >= SPEECH_VOCAB, "what a sampler may penalise must not come from a prompt"
    assert space.ids == space.voice_start + SLOTS
