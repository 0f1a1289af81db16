"""Head sizes that the kernels have stay as they are, others are filled up; test_parity.py runs tiny's 48 channels."""

from __future__ import annotations

import pytest
from vllm.model_executor.models import gpt2

from engines.model_spec import NANO, TINY, TURBO
from engines.t3.vllm.heads import kernel_head_size, padded_heads


def test_a_head_runs_in_the_next_size_that_the_kernels_have() -> None:
    assert [kernel_head_size(size) for size in (32, 33, 48, 64, 80, 129, 256)] == [32, 64, 64, 64, 96, 192, 256]
    with pytest.raises(ValueError, match="at most 256"):
        kernel_head_size(257)


@pytest.mark.parametrize(
    ("spec", "padded"), [(TURBO, False), (NANO, False), (TINY, True)], ids=["turbo", "nano", "tiny"]
)
def test_only_heads_of_another_size_are_padded(spec: object, padded: bool) -> None:
    original = gpt2.Attention
    with padded_heads(spec.t3.width // spec.t3.heads):  # type: ignore[attr-defined]
        assert (gpt2.Attention is not original) == padded
    assert gpt2.Attention is original
