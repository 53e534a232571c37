"""Whether compiled kernels multiply exactly: tried before they are trusted, in plain Python, whatever made them."""

from __future__ import annotations

import ctypes
import operator
import random

_OUTPUTS, _INPUTS, _THREADS = 40, 530, 2
_ROWS = (19, 35)  # few and many rows are multiplied in other orders, of so many inputs in pieces
_MOST_WEIGHT = 1  # so that every sum, in steps of 1/128, is a whole number that float32 holds


def multiplies_exactly(library: ctypes.CDLL) -> bool:
    """Compare a product of rows that need both of their halves with the sums of whole numbers that it stands for."""
    random_numbers = random.Random(0)  # noqa: S311
    weights = [random_numbers.choices(range(-_MOST_WEIGHT, _MOST_WEIGHT + 1), k=_INPUTS) for _ in range(_OUTPUTS)]
    # In steps of 1/128, the largest of each row 127: its scale is then exactly 1.
    steps = [random_numbers.choices(range(-127 * 128, 127 * 128 + 1), k=_INPUTS) for _ in range(max(_ROWS))]
    for number, row in enumerate(steps):
        row[number] = 127 * 128
    values = (ctypes.c_int8 * (_OUTPUTS * _INPUTS))(*(weight for row in weights for weight in row))
    scales = (ctypes.c_float * _OUTPUTS)(*[1.0] * _OUTPUTS)
    rows = (ctypes.c_float * (len(steps) * _INPUTS))(*(step / 128 for row in steps for step in row))
    matrix = library.unmask_matrix(_OUTPUTS, _INPUTS, 0, values, scales, _THREADS)
    if matrix is None:
        return False
    exact = [sum(map(operator.mul, weight, row)) / 128 for row in steps for weight in weights]
    try:
        return all(_multiply(library, matrix, rows, count) == exact[: count * _OUTPUTS] for count in _ROWS)
    finally:
        library.unmask_free_matrix(matrix)


def _multiply(library: ctypes.CDLL, matrix: int, rows: ctypes.Array[ctypes.c_float], count: int) -> list[float]:
    """The product of the first ``count`` rows; empty if there was no memory for it."""
    found = (ctypes.c_float * (count * _OUTPUTS))()
    status = library.unmask_product(matrix, None, rows, count, None, found, None, _THREADS)
    return list(found) if status == 0 else []
