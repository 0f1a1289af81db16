"""The ids of standard and Multilingual under vLLM, and their embedding: a function of the id alone."""

from __future__ import annotations

import pytest
import torch

from engines.model_spec import MULTILINGUAL, STANDARD_TINY, LlamaSpec
from engines.t3.llama.weights import spec_of
from engines.t3.vllm.llama.embedding import LaneEmbedding
from engines.t3.vllm.llama.vocab import EXAGGERATION_ROWS, LaneIds, exaggerations

SPEC = spec_of(STANDARD_TINY)
SLOTS = 5


def embedding() -> LaneEmbedding:
    made = LaneEmbedding(LaneIds(SPEC, SLOTS))
    for table in (made.table, made.places):
        table.data.normal_(generator=torch.Generator().manual_seed(len(table)))
    made.places.data[0] = 0
    return made


def test_a_prompt_is_laid_out_as_upstreams() -> None:
    ids = LaneIds(SPEC, SLOTS)
    prompt = torch.tensor(ids.prompt(3, 0.5, [7, 8]))
    rows, places = ids.rows_of(prompt).tolist(), ids.places_of(prompt).tolist()
    voice = ids.voice_rows_of(3)
    text, start = ids.first_text_row, ids.first_speech_place
    level = ids.first_exaggeration_row + 500
    assert rows == [*range(voice.start, voice.stop), level, text + 255, text + 7, text + 8, text, 6561, 6561]
    assert places == [0] * 34 + [1, 2, 3, 4] + [start] * 2
    assert exaggerations()[500] == 0.5
    assert ids.are_text(prompt).tolist() == [False] * 34 + [True] * 4 + [False] * 2


@pytest.mark.parametrize("spec", [STANDARD_TINY.t3, MULTILINGUAL.t3], ids=["standard", "multilingual"])
def test_a_drawn_token_has_its_own_row_and_place_to_the_last_and_fits_int32(spec: LlamaSpec) -> None:
    ids = LaneIds(spec, 256)
    for token, step in ((0, 0), (8193, 999), (6562, spec.speech_positions - 2)):
        drawn = ids.drawn(token, step)
        assert ids.token(drawn) == token
        assert 0 <= drawn < 2**31 - 1, "the mark of what is not finite is no id"
        as_read = torch.tensor([drawn], dtype=torch.int32)
        assert ids.rows_of(as_read).item() == token
        assert ids.places_of(as_read).item() == ids.first_speech_place + step + 1
    assert ids.prompt(255, 2.0, [spec.text_vocab - 1] * (spec.text_positions - 2))
    assert ids.rows == 8194 + spec.text_vocab + EXAGGERATION_ROWS + 33 * 256


def test_the_second_lane_has_the_texts_places_and_not_its_tokens() -> None:
    made = embedding()
    ids = torch.tensor(made.ids.prompt(1, 1.25, [7, 8]))
    with_text, without_text = made(ids).unbind(1)
    rows, places = made.table[made.ids.rows_of(ids)], made.places[made.ids.places_of(ids)]
    assert torch.equal(with_text, rows + places)
    assert torch.equal(without_text[34:38], places[34:38])
    assert torch.equal(without_text[:34], rows[:34])
    assert torch.equal(without_text[38:], with_text[38:])


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_ids_that_mean_nothing_embed_to_something_finite(dtype: torch.dtype) -> None:
    extremes = [-1, -70_000, torch.iinfo(torch.int32).min, torch.iinfo(torch.int32).max, 1 << 18, (1 << 18) - 1]
    assert bool(torch.isfinite(embedding()(torch.tensor(extremes, dtype=dtype))).all())


def test_the_embedding_is_captured_whole_at_any_length_and_knows_no_neighbours() -> None:
    made, graphs = embedding(), []

    def backend(graph: torch.fx.GraphModule, _: object) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    compiled = torch.compile(made, fullgraph=True, dynamic=True, backend=backend)
    ids = torch.randint(-10, 2**31 - 1, (500,), generator=torch.Generator().manual_seed(1), dtype=torch.int32)
    for rows in (3, 64, 500):
        assert torch.equal(compiled(ids[:rows]), made(ids)[:rows])
    assert len(graphs) == 1
    assert torch.equal(torch.cat([made(part) for part in ids.split(7)]), made(ids))
