"""Sums of products, and scaled products, of lanes of 16 bits, without widening each factor.

What `narrow` recognises in the functions of `arith` is emitted here: pairs of products are added by one instruction
(``pmaddwd``), and where 16 bits hold a product's scaled value, its low and high half are shifted into one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llvmlite import ir

if TYPE_CHECKING:
    from pilc_stream.backends.narrow import Narrow

RUNNING_SUMS = 2
"""Sums that are added up by turns, so that one multiply-add need not wait for the one before."""


def sum_of_products(builder: Any, products: Sequence[tuple[Narrow, Narrow]], terms: Sequence[Narrow]) -> ir.Value:
    """The products of lanes of 16 bits, and further terms, added up in 32 bits."""
    emit = builder.ir
    totals = [builder.lanes(0)] * RUNNING_SUMS
    for term in terms:
        totals[0] = builder.wide((totals[0] + term).in_bits(32))
    for number in range(len(products) // 2):
        (a, b), (c, d) = products[2 * number : 2 * number + 2]
        pairs, others = (builder.paired(x.in_bits(16), y.in_bits(16)) for x, y in ((a, c), (b, d)))
        turn = number % RUNNING_SUMS
        totals[turn] = builder.dot_pairs(totals[turn], pairs, others)
    result = emit.add(*(total.in_bits(32) for total in totals))
    if len(products) % 2:
        a, b = products[-1]
        result = emit.add(result, emit.mul(a.in_bits(32), b.in_bits(32)))
    return result


def scaled_product(builder: Any, factor: Narrow, value: Narrow, shift: int) -> ir.Value:
    """``(factor * value + (1 << (shift - 1))) >> shift`` in 16 bits, which must hold it; `value` has them already.

    The product's low half and what bits 16 and up of it are modulo ``2**16`` give the result's bits: those that are
    shifted out above are copies of its sign.
    """
    emit, half = builder.ir, builder.half_vector
    held = value.in_bits(16)
    lower = factor.in_bits(16) if factor.fits else emit.trunc(factor.in_bits(32), half)
    low = emit.mul(held, lower)
    wide = emit.mul(emit.sext(held, builder.vector), emit.sext(lower, builder.vector))
    high = emit.trunc(emit.lshr(wide, _everywhere(builder.vector, 16)), half)
    if not factor.fits:
        # The lower half was taken as a signed number.
        upper = emit.ashr(emit.add(factor.in_bits(32), _everywhere(builder.vector, 1 << 15)),
                          _everywhere(builder.vector, 16))  # fmt: skip
        high = emit.add(high, emit.mul(held, emit.trunc(upper, half)))
    name = f"llvm.fshl.v{builder.width}i16"
    whole = builder.intrinsic(name, half, [high, low, _everywhere(half, 16 - shift)])
    rounding = emit.and_(emit.lshr(low, _everywhere(half, shift - 1)), _everywhere(half, 1))
    return emit.add(whole, rounding)


def clamped_sum(builder: Any, terms: tuple[Narrow, Narrow], low: Narrow, high: Narrow) -> ir.Value:
    """``clamp(a + b, low, high)`` in 16 bits: a sum beyond them is beyond a limit on the same side when saturated."""
    half = builder.half_vector
    suffix = f"v{builder.width}i16"
    total = builder.intrinsic(f"llvm.sadd.sat.{suffix}", half, [term.in_bits(16) for term in terms])
    total = builder.intrinsic(f"llvm.smax.{suffix}", half, [total, low.in_bits(16)])
    return builder.intrinsic(f"llvm.smin.{suffix}", half, [total, high.in_bits(16)])


def _everywhere(kind: ir.VectorType, value: int) -> ir.Constant:
    return ir.Constant(kind, [value] * kind.count)
