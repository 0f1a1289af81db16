"""The net that reads words, as its users see it: tensors of its own, or those of an engine that ends and is rebuilt."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from typing import TypeVar

from engines.errors import EngineFailure
from engines.t3.load import TorchNet

R = TypeVar("R")


class LentNet:
    """A net of T3's first layers that is lent, taken back and lent again. From any thread."""

    def __init__(self, layers: int, net: TorchNet | None = None) -> None:
        self.layers = layers
        self._changed = threading.Condition()
        self._net = net
        self._users = 0
        self._over = False

    def lend(self, net: TorchNet) -> None:
        """Let the net be used. All that made its tensors must be done."""
        with self._changed:
            self._net = net
            self._changed.notify_all()

    def take_back(self) -> None:
        """Return when the net is used no more and nothing here refers to its tensors. Idempotent."""
        with self._changed:
            self._net = None
            self._changed.wait_for(lambda: not self._users)

    def end(self) -> None:
        """Lend no net any more: those that wait for one fail. Idempotent."""
        with self._changed:
            self._over, self._net = True, None
            self._changed.notify_all()

    def call(self, work: Callable[[TorchNet], R]) -> R:
        """The result of `work`, once there is a net. The device must have done its work with it at the end.

        Raises EngineFailure after `end`.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._net is not None or self._over)
            if (net := self._net) is None:
                raise EngineFailure("The engine is closed, so words are read no more.")
            self._users += 1
        try:
            return work(net)
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)  # they would keep the tensors
            raise
        finally:
            del net
            with self._changed:
                self._users -= 1
                self._changed.notify_all()
