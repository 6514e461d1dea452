"""The settings of host.json that this host acts on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class HostSettings:
    """host.json, with the defaults of the Functions host 4.x."""

    route_prefix: str = "api"
    custom_headers: dict[str, str] = field(default_factory=dict)
    max_event_batch_size: int = 100
    prefetch_count: int = 300
    batch_checkpoint_frequency: int = 1
    # Where a partition without a checkpoint is read from: "-1" (its beginning), "@latest", or a moment.
    initial_position: str | datetime = "-1"


def read_host_json(path: Path) -> HostSettings:
    """Settings of the file. Raises ValueError, naming the file, when it is not JSON or has an unknown start option."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    extensions = content.get("extensions", {})
    http, hubs = extensions.get("http", {}), extensions.get("eventHubs", {})
    default = HostSettings()
    return HostSettings(
        route_prefix=str(http.get("routePrefix", default.route_prefix)).strip("/"),
        custom_headers=dict(http.get("customHeaders", {})),
        max_event_batch_size=int(hubs.get("maxEventBatchSize", default.max_event_batch_size)),
        prefetch_count=int(hubs.get("prefetchCount", default.prefetch_count)),
        batch_checkpoint_frequency=int(hubs.get("batchCheckpointFrequency", default.batch_checkpoint_frequency)),
        initial_position=_initial_position(path, hubs.get("initialOffsetOptions", {})),
    )


def _initial_position(path: Path, options: dict[str, Any]) -> str | datetime:
    kind = str(options.get("type", "fromStart")).lower()
    if kind == "fromstart":
        return "-1"
    if kind == "fromend":
        return "@latest"
    if kind == "fromenqueuedtime":
        return datetime.fromisoformat(str(options["enqueuedTimeUtc"]))
    raise ValueError(f"{path}: extensions.eventHubs.initialOffsetOptions.type: {kind!r} is not known")
