"""Files whose bytes were damaged at random."""

from __future__ import annotations

import numpy as np


def mutations(content: bytes, count: int, seed: int) -> list[bytes]:
    """Flipped bits, changed words, cut ends, spliced pieces and plain noise."""
    generator = np.random.default_rng(seed)
    made = []
    for number in range(count):
        data = bytearray(content)
        kind = number % 5
        position = int(generator.integers(len(data)))
        if kind == 0:
            for _ in range(int(generator.integers(1, 4))):
                data[int(generator.integers(len(data)))] ^= 1 << int(generator.integers(8))
        elif kind == 1:
            word = int(generator.choice([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFF, len(data)]))
            position -= position % 4
            data[position : position + 4] = word.to_bytes(4, "little")
        elif kind == 2:
            del data[position:]
        elif kind == 3:
            source, length = int(generator.integers(len(data))), int(generator.integers(1, 64))
            data[position : position + length] = data[source : source + length]
        else:
            length = int(generator.integers(1, 16))
            data[position : position + length] = generator.bytes(length)
        made.append(bytes(data))
    return made
