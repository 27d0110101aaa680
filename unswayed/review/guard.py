"""What stands before every request: the address must hold the token, and the host must be this machine."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HOSTS = (b"127.0.0.1", b"localhost", b"[::1]")
_LONGEST_BODY = 64 * 1024

_POLICY = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


class Guard:
    """Lets through what asks for `/TOKEN/...` on this machine by its own name; the app behind sees `/...`.

    A page elsewhere cannot know the token. One that lets its own name point at this machine (DNS rebinding) is told by
    its Host header. The token is compared in constant time.
    """

    def __init__(self, app: App, token: str) -> None:
        self.app, self._token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on, one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        token, _, rest = scope["path"].lstrip("/").partition("/")
        if _hostname(headers.get(b"host", b"")) not in HOSTS:
            await _refuse(send, 421, b"This server answers only to the names of this machine.")
        elif not hmac.compare_digest(token.encode(errors="surrogateescape"), self._token):
            await _refuse(send, 404, b"Open the address that unswayed review printed.")
        elif _too_long(headers.get(b"content-length", b"0")):
            await _refuse(send, 413, b"That is too long.")
        else:
            inner = {**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode(errors="surrogateescape")}
            await self.app(inner, receive, _with_headers(send))


def _hostname(host: bytes) -> bytes:
    name, colon, port = host.lower().rpartition(b":")
    return name if colon and port.isdigit() else host.lower()


def _too_long(length: bytes) -> bool:
    return not length.isdigit() or int(length) > _LONGEST_BODY


def _with_headers(send: Send) -> Send:
    async def send_safely(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *_HEADERS]
        await send(message)

    return send_safely


async def _refuse(send: Send, status: int, words: bytes) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(words)).encode())]
    await _with_headers(send)({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": words})
