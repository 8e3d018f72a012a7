"""The look-alike's HTTP: the engine's paths, on a socket and a port, and what may go wrong."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path
from typing import Any, Self

from aiohttp import web
from msgspec import json

from tests.lookalike import answers
from tests.lookalike.containers import Scripted
from tests.lookalike.engine import ScriptedEngine

HEADERS = {
    "Api-Version": "1.41",
    "Docker-Experimental": "false",
    "Ostype": "linux",
    "Server": "Docker/20.10.24 (linux)",
}
BACKLOG = 2048
# Zero would be taken for no limit.
CUT_AFTER_S = 0.01

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Fault(Enum):
    """What is wrong with every answer about a container, or about everything."""

    ERROR = auto()  # status 500
    MALFORMED = auto()  # half of the JSON
    MISSING_FIELDS = auto()
    NULLS = auto()
    WRONG_TYPES = auto()
    ZEROS = auto()  # status 200, as of a container that does not run
    YEAR_ONE = auto()  # figures, and a read time of the year 1


class LookAlike(ScriptedEngine):
    """A scripted engine that listens, in a thread of its own, while the `with` block runs."""

    def __init__(
        self,
        socket: Path,
        *,
        cgroup_version: int = 1,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        super().__init__(now_ns)
        self.endpoint = f"unix://{socket}"
        self.cgroup_version = cgroup_version
        self.oldest_api, self.newest_api = (1, 12), (1, 41)
        # Another one where two of them are hosts of one installation.
        self.engine_id = str(answers.RECORDED["info"]["ID"])
        # Seconds that a call takes: about one container, for statistics, and in any case.
        self.slow_s: dict[str, float] = {}
        self.stats_delay_s = 0.0
        self.delay_s = 0.0
        # Faults of answers about a container, and of those about the engine.
        self.faults: dict[str, Fault] = {}
        self.engine_fault: Fault | None = None
        self.calls: Counter[str] = Counter()
        self.in_flight = self.most_in_flight = 0
        self._socket, self._port = socket, 0
        self._runner: web.AppRunner | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lookalike")

    def __enter__(self) -> Self:
        self._thread.start()
        self.come_back()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.go_away()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._socket.unlink(missing_ok=True)

    @property
    def tcp_address(self) -> str:
        """Where it listens too, as host:port."""
        return f"127.0.0.1:{self._port}"

    def go_away(self) -> None:
        """Cut every connection and refuse new ones. Containers run on, as with live-restore."""
        self._run(self._stop_listening())

    def come_back(self) -> None:
        """Listen again."""
        self._run(self._listen())

    def _run(self, doing: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(doing, self._loop).result(timeout=10)

    async def _listen(self) -> None:
        self._socket.unlink(missing_ok=True)
        app = web.Application(middlewares=[self._answer])
        for path, handler in (
            ("/_ping", self._ping),
            ("/version", self._version),
            ("/info", self._info),
            ("/containers/json", self._list),
            ("/containers/{id}/json", self._inspect),
            ("/containers/{id}/stats", self._statistics),
            ("/system/df", self._disk_use),
            ("/events", self._events),
        ):
            app.router.add_get(path, handler)
            app.router.add_get(r"/v{version:\d+\.\d+}" + path, handler)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=CUT_AFTER_S
        )
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self._socket), backlog=BACKLOG).start()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, backlog=BACKLOG).start()
        self._port = self._runner.addresses[1][1]

    async def _stop_listening(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        route = request.match_info.route.resource
        self.calls[route.canonical.partition("}/")[2] if route else "unknown"] += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._refusal_or(handler, request)
        except web.HTTPNotFound:
            return _refused(404, "page not found")
        finally:
            self.in_flight -= 1

    async def _refusal_or(self, handler: Handler, request: web.Request) -> web.StreamResponse:
        container_id = request.match_info.get("id", "")
        if delay_s := self.delay_s + self.slow_s.get(container_id, 0):
            await asyncio.sleep(delay_s)
        if refusal := self._version_refused(request.match_info.get("version")):
            return _refused(400, refusal)
        if container_id:
            if container_id not in self.containers:
                return _refused(404, f"No such container: {container_id}")
            fault = self.faults.get(container_id)
        else:
            fault = self.engine_fault
        if fault is Fault.ERROR:
            return _refused(500, "something broke")
        answer = await handler(request)
        if fault is not None and isinstance(answer, web.Response):
            return _ok(_spoil(answer.body, fault))
        return answer

    def _version_refused(self, asked: str | None) -> str:
        if asked is None:
            return ""
        major, minor = asked.split(".")
        if (int(major), int(minor)) < self.oldest_api:
            return (
                f"client version {asked} is too old. Minimum supported API version is "
                f"{_dotted(self.oldest_api)}, please upgrade your client to a newer version"
            )
        if (int(major), int(minor)) > self.newest_api:
            return (
                f"client version {asked} is too new. Maximum supported API version is "
                f"{_dotted(self.newest_api)}"
            )
        return ""

    async def _ping(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(text="OK", headers=HEADERS)

    async def _version(self, _request: web.Request) -> web.StreamResponse:
        versions = {
            "ApiVersion": _dotted(self.newest_api),
            "MinAPIVersion": _dotted(self.oldest_api),
        }
        return _ok(answers.RECORDED["version"] | versions)

    async def _info(self, _request: web.Request) -> web.StreamResponse:
        with self.lock:
            states = Counter(container.status for container in self.containers.values())
        counts = {
            "Containers": states.total(),
            "ContainersRunning": states["running"],
            "ContainersPaused": states["paused"],
            "ContainersStopped": states["exited"] + states["created"],
            "CgroupVersion": str(self.cgroup_version),
            "ID": self.engine_id,
        }
        return _ok(answers.RECORDED["info"] | counts)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        filters = _filters(request)
        with self.lock:
            found = [
                answers.entry(container, with_size=_is_set(request, "size"))
                for container in self.containers.values()
                if (container.is_running or _is_set(request, "all"))
                and _has_labels(container.labels, filters.get("label", []))
            ]
        return _ok(found)

    async def _inspect(self, request: web.Request) -> web.StreamResponse:
        with self.lock:
            return _ok(answers.inspection(self._asked(request)))

    async def _statistics(self, request: web.Request) -> web.StreamResponse:
        if self.stats_delay_s:
            await asyncio.sleep(self.stats_delay_s)
        with self.lock:
            container = self._asked(request)
            if self.faults.get(container.container_id) is Fault.ZEROS:
                return _ok(answers.no_statistics(container))
            version = self.cgroup_version
            return _ok(answers.statistics(container, self.now_ns(), cgroup_version=version))

    async def _disk_use(self, _request: web.Request) -> web.StreamResponse:
        with self.lock:
            return _ok(answers.disk_use(self.volume_bytes))

    async def _events(self, request: web.Request) -> web.StreamResponse:
        since_ns, until_ns = (_moment_ns(request.query.get(key)) for key in ("since", "until"))
        filters, loop = _filters(request), asyncio.get_running_loop()
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

        def listen(event: dict[str, Any]) -> None:
            with suppress(RuntimeError):  # The server is gone.
                loop.call_soon_threadsafe(queue.put_nowait, event)

        with self.lock:
            past = [] if since_ns is None else [e for e in self.ring if e["timeNano"] >= since_ns]
            self.listeners.append(listen)
        answer = web.StreamResponse(headers=HEADERS | {"Content-Type": "application/json"})
        answer.enable_chunked_encoding()
        try:
            await answer.prepare(request)
            for event in past:
                if until_ns is None or event["timeNano"] <= until_ns:
                    await _write(answer, event, filters)
            wait_s = None if until_ns is None else (until_ns - time.time_ns()) / 10**9
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    while True:
                        await _write(answer, await queue.get(), filters)
        finally:
            self.listeners.remove(listen)
        return answer

    def _asked(self, request: web.Request) -> Scripted:
        return self.containers[request.match_info["id"]]


async def _write(
    answer: web.StreamResponse, event: dict[str, Any], filters: dict[str, list[str]]
) -> None:
    if (
        event["Type"] in filters.get("type", [event["Type"]])
        and event["Action"] in filters.get("event", [event["Action"]])
        and event["Actor"]["ID"] in filters.get("container", [event["Actor"]["ID"]])
        and _has_labels(event["Actor"]["Attributes"], filters.get("label", []))
    ):
        await answer.write(json.encode(event) + b"\n")


def _ok(answer: object) -> web.Response:
    body = answer if isinstance(answer, bytes) else json.encode(answer) + b"\n"
    return web.Response(body=body, content_type="application/json", headers=HEADERS)


def _refused(status: int, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status, headers=HEADERS)


def _spoil(body: Any, fault: Fault) -> bytes:
    if fault is Fault.MALFORMED:
        return bytes(body[: len(body) // 2])
    answer = json.decode(body)
    match fault:
        case Fault.MISSING_FIELDS:
            answer = {}
        case Fault.NULLS:
            answer = dict.fromkeys(answer)
        case Fault.WRONG_TYPES:
            answer = {key: [value] for key, value in answer.items()}
        case Fault.YEAR_ONE if "read" in answer:
            answer["read"] = answers.NEVER
        case _:
            pass
    return json.encode(answer)


def _filters(request: web.Request) -> dict[str, list[str]]:
    """Return the filters, which may map a name to a list or, of old, to a set of true."""
    return {key: list(wanted) for key, wanted in json.decode(_given(request)).items()}


def _given(request: web.Request) -> str:
    return request.query.get("filters") or "{}"


def _has_labels(labels: dict[str, str], wanted: list[str]) -> bool:
    pairs = [text.partition("=") for text in wanted]
    return all(
        key in labels and (not separator or labels[key] == value) for key, separator, value in pairs
    )


def _is_set(request: web.Request, name: str) -> bool:
    return request.query.get(name, "").lower() in {"1", "true"}


def _moment_ns(text: str | None) -> int | None:
    if not text:
        return None
    seconds, _, rest = text.partition(".")
    return int(seconds) * 10**9 + int(rest.ljust(9, "0")[:9])


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
