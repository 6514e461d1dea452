"""Runs the work of a command over the product's services, and turns what goes wrong into one line and an exit code."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec
import typer

from cli.output import plain
from shared.bootstrap import Services
from shared.errors import ConfigInvalid, StateUnavailable, TollkeeperError
from shared.settings import Settings

T = TypeVar("T")

EXIT_DONE = 0
EXIT_REFUSED = 1  # the message says what is wrong
EXIT_CHANGES = 2  # only of `--detailed-exitcode`
EXIT_UNAVAILABLE = 3  # a store does not respond: the same command may help later
EXIT_USAGE = 64  # the command line
EXIT_INTERRUPTED = 130  # which typer makes of Ctrl-C

_DEPENDENCIES = ("azure.", "redis.", "aiohttp.")
_SIGN_IN = "CredentialUnavailableError", "ClientAuthenticationError"

env_file: Path | None = None  # of the option --env-file


def run(work: Callable[[Services], Awaitable[T]], *, configured: bool = True) -> T:
    """The result of the work. `configured`: it needs the configuration in force, which is loaded before."""

    async def inside() -> T:
        services = Services(Settings.for_operator(environment()))
        try:
            if configured:
                await services.open()
            return await work(services)
        finally:
            await services.close()

    logging.getLogger("azure").setLevel(logging.CRITICAL)  # what fails is said below, once
    return asyncio.run(inside())


def environment() -> Mapping[str, str]:
    """This process's variables; with --env-file that file alone, so that two environments cannot mix."""
    return os.environ if env_file is None else _read_env_file(env_file)


def guarded(command: Callable[[], object], *, as_json: bool) -> int:
    """Run a command; its exit code. What is wrong goes to standard error, a line each."""
    try:
        ended = command()  # typer hands over the code of an Exit, 130 after Ctrl-C
    except typer.TyperException as error:  # of which all are about the command line
        return _complain(error.format_message(), EXIT_USAGE, "usage", as_json=as_json)
    except typer.Abort:
        message = "not confirmed: nothing was done; where nobody can answer give --yes"
        return _complain(message, EXIT_REFUSED, "not_confirmed", as_json=as_json)
    except StateUnavailable as error:
        return _complain(error.message, EXIT_UNAVAILABLE, error, as_json=as_json)
    except TollkeeperError as error:
        return _complain(error.message, EXIT_REFUSED, error, as_json=as_json)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read has seen enough
        return EXIT_DONE
    except Exception as error:
        said = _of_a_store(error)
        if said is None:
            raise  # a mistake of ours: the traceback is what helps
        return _complain(*said, as_json=as_json)
    return ended if isinstance(ended, int) else EXIT_DONE


def _of_a_store(error: Exception) -> tuple[str, int, str] | None:
    """What a store's own error means for a person; None when it is none. SDKs are told by their modules' names."""
    name, said = type(error).__name__, (str(error).splitlines() or [""])[0]
    if name in _SIGN_IN:
        return f"not signed in to Azure: run `az login` ({said[:200]})", EXIT_REFUSED, "not_signed_in"
    if isinstance(error, ConnectionError | TimeoutError) or type(error).__module__.startswith(_DEPENDENCIES):
        status = getattr(error, "status_code", None)
        if isinstance(status, int) and status < 500 and status != 429:
            return f"the store refuses ({status}): {said[:300]}", EXIT_REFUSED, "store_refuses"
        return f"a store does not respond: {name}: {said[:300]}", EXIT_UNAVAILABLE, "store_unavailable"
    if isinstance(error, ValueError) and said.startswith("LEDGER_STORAGE"):
        return said, EXIT_REFUSED, "setting_missing"
    return None


def _complain(message: str, code: int, said: TollkeeperError | str, *, as_json: bool) -> int:
    """Write what is wrong; `said` is the error of the product, or a code of the command's own."""
    if as_json:
        named = {"code": said, "message": message, "type": "cli", "param": None}
        body = {"error": named} if isinstance(said, str) else said.body()
        sys.stderr.write(msgspec.json.encode(body).decode() + "\n")
    else:
        sys.stderr.write("".join(f"tollkeeper: {line}\n" for line in plain(message).strip().splitlines()))
    return code


def _read_env_file(path: Path) -> dict[str, str]:
    """NAME=value lines, as `make run` writes them. Raises ConfigInvalid."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"--env-file: {path}: cannot be read: {error}") from None
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.lstrip().startswith("#"))
    return {name.strip(): value.strip() for name, value in pairs}
