"""Run function_app.py on Microsoft's own worker code and print what happened as JSON; not a test itself.

`azure-functions-runtime` is the Python worker of Azure Functions from 3.13 on: it indexes the app, decodes what the
host sends and calls the functions. The host and its gRPC connection are replaced by plain objects of the same shape.
Runs under Python 3.13 in an environment of its own; test_worker_runtime.py makes that and starts this file.
"""

import asyncio
import json
import os
import sys
import types
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import azure_functions_runtime as runtime  # noqa: E402  (installed in the 3.13 environment only)
from azure_functions_runtime.bindings.datumdef import Datum  # noqa: E402
from azure_functions_runtime.native_invocation import invocation_request_native  # noqa: E402


class Message:
    """Stands for a protobuf message: whatever it is made with becomes its fields."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


class StatusResult(Message):
    """Result of a request, with the enum values the worker compares with."""

    Success, Failure = 1, 0


class BindingInfo(Message):
    """A binding of a function, with the enum values the worker writes."""

    in_, out, inout = 0, 1, 2
    undefined, string, binary, stream = 0, 1, 2, 3


_PLAIN = (
    "FunctionLoadResponse",
    "FunctionMetadataResponse",
    "RpcException",
    "RpcFunctionMetadata",
    "RpcRetryOptions",
    "WorkerInitResponse",
    "WorkerMetadata",
)
PROTOCOL = types.SimpleNamespace(
    StatusResult=StatusResult, BindingInfo=BindingInfo, **{name: type(name, (Message,), {}) for name in _PLAIN}
)


def request(**fields: Any) -> Any:
    """A request of the host."""
    return types.SimpleNamespace(
        request=types.SimpleNamespace(**fields), properties={"host": "127.0.0.1", "protos": PROTOCOL}
    )


async def index() -> dict[str, Any]:
    """The app's functions by name, as the worker reports them to the host."""
    runtime.start_threadpool_executor()
    start = types.SimpleNamespace(capabilities={}, function_app_directory=str(ROOT))
    answer = await runtime.worker_init_request(request(worker_init_request=start))
    if answer.result.status != StatusResult.Success:
        raise RuntimeError(answer.result.exception.message + answer.result.exception.stack_trace)
    metadata = await runtime.functions_metadata_request(request())
    if metadata.result.status != StatusResult.Success:
        raise RuntimeError(metadata.result.exception.message + metadata.result.exception.stack_trace)
    return {function.name: function for function in metadata.function_metadata_results}


async def get_health(function: Any) -> dict[str, Any]:
    """Call GET /health."""
    http = {
        "method": Datum(type="string", value="GET"),
        "url": Datum(type="string", value="http://localhost/api/v1/health"),
        "headers": {},
        "query": {},
        "params": {},
        "body": Datum(type="bytes", value=b""),
    }
    is_ok, value, _, error, _ = await _invoke(function, [("req", Datum(type="http", value=http))], {})
    if not is_ok:
        return {"ok": False, "error": str(error)}
    body = value.value["body"].value
    return {"ok": True, "status": value.value["status_code"].value, "body": json.loads(body)}


async def ingest(function: Any, events: list[str], namespace: str) -> dict[str, Any]:
    """Deliver a batch of the usage hub."""
    system = [
        {
            "SequenceNumber": n,
            "Offset": str(n * 500),
            "PartitionKey": None,
            "EnqueuedTimeUtc": os.environ["TEST_ENQUEUED_TIME"],
        }
        for n in range(len(events))
    ]
    context = {"FullyQualifiedNamespace": namespace, "EventHubName": "usage", "PartitionId": "0"}
    metadata = {
        "PartitionContext": _json({**context, "ConsumerGroup": "$Default"}),
        "SystemPropertiesArray": _json(system),
        "PropertiesArray": _json([{} for _ in events]),
    }
    batch = types.SimpleNamespace(bytes=[event.encode() for event in events])
    inputs = [("events", Datum(type="collection_bytes", value=batch))]
    is_ok, _, _, error, trace = await _invoke(function, inputs, metadata)
    return {"ok": is_ok, "error": None if is_ok else f"{error}\n{trace}"}


def _json(value: Any) -> Any:
    return Datum(type="json", value=json.dumps(value))


async def _invoke(function: Any, inputs: list[tuple[str, Any]], metadata: dict[str, Any]) -> Any:
    return await invocation_request_native(str(uuid.uuid4()), function.function_id, inputs, metadata)


async def main() -> None:
    """Index the app, make one call of each kind, print the findings."""
    functions = await index()
    found = {
        "python": sys.version_info[:2],
        "functions": sorted(functions),
        "health": await get_health(functions["health"]),
        "ingest": await ingest(functions["ingest"], json.loads(os.environ["TEST_EVENTS"]), "test.invalid"),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main())
    # The worker's thread pool and the app's open clients would keep the process alive.
    sys.stdout.flush()
    os._exit(0)
