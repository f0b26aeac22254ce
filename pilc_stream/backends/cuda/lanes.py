"""One turn of a tile's rANS lanes, for kernels whose threads are lanes: the words that come and go, in order of lanes.

The lanes of a tile are neighbours in a warp, from a multiple of their number on; all threads of the warp call. `k`: the
thread's lane of its tile; `lane`: its place in the warp; `members`: the tile's lanes as bits, from lane 0 on.
"""

from __future__ import annotations

from typing import Any

from pilc_stream.backends.cuda.shim import ballot, bit_count, device_function, narrow
from pilc_stream.backends.cuda.symbols import emit_stage, encode_stage, refill_stage


@device_function
def refill_lane(words: Any, at: Any, end: Any, state: Any, need: Any, k: Any, lane: Any, members: Any) -> Any:
    """The state, with a word more where `need` is not 0, and the tile's next word. Behind the last word come zeros."""
    wanting = (ballot(need != 0) >> (lane - k)) & members
    if need != 0:
        place = at + bit_count(wanting & ((1 << k) - 1))
        state = refill_stage((words,), (state, words[place] if place < end else 0))[0]
    return state, narrow(at + bit_count(wanting))


@device_function
def encode_lane(words: Any, at: Any, state: Any, interval: Any, busy: Any, k: Any, lane: Any, members: Any) -> Any:
    """The state behind a symbol of this interval, unless the thread is not `busy`, and the tile's first word."""
    emit, word = 0, 0
    if busy:
        emit, word, state = emit_stage((words,), (state, interval))
    leaving = (ballot(emit != 0) >> (lane - k)) & members
    at -= bit_count(leaving)
    if emit != 0:
        words[at + bit_count(leaving & ((1 << k) - 1))] = word
    if busy:
        state = encode_stage((words,), (state, interval))[0]
    return state, at
