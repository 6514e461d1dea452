"""What an answer's status means for the attempts after it."""

from datetime import UTC, datetime

import pytest

from gateway.failures import failure_of, is_callers_own, is_failure, retry_after_seconds
from shared.errors import NotFound

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
REPLY = NotFound("reply")


@pytest.mark.parametrize("status", [401, 402, 403, 404, 408, 429, 500, 502, 503, 504, 529])
def test_what_another_place_may_do_better(status):
    """Overload, faults and our own misconfiguration of one place say nothing about the next one."""
    assert is_failure(status)


@pytest.mark.parametrize("status", [200, 302, 400, 409, 413, 415, 422])
def test_what_no_other_place_would_do_better(status):
    """A request that is wrong is wrong everywhere; sending it around would only cost time."""
    assert not is_failure(status)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:20 GMT"}, 20),
        ({"retry-after": "Sun, 22 Nov 2026 09:00:00 GMT"}, 0),
        ({}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Sun, 22 Nov 99999999999 10:00:20 GMT"}, None),
    ],
)
def test_retry_after_in_all_its_forms(headers, seconds):
    """Seconds, milliseconds and dates are understood; nonsense is as if it were not there, never an endless wait."""
    assert retry_after_seconds(429, headers, NOW) == seconds


def test_only_the_busy_are_left_alone():
    """A 500 with Retry-After is a fault, not a quota; 529 is how Anthropic says that it has too much to do."""
    assert [retry_after_seconds(status, {"retry-after": "60"}, NOW) for status in (429, 503, 529)] == [60] * 3
    assert retry_after_seconds(500, {"retry-after": "60"}, NOW) is None


@pytest.mark.parametrize(
    ("status", "content", "again", "counts", "aside_seconds"),
    [
        (429, b"", True, False, 1.0),
        (503, b"", True, True, None),
        (500, b"", True, True, None),
        (401, b"", False, True, None),
        (403, b"", False, False, None),
        (404, b"", False, False, None),
        (404, b'{"error": {"code": "DeploymentNotFound"}}', False, True, None),
    ],
)
def test_what_a_status_means_for_its_place(status, content, again, counts, aside_seconds):
    """Busy places rest and are not broken; our wrong credential is not tried twice.

    What a caller can provoke (a file that does not exist, a model without tools) does not open the breaker for others.
    """
    failure = failure_of(status, {}, REPLY, content)
    assert (failure.again, failure.counts, failure.aside_seconds) == (again, counts, aside_seconds)


@pytest.mark.parametrize(
    ("operation", "status", "content", "is_theirs"),
    [
        ("responses", 404, b'{"error": {"code": "previous_response_not_found"}}', True),
        ("responses", 404, b'{"error": {"code": "model_not_found"}}', False),
        ("chat", 404, b'{"error": {"message": "No endpoints found that support tool use"}}', False),
        ("chat", 403, b'{"error": {"code": 403, "metadata": {"flagged_input": "..."}}}', True),
        ("chat", 403, b"{}", False),
    ],
)
def test_what_the_caller_sent_is_the_callers(operation, status, content, is_theirs):
    """An answer that does not exist is nobody's misconfiguration, and a refused prompt is not carried elsewhere."""
    assert is_callers_own(operation, status, content) is is_theirs
