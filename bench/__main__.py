"""All benchmarks, or the ones named: python -m bench engine scale; `BENCHES` lists them."""

from __future__ import annotations

import subprocess
import sys

BENCHES = (
    "engine",
    "scale",
    "ingest",
    "pricing",
    "ledger",
    "streams",
    "telemetry",
    "forecast",
    "lookback",
    "statement",
    "gateway",
)


def main() -> None:
    """Run each in a process of its own, so that memory and caches of one do not show in the next."""
    named = sys.argv[1:] or BENCHES
    unknown = [name for name in named if name not in BENCHES]
    if unknown:
        raise SystemExit(f"no such benchmark: {', '.join(unknown)}; there are: {', '.join(BENCHES)}")
    for name in named:
        subprocess.run([sys.executable, "-m", f"bench.{name}"], check=True)


if __name__ == "__main__":
    main()
