"""A random order of 0..n-1 that any position of can be asked for alone: a keyed permutation, no list in memory.

A Feistel network over the next even number of bits, walked until it lands below n. It is fixed by this file alone, not
by a library's random generator, so that a run resumed after an upgrade sees the same order.
"""

import numpy as np

_ROUNDS = 8


def permute(positions: np.ndarray, n: int, *key: int) -> np.ndarray:
    """The elements at `positions` (in 0..n-1) of the permutation of 0..n-1 that `key` names."""
    half = np.uint64(max(1, (max(n - 1, 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half) - np.uint64(1)
    seed = np.zeros(1, np.uint64)
    for part in key:
        seed = _mix(seed + np.uint64(part & (2**64 - 1)))
    keys = [_mix(seed + np.uint64(i)) for i in range(1, _ROUNDS + 1)]
    out = np.asarray(positions, np.uint64).copy()
    pending = np.arange(len(out))
    while len(pending):
        left, right = out[pending] >> half, out[pending] & mask
        for k in keys:
            left, right = right, left ^ (_mix(right + k) & mask)
        out[pending] = (left << half) | right
        pending = pending[out[pending] >= n]
    return out.astype(np.int64)


def _mix(x: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser (Steele, Lea and Flood, 2014); arithmetic wraps."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
