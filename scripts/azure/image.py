"""Build the built-in gateway's container image in the environment's own registry. Nothing but Azure is needed for it.

The registry gets what the Dockerfile copies and builds it there, as `az acr build` has it done. The image's tag is a
digest of that: the same sources are the same image, whoever deploys them and from where, so a plan can name an image
before there is one.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from scripts.azure.arm import Arm

ROOT = Path(__file__).parents[2]
NAME = "tollkeeper-gateway"  # `image` in infra/names.yaml
SOURCES = ("Dockerfile", ".dockerignore", "gateway", "shared")
_RUNS_VERSION = "2019-06-01-preview"  # of builds in a registry; nothing newer is generally available
_TAG_LENGTH = 16
_BUILD_SECONDS = 1800
_POLL_SECONDS = 5.0
_WAITING = frozenset({"Queued", "Started", "Running"})
_MOST_LOG_LINES = 40


class ImageError(Exception):
    """The image could not be built. The message holds the end of the build's own log."""


def sources(root: Path = ROOT) -> Iterator[tuple[str, bytes]]:
    """Path and content of everything that the builder gets, sorted."""
    for name in SOURCES:
        found = root / name
        files = [found] if found.is_file() else sorted(file for file in found.rglob("*") if file.is_file())
        for file in files:
            if "__pycache__" not in file.parts:
                yield file.relative_to(root).as_posix(), file.read_bytes()


def image_tag(root: Path = ROOT) -> str:
    """What this checkout's image is called."""
    digest = hashlib.sha256()
    for path, content in sources(root):
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:_TAG_LENGTH]


def build_image(
    arm: Arm, registry: str, tag: str, *, say: Callable[[str], None], sleep: Callable[[float], None]
) -> None:
    """Have `registry` (a resource id) build and keep the image under `tag`. Raises ImageError, or ArmError."""
    place = arm.post(f"{registry}/listBuildSourceUploadUrl", _RUNS_VERSION)
    say(f"build {NAME}:{tag} in {registry.rpartition('/')[2]}")
    _upload(place["uploadUrl"])
    run = arm.post(
        f"{registry}/scheduleRun",
        _RUNS_VERSION,
        {
            "type": "DockerBuildRequest",
            "imageNames": [f"{NAME}:{tag}"],
            "isPushEnabled": True,
            "sourceLocation": place["relativePath"],
            "dockerFilePath": "Dockerfile",
            "platform": {"os": "Linux", "architecture": "amd64"},
            "timeout": _BUILD_SECONDS,
        },
    )
    path = f"{registry}/runs/{run['properties']['runId']}"
    for _ in range(int(2 * _BUILD_SECONDS / _POLL_SECONDS)):  # it may wait for a machine as long as it then takes
        status = run["properties"]["status"]
        if status == "Succeeded":
            return
        if status not in _WAITING:
            raise ImageError(f"the build of {NAME}:{tag} is {status}:\n{_log(arm, path)}")
        sleep(_POLL_SECONDS)
        run = arm.get(path, _RUNS_VERSION)
    raise ImageError(f"the build of {NAME}:{tag} did not end: look at the runs of {registry.rpartition('/')[2]}")


def _upload(url: str) -> None:
    """The sources, to an address that is its own permission: Azure's token does not go there."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path, content in sources():
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    try:
        answer = httpx.put(
            url,
            content=gzip.compress(packed.getvalue(), mtime=0),
            headers={"x-ms-blob-type": "BlockBlob", "content-type": "application/gzip"},
            timeout=300,
        )
    except httpx.TransportError as error:
        raise ImageError(f"the sources cannot be handed to the registry: {type(error).__name__}") from error
    if not answer.is_success:
        raise ImageError(f"the registry's storage answered {answer.status_code} to the sources")


def _log(arm: Arm, run: str) -> str:
    """The end of what the build wrote."""
    link = arm.post(f"{run}/listLogSasUrl", _RUNS_VERSION)["logLink"]
    try:
        return "\n".join(httpx.get(link, timeout=60).text.splitlines()[-_MOST_LOG_LINES:])
    except httpx.TransportError:
        return f"its log cannot be read; `az acr task logs --run-id {run.rpartition('/')[2]}` may"
