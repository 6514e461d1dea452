"""Redis as Azure offers it, made of real parts: Valkey behind TLS, and tokens from a managed identity's endpoint.

The server programs from PyPI are built without TLS, so a door in front of each ends it. The door also does what Azure
does when a token ends: the server takes it no longer, and connections that signed in with it are closed.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import redis.asyncio as redis
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from local.redis_server import RedisServer

HEADER = "the platform's own secret"
_UNUSED_RIGHTS = (
    *("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("encipher_only", "decipher_only"),
)


class Authority:
    """A certificate authority of one test run."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self._name = name
        certificate = self._certificate(name, self._key.public_key(), authority=True).sign(self._key, hashes.SHA256())
        self.path = directory / "authority.pem"
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def server_context(self, host: str) -> ssl.SSLContext:
        """What a server needs to prove that it is `host`."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        names = x509.SubjectAlternativeName([x509.DNSName(host)])
        builder = self._certificate(subject, key.public_key(), authority=False).add_extension(names, False)
        path = self._directory / f"{host}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _certificate(
        self, subject: x509.Name, public_key: ec.EllipticCurvePublicKey, *, authority: bool
    ) -> x509.CertificateBuilder:
        """With all that Python 3.13 asks for."""
        now = datetime.now(UTC)
        issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        usage = x509.KeyUsage(
            digital_signature=not authority,
            key_cert_sign=authority,
            crl_sign=authority,
            **dict.fromkeys(_UNUSED_RIGHTS, False),
        )
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(issued_by, critical=False)
            .add_extension(usage, critical=True)
        )


class Line:
    """One client's connection through a door, and the tokens it showed, the newest last."""

    def __init__(self, writers: Iterable[asyncio.StreamWriter]) -> None:
        self.writers = tuple(writers)
        self.tokens: list[str] = []

    def cut(self) -> None:
        for writer in self.writers:
            writer.close()


class Door:
    """TLS in front of one server."""

    def __init__(self, redis_: EntraRedis, port: int) -> None:
        self._redis, self._server_port = redis_, port
        self.lines: set[Line] = set()  # that are open
        self.every: list[Line] = []
        self.bytes_in = 0
        self.port = 0
        self._server: asyncio.Server | None = None

    async def open(self, context: ssl.SSLContext) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for line in list(self.lines):
            line.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        line = Line((writer, server_writer))
        self.lines.add(line)
        self.every.append(line)

        async def inward() -> None:
            while data := await reader.read(65536):
                self.bytes_in += len(data)
                line.tokens += [token for token in self._redis.issued if token.encode() in data]
                server_writer.write(data)
                await server_writer.drain()

        async def outward() -> None:
            while data := await server_reader.read(65536):
                writer.write(data)
                await writer.drain()

        ways = [asyncio.create_task(inward()), asyncio.create_task(outward())]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        line.cut()
        self.lines.discard(line)


class EntraRedis:
    """Servers with one user, whose passwords are the tokens in force, and the endpoint that hands tokens out."""

    def __init__(self, servers: Iterable[RedisServer], oid: str, client_id: str) -> None:
        self._servers = list(servers)
        self.oid, self._client_id = oid, client_id
        self.doors = [Door(self, server.port) for server in self._servers]
        self.token_seconds = 60.0
        self.issued: list[str] = []
        self.requests: list[dict[str, str]] = []
        self.cut = 0  # connections closed because their token had ended
        self.is_away = False  # the endpoint
        self._admins = [redis.Redis(port=server.port) for server in self._servers]
        self._endings: list[asyncio.TimerHandle] = []
        self._work: set[asyncio.Task[None]] = set()
        self._runner: web.AppRunner | None = None
        self.endpoint = ""

    async def open(self, context: ssl.SSLContext) -> None:
        for admin in self._admins:
            await admin.execute_command("ACL", "SETUSER", self.oid, "reset", "on", "allkeys", "allcommands")
        for door in self.doors:
            await door.open(context)
        app = web.Application()
        app.router.add_get("/msi/token", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.endpoint = f"http://127.0.0.1:{self._runner.addresses[0][1]}/msi/token"

    async def close(self) -> None:
        for ending in self._endings:
            ending.cancel()
        for door in self.doors:
            await door.close()
        for admin in self._admins:
            await admin.execute_command("ACL", "DELUSER", self.oid)
            await admin.aclose()
        assert self._runner is not None
        await self._runner.cleanup()

    def lines(self) -> list[Line]:
        """Connections of clients that are open now."""
        return [line for door in self.doors for line in door.lines]

    async def end(self, token: str) -> None:
        """Azure's part when a token ends."""
        for admin in self._admins:
            await admin.execute_command("ACL", "SETUSER", self.oid, f"<{token}")
        for line in self.lines():
            if line.tokens[-1:] == [token]:
                self.cut += 1
                line.cut()

    async def _answer(self, request: web.Request) -> web.Response:
        """As the identity endpoint of App Service and Functions answers."""
        self.requests.append(dict(request.query))
        if self.is_away:
            return web.json_response({"statusCode": 500, "message": "away"}, status=500)
        query = request.query
        if request.headers.get("X-IDENTITY-HEADER") != HEADER or query.get("client_id") != self._client_id:
            return web.json_response({"statusCode": 400, "message": "no such identity"}, status=400)
        ends_at = int(time.time() + self.token_seconds)
        token = fake_token({"oid": self.oid, "exp": ends_at, "n": len(self.issued)})
        for admin in self._admins:
            await admin.execute_command("ACL", "SETUSER", self.oid, f">{token}")
        self.issued.append(token)
        self._endings.append(asyncio.get_running_loop().call_later(ends_at - time.time(), self._end_soon, token))
        return web.json_response(
            {"access_token": token, "expires_on": str(ends_at), "resource": query["resource"], "token_type": "Bearer"}
        )

    def _end_soon(self, token: str) -> None:
        task = asyncio.create_task(self.end(token))
        self._work.add(task)
        task.add_done_callback(self._work.discard)


def fake_token(claims: dict[str, object]) -> str:
    """A token of Entra ID's form, signed by nobody: only its claims are read."""
    parts = ({"alg": "none"}, claims, "unsigned")
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)
