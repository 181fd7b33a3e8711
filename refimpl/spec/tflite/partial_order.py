"""The order of libstdc++'s ``std::partial_sort``, also among equal values.

The C++ standard leaves the order of equal values open. TFLite's wheels and microcontrollers' toolchains use
GCC's library, whose order follows from its heap. Source: GCC 13, ``bits/stl_heap.h`` and
``bits/stl_algo.h``, in which a heap's root is the value that comes last.
"""

from __future__ import annotations

from collections.abc import Sequence


def largest_first(values: Sequence[float], count: int) -> list[int]:
    """Positions of the ``count`` (1 to all) largest values, the largest first."""
    heap = list(range(count))
    for place in reversed(range(count // 2)):
        _put(values, heap, place, count, heap[place])
    for position in range(count, len(values)):
        if values[position] > values[heap[0]]:
            _put(values, heap, 0, count, position)
    for end in reversed(range(1, count)):
        position, heap[end] = heap[end], heap[0]
        _put(values, heap, 0, end, position)
    return heap


def _put(values: Sequence[float], heap: list[int], place: int, size: int, position: int) -> None:
    """Fills the free ``place`` of a heap. The place sinks to a leaf along the smaller children, the right one
    of equal children; ``position`` then rises from there while its parents are larger."""
    top = place
    while (right := 2 * place + 2) < size:
        child = right - 1 if values[heap[right]] > values[heap[right - 1]] else right
        heap[place] = heap[child]
        place = child
    if right == size:
        heap[place] = heap[right - 1]
        place = right - 1
    while place > top and values[heap[(place - 1) // 2]] > values[position]:
        heap[place] = heap[(place - 1) // 2]
        place = (place - 1) // 2
    heap[place] = position
