# mypy: disable-error-code="untyped-decorator,no-any-return"
"""Bounding volume trees: which boxes may a ray meet? Built by the surface area heuristic over 12 bins.

A node is a row of `box` (low x, y, z, high x, y, z) and of `link`: (first item, count) of a leaf, or
(number of its first child, 0); the second child follows the first.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drivesim.town.render.kernels import kernel

BINS = 12
DEEP = 40  # from this depth on a node's items are halved, so that a walk's stack of STACK is enough
STACK = 80


class BoxTree(NamedTuple):
    """One tree, or several in the same arrays."""

    box: NDArray[np.float32]  # (n, 6)
    link: NDArray[np.int32]  # (n, 2)
    item: NDArray[np.int32]  # (k,) the numbers of the boxes in the order of the leaves


@njit(cache=True, nogil=True, error_model="numpy")
def _bound(boxes, item, first, count, out):  # type: ignore[no-untyped-def]
    """Write the union of `count` boxes."""
    for axis in range(3):
        low, high = np.float32(3e38), np.float32(-3e38)
        for k in range(first, first + count):
            low = min(low, boxes[item[k], axis])
            high = max(high, boxes[item[k], 3 + axis])
        out[axis], out[3 + axis] = low, high


@njit(cache=True, nogil=True, error_model="numpy")
def _area(low, high):  # type: ignore[no-untyped-def]
    """Half the surface of a box."""
    x, y, z = high[0] - low[0], high[1] - low[1], high[2] - low[2]
    return x * y + y * z + z * x


@njit(cache=True, nogil=True, error_model="numpy")
def _best_split(boxes, item, first, count):  # type: ignore[no-untyped-def]
    """The cheapest axis and centre to part at; axis -1 where all centres fall together."""
    best_axis, best_cut, best_cost = -1, np.float32(0), np.float32(3e38)
    number = np.zeros(BINS, np.int64)
    low, high = np.zeros((BINS, 3), np.float32), np.zeros((BINS, 3), np.float32)
    grown_low, grown_high = np.zeros(3, np.float32), np.zeros(3, np.float32)
    right_area = np.zeros(BINS, np.float32)
    for axis in range(3):
        start, stop = np.float32(3e38), np.float32(-3e38)
        for k in range(first, first + count):
            centre = np.float32(0.5) * (boxes[item[k], axis] + boxes[item[k], 3 + axis])
            start, stop = min(start, centre), max(stop, centre)
        if stop - start < np.float32(1e-4):
            continue
        number[:] = 0
        low[:] = np.float32(3e38)
        high[:] = np.float32(-3e38)
        scale = np.float32(BINS) / (stop - start)
        for k in range(first, first + count):
            i = item[k]
            centre = np.float32(0.5) * (boxes[i, axis] + boxes[i, 3 + axis])
            b = min(int((centre - start) * scale), BINS - 1)
            number[b] += 1
            for c in range(3):
                low[b, c], high[b, c] = min(low[b, c], boxes[i, c]), max(high[b, c], boxes[i, 3 + c])
        grown_low[:] = np.float32(3e38)
        grown_high[:] = np.float32(-3e38)
        for b in range(BINS - 1, 0, -1):
            for c in range(3):
                grown_low[c], grown_high[c] = min(grown_low[c], low[b, c]), max(grown_high[c], high[b, c])
            right_area[b] = _area(grown_low, grown_high) if number[b:].sum() > 0 else np.float32(0)
        grown_low[:] = np.float32(3e38)
        grown_high[:] = np.float32(-3e38)
        left = 0
        for b in range(BINS - 1):
            left += number[b]
            for c in range(3):
                grown_low[c], grown_high[c] = min(grown_low[c], low[b, c]), max(grown_high[c], high[b, c])
            if left == 0 or left == count:
                continue
            cost = _area(grown_low, grown_high) * np.float32(left) + right_area[b + 1] * np.float32(count - left)
            if cost < best_cost:
                best_axis, best_cut, best_cost = axis, start + np.float32(b + 1) / scale, cost
    return best_axis, best_cut


@njit(cache=True, nogil=True, error_model="numpy")
def grow(boxes, item, first, count, leaf, box, link, root):  # type: ignore[no-untyped-def]
    """Build a tree over item[first : first + count] from node `root` on; returns the next free node.

    Args:
        boxes: (b, 6) float32, low and high corners.
        item: (k,) int32 numbers of boxes; its part is put into the order of the leaves.
        leaf: most items of a leaf.
        box, link: the nodes to write, at least 2 * count - 1 rows from `root` on.
    """
    stack = np.zeros((STACK, 4), np.int64)
    stack[0, 0], stack[0, 1], stack[0, 2], stack[0, 3] = root, first, count, 0
    waiting, free = 1, root + 1
    while waiting > 0:
        waiting -= 1
        node, begin, number, depth = stack[waiting]
        _bound(boxes, item, begin, number, box[node])
        if number <= leaf:
            link[node, 0], link[node, 1] = begin, number
            continue
        axis, cut = _best_split(boxes, item, begin, number)
        middle = begin
        if axis >= 0:
            for k in range(begin, begin + number):
                i = item[k]
                if np.float32(0.5) * (boxes[i, axis] + boxes[i, 3 + axis]) < cut:
                    item[k], item[middle] = item[middle], i
                    middle += 1
        if middle == begin or middle == begin + number or depth > DEEP:
            middle = begin + number // 2
        link[node, 0], link[node, 1] = free, 0
        stack[waiting, 0], stack[waiting, 1], stack[waiting, 2] = free, begin, middle - begin
        stack[waiting + 1, 0], stack[waiting + 1, 1], stack[waiting + 1, 2] = free + 1, middle, begin + number - middle
        stack[waiting, 3] = stack[waiting + 1, 3] = depth + 1
        waiting += 2
        free += 2
    return free


def box_tree(boxes: NDArray[np.float32], leaf: int = 1) -> BoxTree:
    """The tree over boxes (n, 6): low and high corners, at most `leaf` to a leaf; of no boxes: one empty leaf."""
    count = len(boxes)
    item = np.arange(count, dtype=np.int32)
    box = np.zeros((max(2 * count - 1, 1), 6), np.float32)
    link = np.zeros((len(box), 2), np.int32)
    used = grow(boxes, item, 0, count, leaf, box, link, 0) if count else 1
    return BoxTree(box[:used], link[:used], item)


@kernel
def enters(box, node, ox, oy, oz, ix, iy, iz, reach):  # type: ignore[no-untyped-def]
    """Where a ray from o with inverse direction i enters a node's box (0 inside); beyond `reach`: a miss."""
    x0, x1 = (box[node, 0] - ox) * ix, (box[node, 3] - ox) * ix
    y0, y1 = (box[node, 1] - oy) * iy, (box[node, 4] - oy) * iy
    z0, z1 = (box[node, 2] - oz) * iz, (box[node, 5] - oz) * iz
    near = max(max(min(x0, x1), min(y0, y1)), max(min(z0, z1), np.float32(0)))
    far = min(min(max(x0, x1), max(y0, y1)), max(z0, z1))
    return near if near <= far and near < reach else np.float32(3e38)
