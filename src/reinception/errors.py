"""The errors for users: each is one line with what failed, where, and what to do."""

from __future__ import annotations

import signal


class ReinceptionError(Exception):
    """The work failed for a reason the user can fix. `str(error)` is one line; the command line exits with 1."""

    @classmethod
    def require(cls, condition: object, message: str) -> None:
        """Raise this error with `message` unless `condition` holds."""
        if not condition:
            raise cls(message)

    @classmethod
    def require_fraction(cls, name: str, value: float) -> None:
        """Raise this error unless 0 <= `value` < 1."""
        cls.require(0 <= value < 1, f"{name} must be at least 0 and below 1, got {value}")


class UsageError(ReinceptionError):
    """The request itself makes no sense (a flag, a name, a combination). The command line exits with 2."""


class BadImage(ReinceptionError):
    """An image that cannot be used, and why: the one form of it in the whole package.

    `name` is the file, empty for bytes. `kind` is one word for programs: `missing`, `unreadable`, `empty`,
    `not_an_image`, `format`, `too_large`, `truncated`, `corrupt`, `values` (pixels whose white is not defined),
    `memory`, `crash` or `hang`. `reason` is for people. `str(error)` is one line. Worker processes can hand it over: it
    can be pickled.
    """

    def __init__(self, name: str, kind: str, reason: str) -> None:
        super().__init__(name, kind, reason)
        self.name = name
        self.kind = kind
        self.reason = _one_line(reason)

    def __str__(self) -> str:
        return f"{_one_line(self.name)}: {self.reason}" if self.name else self.reason

    def named(self, name: str) -> BadImage:
        """The same under the name by which people know the file."""
        return BadImage(name, self.kind, self.reason)

    def to_json(self) -> dict[str, str]:
        return {"path": self.name, "kind": self.kind, "reason": self.reason}


class Interrupted(KeyboardInterrupt):
    """A signal asked the work to end, and it has ended in order. The command line exits with 128 + `number`.

    `again` are flags that the same command needs to go on where it stopped.
    """

    def __init__(self, message: str, *, number: int = signal.SIGINT, again: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.number = int(number)
        self.again = again


def first_line(error: BaseException) -> str:
    """The first line of another library's error, at most 120 characters, for a message of ours."""
    lines = str(error).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
