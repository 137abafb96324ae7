"""Refusal: why a request gets no answer, as an HTTP status, a code for programs and one sentence for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reinception.errors import BadImage


class Refusal(Exception):
    """The answer is `status` with `{"error": {"code", "message"}}`. A `BadImage` becomes one with `of`."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, dict(headers or {})

    @property
    def document(self) -> dict[str, Any]:
        return {"error": {"code": self.code, "message": self.message}}

    @property
    def document_v2(self) -> dict[str, Any]:
        """The same as the Open Inference Protocol words it."""
        return {"error": self.message, "code": self.code}

    @staticmethod
    def of(bad: BadImage) -> Refusal:
        """413 for an image that is too large, else 400."""
        return Refusal(413 if bad.kind == "too_large" else 400, bad.kind, f"the image {bad.reason}")

    @staticmethod
    def busy(status: int, code: str, message: str, seconds: float = 1.0) -> Refusal:
        """429 or 503, to be tried again after so many seconds."""
        return Refusal(status, code, message, {"Retry-After": str(max(1, round(seconds)))})


class ClientGoneError(Exception):
    """Nobody is left to answer."""


def bad_request(code: str, message: str) -> Refusal:
    return Refusal(400, code, message)
