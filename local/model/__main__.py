"""`python -m local.model --port N`: the simulated model on loopback."""

from __future__ import annotations

import argparse
import json

import uvicorn

from local.model.app import build_app
from local.model.connection import Protocol


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description="A simulated OpenAI-compatible model.")
    parser.add_argument("--port", type=int, default=8081)
    parser.add_argument("--deployments", type=json.loads, default={}, help='{"<deployment>": "<its model>", ...}')
    arguments = parser.parse_args()
    app = build_app(arguments.deployments)
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="critical", http=Protocol)  # faults are no news


if __name__ == "__main__":
    main()
