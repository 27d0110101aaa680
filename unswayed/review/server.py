"""The server of the review page: on this machine alone, for those who know the token."""

from __future__ import annotations

import math
import secrets
import socket
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unswayed.errors import UnswayedError
from unswayed.review.case import Case
from unswayed.review.evidence import Evidence
from unswayed.review.guard import App, Guard
from unswayed.review.listing import Filter, Lists
from unswayed.review.progress import Progress
from unswayed.version import __version__

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

ASSETS = {
    "palette.css": "text/css",
    "page.css": "text/css",
    "mark.svg": "image/svg+xml",
    **dict.fromkeys(
        ("page.js", "server.js", "list.js", "card.js", "chart.js", "chooser.js", "make.js"), "text/javascript"
    ),
}
PORT, PORTS = 8350, 50  # the first port tried, and how many
_PAGE = 200  # lines of the list sent at once, at most


def make_app(case: Case, token: str, *, reviewer: str = "reviewer") -> App:
    """The review page of a case as an ASGI app, under `/TOKEN/`; `reviewer` is the name it suggests.

    Raises UnswayedError where starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.responses import JSONResponse, Response
        from starlette.routing import Route
    except ImportError as error:
        raise _missing("starlette") from error
    desk = Desk(case, reviewer)

    def answer(work: Callable[[Request], Any]) -> Callable[[Request], Response]:
        def handle(request: Request) -> Response:
            try:
                return JSONResponse(work(request), headers={"cache-control": "no-store"})
            except UnswayedError as error:
                return JSONResponse({"error": str(error)}, 400, headers={"cache-control": "no-store"})

        return handle

    def told(work: Callable[[dict[str, Any]], Any]) -> Any:
        async def handle(request: Request) -> Response:
            from starlette.concurrency import run_in_threadpool

            try:
                words = await request.json()
                if not isinstance(words, dict):
                    raise ValueError("no object")
            except ValueError:
                return JSONResponse({"error": "expected a JSON object"}, 400)
            return await run_in_threadpool(answer(lambda _: work(words)), request)

        return handle

    def preview(request: Request) -> Response:
        try:
            at = desk.position(request.path_params["at"])
            shown = case.rows.show(at) if request.query_params.get("size") == "full" else case.rows.thumbnail(at)
        except (UnswayedError, OSError, ValueError) as error:
            return Response(str(error), 404, media_type="text/plain")
        return Response(shown.content, media_type=shown.mime, headers={"cache-control": "private, max-age=3600"})

    def asset(request: Request) -> Response:
        name = request.path_params.get("name", "page.html")
        kind = ASSETS.get(name, "text/html")
        if name != "page.html" and name not in ASSETS:
            return Response("no such file", 404, media_type="text/plain")
        room = "unswayed.report" if name == "palette.css" else "unswayed.review"  # one look for all pages
        data = (resources.files(room) / name).read_bytes()
        return Response(data, media_type=kind, headers={"cache-control": "no-store"})

    routes = [
        Route("/", asset),
        Route("/api/about", answer(lambda _: desk.about())),
        Route("/api/list", answer(lambda request: desk.listed(dict(request.query_params)))),
        Route("/api/place", answer(lambda request: desk.place(dict(request.query_params)))),
        Route("/api/card/{at:int}", answer(lambda request: desk.card(request.path_params["at"]))),
        Route("/api/progress", answer(lambda request: desk.progress(request.query_params.get("since")))),
        Route("/api/decide", told(desk.decide), methods=["POST"]),
        Route("/api/undo", told(desk.undo), methods=["POST"]),
        Route("/preview/{at:int}", preview),
        Route("/{name}", asset),
    ]
    return Guard(Starlette(routes=routes), token)


class Desk:
    """What the page asks for, as plain data."""

    def __init__(self, case: Case, reviewer: str) -> None:
        self.case, self.reviewer = case, reviewer
        self.lists, self.evidence, self._progress = Lists(case), Evidence(case), Progress(case)

    def about(self) -> dict[str, Any]:
        """What the page shows before any row: the audit as a whole, and what there is to filter by."""
        audit = self.case.audit
        found = audit.summary()
        try:
            shows, trouble = self.case.rows.kind, None
        except (UnswayedError, OSError) as error:
            shows, trouble = None, str(error) if self.case.rows.config else None
        return {
            "version": __version__,
            "name": self._name(),
            "reviewer": self.reviewer,
            "rows": len(audit),
            "issues": found["issues"],
            "classes": list(audit.classes),
            "kinds": found["kinds"],
            "noise_rate": [_finite(value) for value in audit.noise.rate],
            "verdict": audit.verdict,
            "pairs": self.lists.pairs(),
            "shows": shows,
            "trouble": trouble,
            "budget": self._progress.budget(),
            "progress": self._progress.now(),
        }

    def listed(self, query: dict[str, str]) -> dict[str, Any]:
        """A page of the list."""
        start, count = _whole(query.pop("start", "0")), _whole(query.pop("count", "100"))
        self.case.decisions.refresh()
        return self.lists.page(_filter(query), start, min(count, _PAGE))

    def place(self, query: dict[str, str]) -> dict[str, Any]:
        """Where in the list a row stands (`row`, `at`), or the next undecided row behind a place (`after`)."""
        wanted = {name: _whole(query.pop(name)) for name in ("row", "at", "after") if name in query}
        asked = _filter(query)
        if "after" in wanted:
            self.case.decisions.refresh()
            return {"place": self.lists.next_open(asked, wanted["after"])}
        if not wanted:
            raise UnswayedError("a row, a position (at) or a place (after)", got="none")
        return {"place": self.lists.place(asked, at=wanted.get("at"), row=wanted.get("row"))}

    def card(self, at: int) -> dict[str, Any]:
        """Everything about one row."""
        return self.evidence.card(self.position(at))

    def progress(self, since: str | None = None) -> dict[str, Any]:
        """Where the review stands; the lines of the rows that others changed, where `since` names a decision."""
        self.case.decisions.refresh()
        changed = [] if since is None else self.case.decisions.changed(_whole(since))
        return {"progress": self._progress.now(), "lines": [self.lists.line(at) for at in changed]}

    def decide(self, said: dict[str, Any]) -> dict[str, Any]:
        """Save a decision; the row as it stands now, how far the review is, and the card that comes next in `list`."""
        at, label = said.get("at"), said.get("label")
        if not isinstance(at, int) or not (label is None or isinstance(label, str)):
            raise UnswayedError("a position (at) and a label", got=f"{at!r} and {label!r}")
        query, after = said.get("list", {}), said.get("after", -1)
        if not isinstance(query, dict) or not isinstance(after, int):
            raise UnswayedError("a list and a place in it (after)", got=f"{query!r} and {after!r}")
        asked = _filter({name: str(value) for name, value in query.items()})
        self.case.decisions.decide(at, str(said.get("verdict")), label, str(said.get("reviewer") or ""))
        place = self.lists.next_open(asked, after)
        card = None if place is None else self.evidence.card(int(self.lists.rows(asked)[place]))
        return {**self._after(at), "next": {"place": place, "card": card}}

    def undo(self, said: dict[str, Any]) -> dict[str, Any]:
        """Take back the reviewer's last decision."""
        made = self.case.decisions.undo(str(said.get("reviewer") or ""))
        return {"line": None, "progress": self._progress.brief()} if made is None else self._after(made.at)

    def position(self, at: int) -> int:
        """A position of the audit, checked."""
        if not 0 <= at < len(self.case.audit):
            raise UnswayedError(f"a position 0..{len(self.case.audit) - 1}", got=at)
        return at

    def _after(self, at: int) -> dict[str, Any]:
        return {"line": self.lists.line(at), "progress": self._progress.brief()}

    def _name(self) -> str:
        config = self.case.rows.config
        return Path(str(config["data"])).name if config else self.case.folder.resolve().name


def serve(
    case: Case,
    *,
    port: int | None = None,
    reviewer: str = "reviewer",
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve the page of a case until interrupted, on 127.0.0.1 alone; `ready` is told its address.

    Without `port` the first free one from 8350 on is used. Raises UnswayedError where `port` is in use, and where
    starlette or uvicorn are not installed.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise _missing("uvicorn") from error
    token = secrets.token_urlsafe(24)
    app = make_app(case, token, reviewer=reviewer)
    listener = listen(port)
    settings = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, lifespan="off")
    with listener:
        if ready is not None:
            ready(f"http://127.0.0.1:{listener.getsockname()[1]}/{token}/")
        uvicorn.Server(settings).run(sockets=[listener])


def listen(port: int | None) -> socket.socket:
    """A socket on 127.0.0.1: at `port`, or at the first free one from 8350 on."""
    tried = range(PORT, PORT + PORTS) if port is None else (port,)
    for each in tried:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", each))
            listener.listen(128)
        except OSError as error:
            listener.close()
            if port is not None:
                do = "leave --port out to take the next free one, or name another"
                raise UnswayedError(f"a free port, {port}", got=error.strerror or error, do=do) from error
            continue
        return listener
    raise UnswayedError(f"a free port from {PORT} to {PORT + PORTS - 1}", got="none", do="name another by --port")


def _filter(query: dict[str, str]) -> Filter:
    known = {name: query[name] for name in ("kind", "given", "suggested", "state", "order", "stamp") if name in query}
    return Filter(**known)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise UnswayedError("a whole number", got=repr(text)[:40]) from error


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _missing(name: str) -> UnswayedError:
    return UnswayedError(f"the library {name}, which serves the page", got="none", do="pip install 'unswayed[review]'")
