"""A key-value cache for sampling, which grows without copying at every step and can drop rows."""

from torch import Tensor
from transformers.cache_utils import DynamicLayer

_ROOM = 64


class GrowingLayer(DynamicLayer):
    """Keys and values in buffers [rows, heads, capacity, head_dim]. A step writes one column without copying."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            rows, heads, _, size = key_states.shape
            self._keys, self._values = (key_states.new_empty(rows, heads, 0, size) for _ in range(2))
            self._length = 0
        start, self._length = self._length, self._length + key_states.shape[-2]
        if self._length > self._keys.shape[-2]:
            self._keys, self._values = (self._grown(buffer, start) for buffer in (self._keys, self._values))
        self._keys[:, :, start : self._length] = key_states
        self._values[:, :, start : self._length] = value_states
        return self._expose()

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep, drop or repeat rows."""
        self._keys, self._values = self._keys[indices], self._values[indices]
        self._expose()

    def compact(self, holes: Tensor, movers: Tensor, count: int) -> None:
        """Move the rows ``movers`` to ``holes`` and keep the first ``count`` rows. No other row is copied."""
        for buffer in (self._keys, self._values):
            buffer[holes] = buffer[movers]
        self._keys, self._values = self._keys[:count], self._values[:count]
        self._expose()

    def _grown(self, buffer: Tensor, filled: int) -> Tensor:
        rows, heads, _, size = buffer.shape
        wider = buffer.new_empty(rows, heads, self._length + _ROOM, size)
        wider[:, :, :filled] = buffer[:, :, :filled]
        return wider

    def _expose(self) -> tuple[Tensor, Tensor]:
        keys, values = self._keys[:, :, : self._length], self._values[:, :, : self._length]
        self.keys, self.values = keys, values
        return keys, values
