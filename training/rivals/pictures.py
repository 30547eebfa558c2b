"""Which pictures of a clip a rival is shown. Every rival encodes four a clip, so that all encode equally many."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from training.batches import Batch, read_batch
from training.clips import Clips

# (appearance, tick of the clip) of the four pictures.
PAIR = (("a", 0), ("a", 1), ("b", 1), ("b", 2))  # the shipped objective's: two renderings of the same drive
DRIVE = (("a", 0), ("a", 1), ("a", 2), ("a", 3))  # four ticks as one camera saw them
MIXED = (("a", 0), ("a", 1), ("a", 2), ("b", 1))  # three ticks of a drive, and one of them in another look
Pictures = tuple[tuple[str, int], ...]


def ticks(pictures: Pictures) -> int:
    """Length of a clip that has all of them."""
    return 1 + max(tick for _, tick in pictures)


def read_pictures(
    clips: Clips, starts: NDArray[np.int64], chosen: NDArray[np.int64], pictures: Pictures,
    branches: NDArray[np.int64] | None = None, steps: int = 1,
) -> Batch:  # fmt: skip
    """Clips from `starts` in any layout: views (4 b, v, 3, h, w), one picture of all clips after the other.

    Args:
        chosen: the views that are seen in this step.
        branches: branched states to read beside, with PAIR only.

    Raises:
        ValueError: branches with another layout than PAIR.
    """
    if pictures == PAIR:
        return read_batch(clips, starts, chosen, branches, steps)
    if branches is not None and len(branches):
        raise ValueError("branches are read beside pairs only")
    fixed = np.broadcast_to(clips.cameras_a[chosen], (len(starts), len(chosen), 3, 4))
    views = [(clips.views_a if look == "a" else clips.views_b)[starts + tick][:, chosen] for look, tick in pictures]
    cameras = [fixed if look == "a" else clips.cameras_b[starts + tick][:, chosen] for look, tick in pictures]
    window = starts[:, None] + np.arange(ticks(pictures))
    return Batch(
        torch.from_numpy(np.concatenate(views)).permute(0, 1, 4, 2, 3), torch.from_numpy(clips.intrinsics[chosen]),
        torch.from_numpy(np.concatenate(cameras)), torch.from_numpy(clips.table["action"][window]),
        torch.from_numpy(clips.table["speed"][window]), None, torch.zeros(0),
    )  # fmt: skip


def part_of(clips: Clips, first: int, stop: int) -> Clips:
    """The cache's drives `first` to `stop` (not included), their branches with them; pictures stay on disk."""
    low, high = (int(np.searchsorted(clips.episode, e)) for e in (first, stop))
    start, end = (int(np.searchsorted(clips.branch_start, row)) for row in (low, high))
    # Twins lie drive by drive, their ticks in any order.
    own = np.flatnonzero((clips.twin_start >= low) & (clips.twin_start < high))
    twins = slice(int(own[0]), int(own[-1]) + 1) if len(own) else slice(0, 0)
    return replace(
        clips, views_a=clips.views_a[low:high], views_b=clips.views_b[low:high], cameras_b=clips.cameras_b[low:high],
        episode=clips.episode[low:high], table={key: value[low:high] for key, value in clips.table.items()},
        branch_views=clips.branch_views[start:end], branch_start=clips.branch_start[start:end] - low,
        branch_action=clips.branch_action[start:end], branch_speed=clips.branch_speed[start:end],
        branch_reads=clips.branch_reads[start:end], twin_views=clips.twin_views[twins],
        twin_start=clips.twin_start[twins] - low,
    )  # fmt: skip
