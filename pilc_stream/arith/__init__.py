"""The integer law: every number a decoder needs, as small functions with one defined result.

The leaf functions of this package use nothing but integer ``+ - * // << >>``, comparisons and ``abs``, so the
same source runs on four kinds of operand: Python integers (the schoolbook), NumPy int64 arrays (the reference),
traced vectors of 32-bit lanes (the CPU backend) and Numba scalars (CUDA kernels). Three rules keep them equal:

1. A comparison gives 0 or 1 and is only ever multiplied, never added to another comparison (NumPy would OR them).
2. ``//`` has operands ``0 <= a < 2**24`` and ``1 <= b < 2**24``, where a correctly rounded float32 division,
   truncated, gives the same result.
3. Every intermediate value lies in ``[-2**31, 2**31)``; every sum of products below ``2**24`` in magnitude.
"""
