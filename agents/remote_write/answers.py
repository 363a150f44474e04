"""What a remote-write endpoint's answer means for the request that it answers."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import NamedTuple

LONGEST_WAIT_S = 300.0
"""A `Retry-After` beyond that isn't obeyed: an endpoint that is back earlier mustn't wait for a mistake."""


class Answer(StrEnum):
    """What an endpoint's answer means for the request."""

    STORED = "stored"
    OUT_OF_ORDER = "out of order"
    TOO_OLD = "too old"
    DUPLICATE = "duplicate"
    BAD = "bad"
    TOO_LARGE = "too large"
    WRONG_PROTOCOL = "wrong protocol"
    DENIED = "denied"
    BUSY = "busy"


RETRIED = frozenset({Answer.DENIED, Answer.BUSY, Answer.WRONG_PROTOCOL})
"""Answers that say nothing about the samples: the same request may be stored later."""

BY_STATUS = {
    401: Answer.DENIED,
    403: Answer.DENIED,
    404: Answer.DENIED,
    408: Answer.BUSY,
    413: Answer.TOO_LARGE,
    415: Answer.WRONG_PROTOCOL,
    429: Answer.BUSY,
}
"""Answers that the status alone tells."""

BY_TEXT = {
    "out of order": Answer.OUT_OF_ORDER,
    "out-of-order": Answer.OUT_OF_ORDER,
    "duplicate sample": Answer.DUPLICATE,
}
"""What the others say that refuse a request."""


class Written(NamedTuple):
    """What a receiver of remote write 2.0 says that it has stored."""

    samples: int
    histograms: int
    exemplars: int


class Response(NamedTuple):
    """An answer as it came."""

    answer: Answer
    text: str
    """For logs: the status and the beginning of the body."""
    retry_after_s: float | None = None
    """How long the endpoint asks to be left alone."""
    written: Written | None = None
    """None: it doesn't say."""


def classify(status: int, text: str) -> Answer:
    """The meaning of a status and a body, as Prometheus (2.42 and later), Mimir and their like answer (Tempo ST-9).

    2.42 answers 500 to "too old sample", which must not be retried: it would be for ever. A redirect that isn't
    followed is none of the samples' fault.
    """
    if 200 <= status < 300:
        return Answer.STORED
    if "too old sample" in text or "out of bounds" in text:
        return Answer.TOO_OLD
    if status in BY_STATUS or not 400 <= status < 500:
        return BY_STATUS.get(status, Answer.BUSY if status >= 500 else Answer.DENIED)
    return next((answer for said, answer in BY_TEXT.items() if said in text), Answer.BAD)


def retry_after_s(header: str | None, now: datetime | None = None) -> float | None:
    """Seconds of a `Retry-After`, which has them or an HTTP date; None without one, or if it says nothing of use."""
    if not header:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        wait_s = float(text[:9])
    else:
        try:
            at = parsedate_to_datetime(text)
        except ValueError:
            return None
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        wait_s = (at - (now or datetime.now(UTC))).total_seconds()
    return min(wait_s, LONGEST_WAIT_S) if wait_s > 0 else None


def written(samples: str | None, histograms: str | None, exemplars: str | None) -> Written | None:
    """The counts of the `…-Written` headers; None if there is none of them, which a receiver of 2.0 never omits."""
    counts = (samples, histograms, exemplars)
    if all(count is None for count in counts):
        return None
    return Written(*(int(count) if count and count.isascii() and count.isdigit() else 0 for count in counts))
