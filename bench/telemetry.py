"""What telling an OTLP endpoint of every call costs ingest, while the endpoint takes it, fails, hangs and is away.

python -m bench.telemetry

Without the ledger's I/O, so that nothing hides it: the worst case. Rounds of all variants stand next to each other.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from typing import Any

from bench.common import number, ratio, table, title
from bench.ingest import BATCH_EVENTS, MemoryLedger, _batch, _NoStores
from bench.product import FOUR_SCOPES, Product, budget, configuration, on_stores
from local.process import Process, free_port, is_listening
from shared.ledger.delivery import Delivery
from shared.ledger.ingest import IngestService
from shared.telemetry import Telemetry

ROUNDS, BATCHES = 5, 2
LEAST_OF_WITHOUT = 0.9
SIGNALS = frozenset({"traces", "metrics", "logs"})
RECEIVER = """
import sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(float(sys.argv[3]))
        self.send_response(int(sys.argv[2])); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *_): pass
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
VARIANTS = {"takes it": ("200", "0"), "answers 500": ("500", "0"), "hangs": ("200", "30"), "is away": None}


def main() -> None:
    """Measure every variant beside ingest without telemetry."""
    on_stores(_run)


async def _run(redis_url: str, connection_string: str) -> None:
    product = Product(redis_url, configuration([budget(scope) for scope in FOUR_SCOPES]))
    await product.open()
    title(
        "Ingest and telemetry", f"traces, metrics and logs by OTLP; {ROUNDS} rounds of {BATCHES * BATCH_EVENTS} events"
    )
    rows, serial = [], 0
    for name, answer in VARIANTS.items():
        port = free_port()
        receiver = None if answer is None else _receiver(port, answer)
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{port}"
        telemetry, off = Telemetry(), Telemetry()
        telemetry.start(None, SIGNALS, with_people=False)
        with_it: list[float] = []
        without: list[float] = []
        for _ in range(ROUNDS):
            for rates, told in ((without, off), (with_it, telemetry)):
                batches = [await _batch(product, serial + at) for at in range(BATCHES)]
                serial += BATCHES
                rates.append(await _rate(product, batches, told))
        begun = time.perf_counter()
        telemetry.close()
        closing = time.perf_counter() - begun
        if receiver is not None:
            receiver.stop()
        share = ratio(with_it, without)
        rates_of = [number(statistics.median(without)), number(statistics.median(with_it))]
        verdict = "ok" if share >= LEAST_OF_WITHOUT else "LESS"
        rows.append([f"the endpoint {name}", *rates_of, f"{share:.2f}", verdict, f"{closing:.1f}"])
    table(["", "events/s without", "with", "ratio", f"over {LEAST_OF_WITHOUT}", "s to close"], rows)
    await product.close()


def _receiver(port: int, answer: tuple[str, str]) -> Process:
    receiver = Process("otlp", [sys.executable, "-c", RECEIVER, str(port), *answer])
    receiver.wait_until(lambda: is_listening(port))
    return receiver


async def _rate(product: Product, batches: list[list[Delivery]], telemetry: Telemetry) -> float:
    """Events per second; every one of them must be billed."""
    none: Any = _NoStores()
    service = IngestService(
        lambda: product.snapshot,
        MemoryLedger(),
        product.settler,
        product.signer,
        none,
        none,
        none,
        none,
        default_output_tokens=500,
        on_billed=telemetry.billed,
    )
    begun = time.perf_counter()
    for batch in batches:
        report = await service.run(batch)
        if report.inserted != BATCH_EVENTS:
            raise SystemExit(f"not every event was billed: {report}")
    return len(batches) * BATCH_EVENTS / (time.perf_counter() - begun)


if __name__ == "__main__":
    main()
