"""Waiting for descriptors, whatever their numbers."""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pilot.readiness import readable

HIGH = 1500
"""Beyond what `select.select` can watch (FD_SETSIZE, 1024)."""


@contextmanager
def pipe(lowest: int) -> Iterator[tuple[int, int]]:
    """A pipe whose ends have numbers from `lowest` on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, lowest + 100)), hard))
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, lowest) for end in ends]
    try:
        yield moved[0], moved[1]
    finally:
        for descriptor in (*ends, *moved):
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("lowest", [0, HIGH])
def test_data_is_noticed(lowest: int) -> None:
    """A descriptor with data is ready, one without is not, be the numbers low or high."""
    with pipe(lowest) as (full, writer), pipe(lowest) as (empty, _):
        assert min(full, empty) >= lowest
        os.write(writer, b"!")
        assert readable([full, empty], 10) == {full}
        assert readable([empty], 0) == frozenset()


def test_the_end_is_noticed() -> None:
    """A descriptor at its end is ready."""
    reader, writer = os.pipe()
    os.close(writer)
    assert readable([reader], 10) == {reader}
    os.close(reader)


def test_time_that_is_over() -> None:
    """A negative limit is a look; the wait for nothing at all ends in time."""
    assert readable([], -5.0) == frozenset()
    assert readable([], 0.001) == frozenset()
