"""Why an event was not taken. Its own module, so that decoding and counting tokens can both raise it."""

from __future__ import annotations

from shared.errors import TollkeeperError


class EventRejected(TollkeeperError):
    """The event can never be billed as it stands; sent again unchanged it fails again.

    `code` is one of `invalid_json`, `invalid_event`, `type_unknown`, `time_missing`, `time_in_future`, `too_large`,
    `usage_unreadable`; `param` is the JSON path of the field. At the door an answer, on the hub a dead letter.
    """

    code, http_status, kind = "invalid_event", 400, "invalid_request_error"
