"""Ways to damage a file's bytes."""

from __future__ import annotations

import random


def flip_bytes(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        data[rng.randrange(len(data))] = rng.randrange(256)


def flip_bit(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def truncate(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def remove(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.choice((1, 4, 8, 100))]


def replace_word(data: bytearray, rng: random.Random) -> None:
    """Offsets, lengths and indices: zero, all ones, the ends of the file, anywhere in it."""
    for _ in range(rng.choice((1, 3))):
        start = rng.randrange(len(data) - 4) & ~3
        edges = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, len(data), rng.randrange(len(data)))
        data[start : start + 4] = rng.choice((*edges, rng.getrandbits(32))).to_bytes(4, "little")


def splice(data: bytearray, rng: random.Random) -> None:
    start, source, length = rng.randrange(len(data)), rng.randrange(len(data)), rng.choice((4, 16, 256))
    data[start : start + length] = data[source : source + length]


def noise(data: bytearray, rng: random.Random) -> None:
    data[8:] = rng.randbytes(len(data) - 8)


KINDS = (flip_bytes, flip_bit, truncate, remove, replace_word, splice, noise)
