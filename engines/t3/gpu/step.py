"""T3's step for many sequences as one piece of work on fixed memory: embedding, blocks, logits and the draw.

Nothing in it waits for the device or depends on what it computes, so that a CUDA graph can hold it. On a CPU the same
work runs without a graph.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from engines.config import Sampling
from engines.cuda_faults import is_sticky
from engines.device import Graphs, Launch, send, staging_memory
from engines.model_spec import SPEECH_VOCAB
from engines.t3.gpu.cache import StaticCache, StaticSlot, capacity_buckets, row_buckets
from engines.t3.model import T3Net
from engines.t3.passes import PassRow
from engines.t3.sampler import NOT_FINITE, SETTINGS, Rows, read_back, settings_row, start_mark

_log = logging.getLogger(__name__)
# columns of the table that goes to the device before a step, behind them a row's settings of sampling
_POSITION, _STEPS, _TABLE_COLUMNS = 0, 1, 2 + SETTINGS


class StaticPass:
    """A Pass whose decoding rows are computed together, row i for slot i.

    Slots between them that draw nothing in this step take part with results that are thrown away. A prompt's chunk is
    read behind them, eagerly. The host sends one small table in a step and waits once, for the drawn tokens.

    graphs: what captures the steps of every size, at once; None: they run eagerly. A size whose capture fails runs
        eagerly for good.
    """

    def __init__(self, net: T3Net, slots: int, max_positions: int, graphs: Graphs | None = None) -> None:
        device = net.device
        self._net, self.size = net, (slots, max_positions)
        self.cache = StaticCache(net.spec, slots, max_positions, net.dtype, device)
        self._rows, self._capacities = row_buckets(slots), capacity_buckets(self.cache.capacity)
        self._settings = [Sampling()] * slots
        self._drawn_tokens = [0] * slots
        self._staged = staging_memory((slots, _TABLE_COLUMNS), torch.float64, device)
        self._table = torch.zeros((slots, _TABLE_COLUMNS), dtype=torch.float64, device=device)
        for slot in range(slots):
            self._stage_row(slot, 0, False)
        send(self._table, self._staged)
        self._last = torch.zeros(slots, dtype=torch.int64, device=device)  # the last token drawn in each slot
        self._drawn = torch.zeros(slots, dtype=torch.int64, device=device)  # the same, or NOT_FINITE
        self._seen = torch.zeros((slots, SPEECH_VOCAB), dtype=torch.bool, device=device)
        self._start_mark = start_mark(device)
        self._positions = torch.arange(self.cache.capacity, device=device)
        self._shown = torch.zeros((), dtype=net.dtype, device=device)
        self._hidden = torch.full((), float("-inf"), dtype=net.dtype, device=device)
        self.logits = torch.zeros((slots, SPEECH_VOCAB), device=device)  # of the last step of each slot
        self._launches: dict[tuple[int, int], Launch] = {}
        self.failed_captures = 0  # sizes that run eagerly for good
        self.replayed = self.eager = 0  # steps so far
        if graphs is not None:
            self._capture(graphs)

    @property
    def graphs(self) -> int:
        """The number of sizes that are replayed."""
        return len(self._launches)

    def _capture(self, graphs: Graphs) -> None:
        """All sizes, largest first, so that one pool of memory serves the others."""
        with torch.no_grad():
            for rows in self._rows[::-1]:
                for capacity in self._capacities[::-1]:
                    self._capture_size(graphs, rows, capacity)

    def _capture_size(self, graphs: Graphs, rows: int, capacity: int) -> None:
        def work() -> None:
            self._step(rows, capacity)

        try:
            work()  # the first call of a size may allocate and tune
            self._launches[rows, capacity] = graphs.capture(work)
        except Exception as error:
            if is_sticky(error):
                raise
            self.failed_captures += 1
            _log.warning("No CUDA graph for %d rows of %d positions, which run eagerly: %s", rows, capacity, error)

    def new_slot(self, index: int) -> StaticSlot:
        """As Pass.new_slot."""
        return StaticSlot(self.cache, index)

    def begin(self, slot_index: int, sampling: Sampling) -> None:
        """As Pass.begin."""
        self._settings[slot_index], self._drawn_tokens[slot_index] = sampling, 0

    def run(self, rows: Sequence[PassRow]) -> list[int]:
        """As Pass.run."""
        due = [row.slot_index for row in rows if row.due]  # every decoding row, and a prompt's last chunk
        decoding = [row for row in rows if row.token is not None]
        try:
            if due:
                self._stage(rows)
                send(self._table, self._staged)
            if decoding:
                self._launch(decoding)
            for row in rows:
                if row.chunk is not None:
                    self._read_chunk(row)
            if not due:
                return []
            tokens = read_back(self._drawn[: max(due) + 1])
        except Exception:
            # the next step may not overwrite the table while this one's copy is on its way
            with contextlib.suppress(Exception):
                read_back(self._drawn)
            raise
        for slot in due:
            self._drawn_tokens[slot] += 1
        return [tokens[slot] for slot in due]

    def _stage(self, rows: Sequence[PassRow]) -> None:
        """Write the table of positions and settings."""
        self._staged.numpy()[:, _STEPS] = 0
        for row in rows:
            steps = row.token is not None
            self._stage_row(row.slot_index, row.span.start if steps else 0, steps)

    def _stage_row(self, slot: int, position: int, steps: bool) -> None:
        settings = settings_row(self._settings[slot], self._drawn_tokens[slot])
        self._staged.numpy()[slot] = (position, steps, *settings)

    def _launch(self, decoding: Sequence[PassRow]) -> None:
        """The step of the smallest size that holds these rows."""
        last_slot = max(row.slot_index for row in decoding)
        longest = max(row.span.start for row in decoding) + 1
        rows = next(size for size in self._rows if size > last_slot)
        capacity = next(size for size in self._capacities if size >= longest)
        launch = self._launches.get((rows, capacity))
        if launch is None:
            self.eager += 1
            self._step(rows, capacity)
        else:
            self.replayed += 1
            launch()

    def _step(self, rows: int, capacity: int) -> None:
        """What a graph holds: read the last token of the first `rows` slots and draw the next."""
        net, table = self._net, self._table[:rows]
        position, steps = table.select(1, _POSITION).long(), table.select(1, _STEPS).bool()
        at = torch.where(steps, position, self.cache.nowhere)
        visible = self._positions[:capacity] <= position.unsqueeze(1)
        mask = torch.where(visible, self._shown, self._hidden).view(rows, 1, 1, capacity)

        def attend(layer: int, qkv: Tensor) -> list[Tensor]:
            """qkv (rows or more, 3, heads, dim)."""
            qkv = qkv[:rows]
            keys, values = self.cache.write(layer, rows, at, qkv[:, 1:])
            query = qkv[:, 0].unsqueeze(2)  # (rows, heads, 1, dim)
            seen = keys[:, :, :capacity], values[:, :, :capacity]
            return [F.scaled_dot_product_attention(query, *seen, attn_mask=mask).reshape(rows, -1)]

        x = F.embedding(self._last[:rows], net.speech_embedding) + F.embedding(position, net.position_embedding)
        hidden = net.run_blocks(x, attend)
        self._draw(0, rows, net.speech_logits(hidden), steps.unsqueeze(1))

    def _read_chunk(self, row: PassRow) -> None:
        assert row.chunk is not None
        hidden = self._net.forward(row.chunk, [row.span])
        if row.due:
            logits = self._net.speech_logits(hidden[-1:])
            self._draw(row.slot_index, row.slot_index + 1, logits, None)

    def _draw(self, first: int, stop: int, logits: Tensor, steps: Tensor | None) -> None:
        """Draw for the slots [first, stop), logits (n, 6563). `steps` (n, 1): which of them keep it; None: all."""
        settings = self._table[first:stop].narrow(1, 2, SETTINGS)
        rows = Rows.of(settings, self._seen[first:stop], self._start_mark)
        tokens, finite = rows.draw(logits, SPEECH_VOCAB, any_greedy=True)
        reported = torch.where(finite, tokens, NOT_FINITE)
        seen = rows.seen_with(tokens)
        last, drawn = self._last[first:stop].unsqueeze(1), self._drawn[first:stop].unsqueeze(1)
        kept = self.logits[first:stop]
        if steps is not None:
            tokens, reported = torch.where(steps, tokens, last), torch.where(steps, reported, drawn)
            seen, logits = torch.where(steps, seen, self._seen[first:stop]), torch.where(steps, logits, kept)
        last.copy_(tokens)
        drawn.copy_(reported)
        kept.copy_(logits)
        self._seen[first:stop].copy_(seen)

    def force(self, slot_index: int, token: int) -> None:
        """Let the slot's next step read this token instead of the one that was drawn."""
        self._last[slot_index : slot_index + 1].fill_(token)
