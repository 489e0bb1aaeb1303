"""A value that never shows itself."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T", str, bytes)


class Secret(Generic[T]):
    """A value that never shows itself: not in `repr`, `str`, logs or tracebacks. Read it with `reveal()`."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value: T = value

    def reveal(self) -> T:
        """Return the secret itself; the caller must not let it travel further than needed."""
        return self._value

    def __repr__(self) -> str:
        return "<secret>"

    def __reduce__(self) -> str:
        msg = "a secret is not serialised"
        raise TypeError(msg)
