"""The CUDA backend: Numba-CUDA kernels that write the bytes of every other backend.

`shim` is the one place that imports Numba-CUDA; `trace` runs the functions of `arith` to emit device code (`plain`, in
the simulator, to compute); `plan` lays out parameters and shared memory, `tensor_plan` those of tensor cores; `stages`
(with `ring` and `symbols`) and `tensor` say what one thread, or a warp, does for its pixels; `network` puts the
perceptron together; `kernels` and `coder` walk tiles (`jobs`) with all that; `lanes` are those of every codec's
kernels; `work` cuts batches to the memory budget; `engine` sees them through, with `batch`, `program`, `memory` and,
for images that stay on the card, `tensors`; `store` keeps compiled kernels; `proof` compiles everything without a card.
What may be expected of a card is in `ROOFLINE.md`.

Two variables of the environment: `PILC_CUDA_MEMORY_MB` limits the device memory of batches, `PILC_KERNEL_CACHE` names
the folder of compiled kernels (an empty one: none).
"""
