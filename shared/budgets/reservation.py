"""The reservation token: what a call holds, signed, so that whoever carries it can give it back exactly once.

It names every held counter in full. Redis keeps no row per reservation; the token is the row.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from hashlib import blake2b

import msgspec

_SIGNATURE_BYTES = 16


class Reservation(msgspec.Struct, frozen=True, array_like=True):
    """The content of a token. `cells` are cell ids; each holds `amount_nano_usd`."""

    tenant: str
    generation: str  # of the Redis data; after a flush old holds are gone and must not be given back
    admitted_ms: int
    bucket: int
    ordinal: int
    amount_nano_usd: int
    cells: tuple[str, ...]
    model: str
    input_tokens: int
    output_tokens_mean: int  # what a stream without measured tokens is accrued at; the quantile would overbill it


class ReservationSigner:
    """Signs and reads tokens. The first key signs, every key verifies, so that keys can be rotated."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise ValueError("a reservation signer needs at least one key")
        self._keys = [blake2b(key, digest_size=32).digest() for key in keys]
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Reservation)

    def sign(self, reservation: Reservation) -> str:
        """The opaque URL-safe token."""
        payload = self._encoder.encode(reservation)
        return urlsafe_b64encode(payload + self._signature(self._keys[0], payload)).decode().rstrip("=")

    def read(self, token: str) -> Reservation | None:
        """The reservation, or None when the token is not one of ours: a forged token gains nothing."""
        try:
            raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except ValueError:
            return None
        payload, signature = raw[:-_SIGNATURE_BYTES], raw[-_SIGNATURE_BYTES:]
        if not any(hmac.compare_digest(signature, self._signature(key, payload)) for key in self._keys):
            return None
        try:
            return self._decoder.decode(payload)
        except msgspec.MsgspecError:
            return None

    @staticmethod
    def _signature(key: bytes, payload: bytes) -> bytes:
        return blake2b(payload, key=key, digest_size=_SIGNATURE_BYTES).digest()
