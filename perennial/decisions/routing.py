"""Which version answers a key: weighted rendezvous hashing, so that a key keeps its version.

Every arm draws a number for a key, exponentially distributed with the arm's weight as its rate, and
the least wins; an arm so wins its share of keys, and depends on the key and its own version alone
(the logarithmic method of Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", SPAA
2005; Mohanty et al., "Weighted HRW and its Applications", IETF draft-ietf-bess-weighted-hrw). An
arm that grows only lowers its draws, so no key ever leaves it for another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from perennial.contracts.routes import Arm

_WORD = 0xFFFF_FFFF_FFFF_FFFF
_LN_2 = 0.6931471805599453
_ODD = tuple(1 / n for n in range(25, 0, -2))
_FEW = 16  # keys up to which plain numbers are quicker than arrays


def assign(keys: Sequence[str], arms: Sequence[Arm], salt: str) -> list[int]:
    """The version that answers each key.

    The same key, salt and weights give the same version on every machine and Python, in whatever
    order the arms come. An arm of weight 0 gets nothing. As long as no other arm's weight grows, an
    arm that grows keeps all its keys. Keys are told apart by ``salt``: two salts give assignments
    that have nothing to do with one another.

    Raises ValueError when there are keys and no arm has a weight.
    """
    live = sorted((arm.version, arm.weight) for arm in arms if arm.weight > 0)
    if not keys:
        return []
    if not live:
        raise ValueError("no arm has a weight above 0")
    if len(live) == 1:
        return [live[0][0]] * len(keys)
    start = f"{salt}\0"
    digests = [
        blake2b((start + key).encode(errors="surrogatepass"), digest_size=8).digest()
        for key in keys
    ]
    if len(keys) <= _FEW:
        return [_least(int.from_bytes(digest, "little"), live) for digest in digests]
    words = np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)
    draws = [_draw(words, version, np.frexp) / weight for version, weight in live]
    versions = np.array([version for version, _ in live])
    return list(versions[np.argmin(draws, axis=0)].tolist())


def _least(word: int, live: list[tuple[int, int]]) -> int:
    draws = [(_draw(word, version, math.frexp) / weight, version) for version, weight in live]
    return min(draws)[1]


def _draw(word: Any, version: int, frexp: Any) -> Any:
    """A number exponentially distributed with rate 1, from a key's 64 bits and a version; of an
    int, or of an array of uint64 element by element, with the same bits as result.

    That is -ln(u) of a u in (0, 1), made of IEEE 754's basic operations alone: a library's
    logarithm may differ in its last bit from machine to machine.
    """
    bits = _mixed(word, version)
    u = ((bits >> 12) + 0.5) * 2.0**-52  # exact
    fraction, exponent = frexp(u)  # u = fraction · 2^exponent, fraction in [0.5, 1)
    z = (fraction - 1.0) / (fraction + 1.0)  # ln(fraction) = 2 artanh(z), |z| <= 1/3
    square, series = z * z, 0.0 * z
    for coefficient in _ODD:
        series = series * square + coefficient
    return -(exponent * _LN_2 + 2.0 * z * series)


def _mixed(word: Any, version: int) -> Any:
    """The version-th number of the SplitMix64 generator whose seed is ``word`` (Steele, Lea and
    Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014)."""
    x = (word + (version * 0x9E37_79B9_7F4A_7C15 & _WORD)) & _WORD
    x = ((x ^ (x >> 30)) * 0xBF58_476D_1CE4_E5B9) & _WORD
    x = ((x ^ (x >> 27)) * 0x94D0_49BB_1331_11EB) & _WORD
    return x ^ (x >> 31)
