"""Batches of lossy tiles whose values are coded on a card: torch says what is coded, the kernels code it.

All is queued on torch's current stream; memory is torch's. Nothing waits before the end of a batch, but for the sizes
of what encoding writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pilc_stream.backends.base import WORD_BYTES, check_ends, split_streams
from pilc_stream.backends.cuda.jobs import JOB_COLUMNS, Job
from pilc_stream.backends.cuda.program import CODER
from pilc_stream.backends.cuda.tensors import current_stream, kernel_array
from pilc_stream.backends.lossy.base import OFFSET, OpenedTile, pack_tile
from pilc_stream.backends.lossy.cuda_coder import CURSOR_COLUMNS, ROW_BITS, Cursor
from pilc_stream.backends.lossy.cuda_program import LanesProgram
from pilc_stream.errors import FormatError
from pilc_stream.models.lossy import ESCAPE, VALUE_LIMIT


class CodeTables(NamedTuple):
    """A model's tables on a card: the decoder's in `program`; int32 `(rows * 256,)` of every row and symbol the
    `intervals`, start and size as halves, of escapes where it has none; bool: whether that is an `escape`."""

    program: LanesProgram
    intervals: torch.Tensor
    escape: torch.Tensor


def code_tables(starts: NDArray[np.int32], device: torch.device) -> CodeTables:
    """The tables of `LossyModel.starts`."""
    wide = starts.astype(np.int64)
    first, sizes = wide[:, :-1], wide[:, 1:] - wide[:, :-1]
    symbols = np.where(sizes == 0, ESCAPE, np.arange(ESCAPE + 1))
    packed = np.take_along_axis(first | sizes << 16, symbols, 1)
    escape = symbols == ESCAPE
    # Of the row 0 nothing is coded.
    packed[0], escape[0] = 0, False
    intervals = packed.astype(np.uint32).view(np.int32).reshape(-1)
    return CodeTables(
        LanesProgram(starts), torch.from_numpy(intervals).to(device), torch.from_numpy(escape.reshape(-1)).to(device)
    )


class CardReader:
    """Streams of tiles of as many lanes each, read in steps."""

    def __init__(self, tables: CodeTables, opened: Sequence[OpenedTile], device: torch.device) -> None:
        """Raises as `split_stream`."""
        self._tables, self._lanes_log2 = tables, opened[0].lanes.lanes_log2
        states, words, self._lengths = split_streams([tile.lanes for tile in opened])
        counts = np.array([len(tile.escapes) for tile in opened], np.int64)
        first_word, first_escape = (np.cumsum(sizes) - sizes for sizes in (self._lengths, counts))
        cursors = np.zeros((len(opened), CURSOR_COLUMNS), np.int32)
        cursors[:, Cursor.NEXT_WORD], cursors[:, Cursor.LAST_WORD] = first_word, first_word + self._lengths
        cursors[:, Cursor.NEXT_ESCAPE], cursors[:, Cursor.LAST_ESCAPE] = first_escape, first_escape + counts
        self._first_word = first_word
        # One more, so that there is memory to point at.
        escapes = np.concatenate([*(tile.escapes for tile in opened), [0]]).astype(np.int32)
        # Copies, as kernels write to some of them and a stream's memory is its owner's.
        self._cursors, self._states, self._words, self._escapes = (
            torch.from_numpy(each.copy()).to(device)
            for each in (cursors, states.view(np.int32), words.view(np.int16), escapes)
        )

    def values(self, rows: torch.Tensor) -> torch.Tensor:
        """The values int32 `(tiles, places)` of these table rows uint8."""
        tiles, places = rows.shape
        found = torch.zeros((tiles, places), dtype=torch.int32, device=rows.device)
        if not places:
            return found
        coded = rows > 0
        numbers = coded.cumsum(1, dtype=torch.int32)
        # What is not coded goes to a place behind all others.
        slots = torch.where(coded, numbers - 1, places).long()
        entries = torch.arange(places, dtype=torch.int32, device=rows.device) << ROW_BITS | rows
        listed = torch.empty((tiles, places + 1), dtype=torch.int32, device=rows.device).scatter_(1, slots, entries)
        arrays = (self._cursors, listed, numbers[:, -1].contiguous(), self._words, self._escapes, self._states, found)
        cursors, listed_array, counts, words, *rest = (kernel_array(each) for each in arrays)
        self._tables.program.values(
            current_stream(rows.device), cursors, self._lanes_log2, listed_array, counts, words.view(np.uint16), *rest
        )
        return found

    def finish(self) -> None:
        """Wait, and check that all was used. Raises FormatError for a stream that no encoder wrote."""
        cursors = self._cursors.cpu().numpy().astype(np.int64)
        used = cursors[:, Cursor.NEXT_WORD] - self._first_word
        if (used > self._lengths).any():
            raise FormatError("tile: the words end before the latents do; the stream is damaged")
        check_ends(self._states.cpu().numpy().view(np.uint32), used, self._lengths)
        left = cursors[:, Cursor.LAST_ESCAPE] - cursors[:, Cursor.NEXT_ESCAPE]
        if (left < 0).any():
            raise FormatError("tile: more escapes than the stream holds; it is damaged")
        if left.any():
            raise FormatError(f"tile: {left.max()} escapes are left over; the stream is damaged")


class CardWriter:
    """Values of tiles, taken in steps, that become streams."""

    def __init__(self, tables: CodeTables, qualities: Sequence[int], lanes_log2: int) -> None:
        self._tables, self._qualities, self._lanes_log2 = tables, qualities, lanes_log2
        self._intervals: list[torch.Tensor] = []
        self._values: list[torch.Tensor] = []
        self._escapes: list[torch.Tensor] = []

    def values(self, rows: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """The values int32 `(tiles, places)` that are coded for what is `wanted`, float64, by these rows uint8."""
        values = wanted.round().clamp(-VALUE_LIMIT, VALUE_LIMIT).to(torch.int32)
        values = torch.where(rows == 0, 0, values)
        symbols = (values + OFFSET).clamp(-1, ESCAPE)
        entries = rows.long() * (ESCAPE + 1) + torch.where(symbols < 0, ESCAPE, symbols)
        self._intervals.append(self._tables.intervals[entries])
        self._escapes.append(self._tables.escape[entries])
        self._values.append(values)
        return values

    def streams(self) -> list[bytes]:
        """The stream of each tile."""
        intervals, values, escape = (torch.cat(each, 1) for each in (self._intervals, self._values, self._escapes))
        device, coded = intervals.device, intervals != 0
        counts, escapes = coded.sum(1), values[escape].cpu().numpy()
        escape_counts = escape.sum(1).cpu().numpy()
        most, total, tiles, lanes = int(counts.max()), int(counts.sum()), len(counts), 1 << self._lanes_log2
        jobs = torch.zeros((tiles, JOB_COLUMNS), dtype=torch.int64, device=device)
        jobs[:, Job.LANES], jobs[:, Job.WORD_END] = lanes, counts.cumsum(0)
        jobs[:, Job.WORD_AT] = jobs[:, Job.WORD_END] - counts

        def room(*shape: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        states, lengths, ends = room(tiles, lanes), room(tiles), room(tiles, dtype=torch.int64)
        words, streams = (room(count, dtype=torch.int16) for count in (total + 1, total + 2 * lanes * tiles))
        listed = torch.cat([intervals[coded], lengths.new_zeros(1)])
        stream, turns = current_stream(device), -(-most >> self._lanes_log2)
        of_jobs, of_states, of_lengths, of_ends = map(kernel_array, (jobs, states, lengths, ends))
        of_words, of_streams = (kernel_array(each).view(np.uint16) for each in (words, streams))
        self._tables.program.lanes(
            stream, of_jobs, self._lanes_log2, turns, kernel_array(listed), of_words, of_states, of_lengths
        )
        CODER.offsets(stream, of_lengths, of_ends)
        CODER.assemble(stream, of_jobs, of_words, of_states, of_ends, of_streams)
        stops = ends.cpu().numpy()
        data = streams[: int(stops[-1])].cpu().numpy().astype("<i2").tobytes()
        starts = np.concatenate([[0], stops[:-1]])
        firsts = np.cumsum(escape_counts) - escape_counts
        return [
            pack_tile(
                quality,
                escapes[first : first + count].tolist(),
                data[WORD_BYTES * start : WORD_BYTES * stop],
            )
            for quality, first, count, start, stop in zip(
                self._qualities, firsts, escape_counts, starts, stops, strict=True
            )
        ]


def latent_checksums(program: LanesProgram, latents: torch.Tensor) -> torch.Tensor:
    """CRC-32C of the latents of each tile, int64 `(tiles,)`."""
    found = torch.zeros(len(latents), dtype=torch.int64, device=latents.device)
    flat = latents.reshape(len(latents), -1).contiguous()
    program.checksums(current_stream(latents.device), kernel_array(flat), kernel_array(found))
    return found ^ 0xFFFFFFFF


__all__ = ["CardReader", "CardWriter", "CodeTables", "code_tables", "latent_checksums"]
