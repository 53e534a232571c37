"""Quantised blocks of ggml, encoded and decoded independently of the gguf package: plain loops after ggml's format.

The simple types are quantised for real; of the K types random blocks are drawn, which is all a reader's test needs.
"""

from __future__ import annotations

import numpy as np
from gguf import GGMLQuantizationType as Q


def encode(rows: np.ndarray, kind: Q, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Raw bytes [rows, bytes] (or the array itself for F32 and F16), and the float32 values they stand for."""
    if kind == Q.F32:
        return rows.astype(np.float32), rows.astype(np.float32)
    if kind == Q.F16:
        half = rows.astype(np.float16)
        return half, half.astype(np.float32)
    size, coder = {Q.Q8_0: (32, _q8_0), Q.Q5_0: (32, _q5_0), Q.Q4_K: (256, _q4_k), Q.Q6_K: (256, _q6_k)}[kind]
    raw, values = [], []
    for row in rows.reshape(-1, rows.shape[-1] // size, size):
        blocks = [coder(block, generator) for block in row]
        raw.append(b"".join(block for block, _ in blocks))
        values.append(np.concatenate([decoded for _, decoded in blocks]))
    return np.array([np.frombuffer(row, np.uint8) for row in raw]), np.array(values, np.float32)


def _half(value: float) -> tuple[bytes, float]:
    stored = np.float16(value)
    return stored.tobytes(), float(stored)


def _q8_0(block: np.ndarray, _: np.random.Generator) -> tuple[bytes, np.ndarray]:
    """A scale d and 32 signed bytes q: d * q."""
    raw, d = _half(float(np.abs(block).max()) / 127)
    q = np.clip(np.round(block / d), -128, 127).astype(np.int8)
    return raw + q.tobytes(), np.float32(d) * q.astype(np.float32)


def _q5_0(block: np.ndarray, _: np.random.Generator) -> tuple[bytes, np.ndarray]:
    """A scale d, 32 fifth bits, 16 bytes with the lower four bits of values i and i + 16: d * (q - 16)."""
    raw, d = _half(float(np.abs(block).max()) / 15)
    q = np.clip(np.round(block / d) + 16, 0, 31).astype(int)
    high = sum(int(value >> 4) << i for i, value in enumerate(q))
    low = bytes((q[i] & 15) | ((q[i + 16] & 15) << 4) for i in range(16))
    return raw + high.to_bytes(4, "little") + low, np.float32(d) * (q - 16).astype(np.float32)


def _q4_k(_: np.ndarray, generator: np.random.Generator) -> tuple[bytes, np.ndarray]:
    """Scales d and dmin, eight 6-bit pairs (scale, minimum) for 32 values each, 4-bit q: d * scale * q - dmin * min."""
    (raw_d, d), (raw_min, d_min) = _half(generator.uniform(1e-4, 5e-4)), _half(generator.uniform(1e-4, 5e-3))
    scales, minima = generator.integers(0, 64, 8), generator.integers(0, 64, 8)
    q = generator.integers(0, 16, 256)
    packed = bytearray(12)
    for i in range(4):  # the first four as they are; the upper two bits of the others in their upper bits
        packed[i] = scales[i] | ((scales[i + 4] >> 4) << 6)
        packed[i + 4] = minima[i] | ((minima[i + 4] >> 4) << 6)
        packed[i + 8] = (scales[i + 4] & 15) | ((minima[i + 4] & 15) << 4)
    quants = bytearray()
    for pair in range(4):  # 64 values: the first 32 in the lower halves of 32 bytes, the next 32 in the upper
        first, second = q[pair * 64 : pair * 64 + 32], q[pair * 64 + 32 : pair * 64 + 64]
        quants += bytes(int(a) | (int(b) << 4) for a, b in zip(first, second, strict=True))
    scale, minimum = np.repeat(np.float32(d) * scales, 32), np.repeat(np.float32(d_min) * minima, 32)
    values = scale.astype(np.float32) * q.astype(np.float32) - minimum.astype(np.float32)
    return raw_d + raw_min + bytes(packed) + bytes(quants), values


def _q6_k(_: np.ndarray, generator: np.random.Generator) -> tuple[bytes, np.ndarray]:
    """Lower four bits, upper two bits, sixteen signed scales for 16 values each, a scale d: d * scale * (q - 32)."""
    raw_d, d = _half(generator.uniform(1e-5, 1e-4))
    scales = generator.integers(-128, 128, 16).astype(np.int8)
    q = generator.integers(0, 64, 256)
    low, high = bytearray(128), bytearray(64)
    for half in range(2):  # 128 values: four groups of 32 that share bytes
        group = q[half * 128 : half * 128 + 128].reshape(4, 32)
        for i in range(32):
            low[half * 64 + i] = int(group[0][i] & 15) | int(group[2][i] & 15) << 4
            low[half * 64 + 32 + i] = int(group[1][i] & 15) | int(group[3][i] & 15) << 4
            high[half * 32 + i] = sum(int(group[k][i] >> 4) << (2 * k) for k in range(4))
    values = np.float32(d) * np.repeat(scales, 16).astype(np.float32) * (q - 32).astype(np.float32)
    return bytes(low) + bytes(high) + scales.tobytes() + raw_d, values
