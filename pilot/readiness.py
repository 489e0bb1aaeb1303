"""Waiting until descriptors can be read, whatever their numbers: `select.select` breaks from 1024 on, which long-lived hosts reach."""

from __future__ import annotations

import math
import select
from collections.abc import Iterable


def readable(descriptors: Iterable[int], within_s: float) -> frozenset[int]:
    """Return those that can be read without waiting, or have come to their end; waits for the first one.

    Args:
        within_s: the longest wait, s; 0 or less: only a look.
    """
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return frozenset(descriptor for descriptor, _ in poll.poll(math.ceil(max(0.0, within_s) * 1000)))
