"""Whether compiled kernels multiply exactly: tried before they are trusted, in plain Python, whatever made them."""

from __future__ import annotations

import ctypes
import random

_OUTPUTS, _INPUTS, _ROWS, _THREADS = 70, 131, 19, 2
_MOST_WEIGHT = 7  # so that every sum, in steps of 1/128, is a whole number that float32 holds


def multiplies_exactly(library: ctypes.CDLL) -> bool:
    """Compare a product of rows that need both of their halves with the sums of whole numbers that it stands for."""
    random_numbers = random.Random(0)  # noqa: S311
    weights = [[random_numbers.randint(-_MOST_WEIGHT, _MOST_WEIGHT) for _ in range(_INPUTS)] for _ in range(_OUTPUTS)]
    # In steps of 1/128, the largest of each row 127: its scale is then exactly 1.
    steps = [[random_numbers.randint(-127 * 128, 127 * 128) for _ in range(_INPUTS)] for _ in range(_ROWS)]
    for number, row in enumerate(steps):
        row[number] = 127 * 128
    values = (ctypes.c_int8 * (_OUTPUTS * _INPUTS))(*(weight for row in weights for weight in row))
    scales = (ctypes.c_float * _OUTPUTS)(*[1.0] * _OUTPUTS)
    rows = (ctypes.c_float * (_ROWS * _INPUTS))(*(step / 128 for row in steps for step in row))
    found = (ctypes.c_float * (_ROWS * _OUTPUTS))()
    matrix = library.unmask_matrix(_OUTPUTS, _INPUTS, 0, values, scales, _THREADS)
    if matrix is None:
        return False
    status = library.unmask_product(matrix, None, rows, _ROWS, None, found, None, _THREADS)
    library.unmask_free_matrix(matrix)
    exact = [sum(w * s for w, s in zip(weight, row, strict=True)) / 128 for row in steps for weight in weights]
    return status == 0 and list(found) == exact
