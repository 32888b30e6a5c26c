"""Two loops of the resize written as vector code (LLVM IR through llvmlite).

numba does not pack the four bytes of a pixel into one vector, nor prove that gathered pixels do not alias the output;
written out, the horizontal pass of the resize is three times faster. Plain LLVM vectors: lowered to SSE, AVX or NEON.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_BYTE, _INT32, _INT64, _FLOAT = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()
_PIXEL_BYTES, _PIXEL = ir.VectorType(_BYTE, 4), ir.VectorType(_FLOAT, 4)
_FLAGS = ("contract", "reassoc")
_UNROLLED_TAPS = 8  # reductions by up to three; larger ones take a loop


def _int64(value: int) -> Any:
    return ir.Constant(_INT64, value)


def _splat(builder: Any, scalar: Any, vector: Any) -> Any:
    """``scalar`` in every lane of type ``vector``."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_INT32, 0))
    zeros = ir.Constant(ir.VectorType(_INT32, vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, undefined, zeros)


def _tap(builder: Any, window: Any, byte: Any, weight: Any) -> Any:
    """weight * the four bytes at window[byte], as floats."""
    pointer = builder.bitcast(builder.gep(window, [byte]), _PIXEL_BYTES.as_pointer())
    pixel = builder.load(pointer)
    pixel.align = 1
    return builder.fmul(_splat(builder, weight, _PIXEL), builder.uitofp(pixel, _PIXEL), flags=_FLAGS)


def _store_pixel(builder: Any, row: Any, x: Any, value: Any) -> None:
    pointer = builder.bitcast(builder.gep(row, [builder.mul(x, _int64(4))]), _PIXEL.as_pointer())
    builder.store(value, pointer).align = 4


@intrinsic  # type: ignore[untyped-decorator]
def resize_row(
    context: Any, source: Any, first: Any, byte_S: Any, weight_SK: Any, taps: Any, side: Any, row: Any
) -> Any:
    """row[4x : 4x+4] = sum_k weight_SK[x*taps + k] * source[first + byte_S[x] + 3k : … + 4] for x < side.

    source uint8 RGB pixels, byte_S int32, weight_SK and row float32, all one-dimensional. The fourth lane is the red of
    the next pixel: one byte after the last pixel is read, and the lane is ignored.
    """
    signature = types.void(source, types.int64, byte_S, weight_SK, types.int64, types.int64, row)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def pointer(number: int) -> Any:
            return context.make_array(signature.args[number])(context, builder, arguments[number]).data

        source, bytes_, weights, row = pointer(0), pointer(2), pointer(3), pointer(6)
        taps, side = arguments[4], arguments[5]
        window = builder.gep(source, [arguments[1]])

        def start(x: Any) -> tuple[Any, Any]:
            byte = builder.sext(builder.load(builder.gep(bytes_, [x])), _INT64)
            return byte, builder.gep(weights, [builder.mul(x, taps)])

        done, general = builder.append_basic_block("done"), builder.append_basic_block("general")
        switch = builder.switch(taps, general)
        for count in range(1, _UNROLLED_TAPS + 1):
            block = builder.append_basic_block(f"taps{count}")
            switch.add_case(_int64(count), block)
            builder.position_at_end(block)
            with cgutils.for_range(builder, side) as loop:
                byte, weight = start(loop.index)
                total = None
                for k in range(count):
                    w = builder.load(builder.gep(weight, [_int64(k)]))
                    term = _tap(builder, window, builder.add(byte, _int64(3 * k)), w)
                    total = term if total is None else builder.fadd(total, term, flags=_FLAGS)
                _store_pixel(builder, row, loop.index, total)
            builder.branch(done)
        builder.position_at_end(general)
        sum_ = cgutils.alloca_once(builder, _PIXEL)
        with cgutils.for_range(builder, side) as loop:
            byte, weight = start(loop.index)
            builder.store(ir.Constant(_PIXEL, [0.0] * 4), sum_)
            with cgutils.for_range(builder, taps) as tap:
                w = builder.load(builder.gep(weight, [tap.index]))
                term = _tap(builder, window, builder.add(byte, builder.mul(tap.index, _int64(3))), w)
                builder.store(builder.fadd(builder.load(sum_), term, flags=_FLAGS), sum_)
            _store_pixel(builder, row, loop.index, builder.load(sum_))
        builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic  # type: ignore[untyped-decorator]
def blend_rows(
    context: Any, a: Any, b: Any, weight_a: Any, weight_b: Any, red: Any, green: Any, blue: Any, side: Any
) -> Any:
    """Planes of weight_a * a + weight_b * b, where a and b are rows of four floats per pixel.

    Does the pixels below ``side`` rounded down to a multiple of 8; the caller does the rest.
    """
    signature = types.void(a, b, types.float32, types.float32, red, green, blue, types.int64)
    wide, plane_type = ir.VectorType(_FLOAT, 16), ir.VectorType(_FLOAT, 8)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def pointer(number: int) -> Any:
            return context.make_array(signature.args[number])(context, builder, arguments[number]).data

        row_a, row_b, planes = pointer(0), pointer(1), [pointer(4), pointer(5), pointer(6)]
        weight_a, weight_b = _splat(builder, arguments[2], wide), _splat(builder, arguments[3], wide)

        def load(row: Any, offset: Any) -> Any:
            value = builder.load(builder.bitcast(builder.gep(row, [offset]), wide.as_pointer()))
            value.align = 4
            return value

        with cgutils.for_range(builder, builder.sdiv(arguments[7], _int64(8))) as loop:
            first = builder.mul(loop.index, _int64(32))
            x = builder.mul(loop.index, _int64(8))
            halves = []
            for half in (0, 16):
                offset = builder.add(first, _int64(half))
                left = builder.fmul(weight_a, load(row_a, offset), flags=_FLAGS)
                right = builder.fmul(weight_b, load(row_b, offset), flags=_FLAGS)
                halves.append(builder.fadd(left, right, flags=_FLAGS))
            for channel, plane in enumerate(planes):
                lanes = ir.Constant(ir.VectorType(_INT32, 8), [channel + 4 * k for k in range(8)])
                value = builder.shuffle_vector(halves[0], halves[1], lanes)
                target = builder.bitcast(builder.gep(plane, [x]), plane_type.as_pointer())
                builder.store(value, target).align = 4
        return context.get_dummy_value()

    return signature, codegen
