"""The CUDA backend: Numba-CUDA kernels that write the bytes of every other backend.

`shim` is the one place that imports Numba-CUDA; `trace` runs the functions of `arith` to emit device code; `plan` lays
out parameters and shared memory; `stages` (with `ring` and `symbols`) say what one thread does for one pixel;
`kernels` and `coder` walk tiles with them; `work` cuts batches to the memory budget; `engine` sees them through, with
`batch`, `program` and `memory`; `proof` compiles everything without a card.
"""
