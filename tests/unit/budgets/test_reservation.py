"""Reservation tokens: signed, readable only by us, and never longer than an event may carry."""

from __future__ import annotations

import base64

import msgspec
import pytest

from shared.budgets.reservation import Reservation, ReservationSigner
from shared.scopes import scope_id
from shared.usage.events import MAX_RESERVATION

SIGNER = ReservationSigner([b"first"])
HELD = Reservation(
    "acme",
    "gen",
    1_795_255_200_123,
    59_841_840,
    7,
    2**60 + 1,
    ("team:a|month|UTC|0", "user:%7B|day|UTC|0"),
    "big",
    9,
    12,
)


def test_a_token_is_read_back_as_it_was_signed():
    """All of it, exactly, also an amount past 2^53."""
    assert SIGNER.read(SIGNER.sign(HELD)) == HELD


def test_a_token_travels_in_urls_and_headers():
    """Only letters, digits, '-' and '_'."""
    assert set(SIGNER.sign(HELD)) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_keys_can_be_rotated_without_losing_open_reservations():
    """The new first key signs; what the old one signed is still read, until the old key goes."""
    old = SIGNER.sign(HELD)
    both = ReservationSigner([b"second", b"first"])
    assert both.read(old) == HELD
    assert SIGNER.read(both.sign(HELD)) is None
    assert ReservationSigner([b"second"]).read(old) is None


@pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: t[1:], lambda t: t[: len(t) // 2], lambda t: "A" + t])
def test_a_truncated_or_shifted_token_is_no_token(change):
    """Every byte is signed."""
    assert SIGNER.read(change(SIGNER.sign(HELD))) is None


def test_no_single_changed_byte_is_accepted():
    """Whoever could change the amount or a counter could free another's budget."""
    token = SIGNER.sign(HELD)
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    for i in range(len(raw)):
        raw[i] ^= 1
        assert SIGNER.read(base64.urlsafe_b64encode(bytes(raw)).decode()) is None
        raw[i] ^= 1


@pytest.mark.parametrize("text", ["", "=", "not a token", "ä", "\x00", "A" * 100_000, "....", "null"])
def test_what_is_no_token_is_none_and_no_error(text):
    """Callers may send anything."""
    assert SIGNER.read(text) is None


def test_signed_bytes_that_are_no_reservation_are_none():
    """A key shared with something else must not crash the reader."""
    payload = msgspec.msgpack.encode(["acme"])
    signed = payload + SIGNER._signature(SIGNER._keys[0], payload)
    assert SIGNER.read(base64.urlsafe_b64encode(signed).decode()) is None


def test_a_signer_needs_a_key():
    """Without one anybody could sign."""
    with pytest.raises(ValueError, match="at least one key"):
        ReservationSigner([])


def test_the_longest_names_still_fit_into_an_event():
    """16 scopes of 256 bytes that need escaping, three periods each: a longer token would go unbilled."""
    names = [scope_id(f"label{i}", "{" * 256) for i in range(16)]
    cells = tuple(
        f"{name}|{kind}|America/Argentina/ComodRivadavia|1795255200"
        for name in names
        for kind in ("day", "month", "year")
    )
    held = msgspec.structs.replace(HELD, cells=cells)
    assert len(SIGNER.sign(held)) <= MAX_RESERVATION
