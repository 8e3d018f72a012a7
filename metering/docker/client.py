"""HTTP to an engine, hundreds of calls at once. The one file that imports an HTTP library."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from ssl import SSLContext, create_default_context
from typing import Generic, TypeVar
from urllib.parse import urlencode

from aiohttp import (
    BaseConnector,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
    UnixConnector,
)
from yarl import URL

from metering.docker.answers import parse_error, parse_versions
from metering.source import SourceError

# The oldest has the first statistics in one shot. The newest is the last one whose answer of
# what volumes take up has the shape we read.
OLDEST_API, NEWEST_API = (1, 41), (1, 51)
MAX_ANSWER_BYTES = 256 * 2**20
MAX_LINE_BYTES = 4 * 2**20
_TCP_PORT = 2375

Answer = TypeVar("Answer")


class UnreachableError(SourceError):
    """Nobody answered: refused, cut off, or too slow."""


class AbsentError(SourceError):
    """The engine knows nothing by this id."""


class EngineClient:
    """Asks one engine. May be used by many threads; holds nothing open between calls.

    Connections are made anew by each call: to keep them would save a fifth of the cpu, and
    leave behind a thread and open sockets that somebody has to close.
    """

    def __init__(
        self, endpoint: str, *, concurrency: int, timeout_s: float, certificates: str = ""
    ) -> None:
        self._endpoint = endpoint
        self._base, self._socket = _address(endpoint)
        self._tls = _tls_context(self._base, certificates)
        self._concurrency = concurrency
        self._timeout_s = timeout_s
        self._version: str | None = None

    def get(self, path: str) -> bytes:
        """Return the body of one answer. Raises SourceError."""
        [body] = self.get_all([path], timeout_s=self._timeout_s)
        return body

    def get_all(self, paths: Sequence[str], *, timeout_s: float) -> list[bytes]:
        """Return the body of each answer. Raises SourceError when there is one too few."""
        bodies = self._get_in_thread(paths, bytes, timeout_s)
        for body in bodies:
            if isinstance(body, SourceError):
                raise body
        return [body for body in bodies if isinstance(body, bytes)]

    def get_each(
        self, paths: Sequence[str], parse: Callable[[bytes], Answer]
    ) -> list[Answer | SourceError]:
        """Return what `parse` makes of each answer, or why there is none, in the paths' order.

        Raises SourceError when the engine does not even say which API it speaks.
        """
        return self._get_in_thread(paths, parse, self._timeout_s)

    def follow(self, path: str, parse: Callable[[bytes], Answer | None]) -> Stream[Answer]:
        """Return what `parse` makes of each line of an answer without an end."""
        return Stream(self._follow(path, parse))

    def _get_in_thread(
        self, paths: Sequence[str], parse: Callable[[bytes], Answer], timeout_s: float
    ) -> list[Answer | SourceError]:
        # In a thread, so that an exception a signal raises in this one finds no loop to get
        # lost in: a loop logs what its callbacks raise, and goes on.
        with ThreadPoolExecutor(1, thread_name_prefix="docker") as thread:
            return thread.submit(
                lambda: asyncio.run(self._get_each(paths, parse, timeout_s))
            ).result()

    async def _get_each(
        self, paths: Sequence[str], parse: Callable[[bytes], Answer], timeout_s: float
    ) -> list[Answer | SourceError]:
        answers: dict[int, Answer | SourceError] = {}
        numbered = iter(enumerate(paths))

        async def ask_one_after_another() -> None:
            for number, path in numbered:
                try:
                    answers[number] = parse(await self._fetch(session, prefix + path))
                except SourceError as error:
                    answers[number] = error

        async with self._session(ClientTimeout(total=timeout_s)) as session:
            prefix = await self._prefix(session)
            at_once = min(self._concurrency, len(paths))
            await asyncio.gather(*(ask_one_after_another() for _ in range(at_once)))
        return [answers[number] for number in range(len(paths))]

    async def _follow(
        self, path: str, parse: Callable[[bytes], Answer | None]
    ) -> AsyncGenerator[Answer, None]:
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(self._session(ClientTimeout(total=None)))
            try:
                # Only the answer's head is due in time: lines come when something happens.
                async with asyncio.timeout(self._timeout_s):
                    prefix = await self._prefix(session)
                    answer = await stack.enter_async_context(self._answer(session, prefix + path))
            except TimeoutError as error:
                raise self._unreachable(" in time.") from error
            async for line in _lines(answer):
                if (parsed := parse(line)) is not None:
                    yield parsed
        raise UnreachableError(f"The Docker engine at {self._endpoint} ended its stream.")

    def _session(self, timeout: ClientTimeout) -> ClientSession:
        connector: BaseConnector = (
            UnixConnector(self._socket, limit=0)
            if self._socket
            else TCPConnector(limit=0, ssl=self._tls)
        )
        return ClientSession(connector=connector, cookie_jar=DummyCookieJar(), timeout=timeout)

    async def _prefix(self, session: ClientSession) -> str:
        """Return the path of the newest API that the engine and we speak.

        Engines of 2025 refuse the oldest, those of 2020 the newest.
        """
        if self._version is None:
            oldest, newest = parse_versions(await self._fetch(session, "/version"))
            chosen = min(newest, NEWEST_API)
            if chosen < max(oldest, OLDEST_API):
                raise SourceError(
                    f"The Docker engine at {self._endpoint} speaks API {_dotted(oldest)} to "
                    f"{_dotted(newest)}; {_dotted(OLDEST_API)} to {_dotted(NEWEST_API)} is needed."
                )
            self._version = f"/v{_dotted(chosen)}"
        return self._version

    async def _fetch(self, session: ClientSession, path: str) -> bytes:
        async with self._answer(session, path) as answer:
            return await self._body(answer)

    @asynccontextmanager
    async def _answer(self, session: ClientSession, path: str) -> AsyncIterator[ClientResponse]:
        url = URL(self._base + path, encoded=True)
        try:
            async with session.get(url, allow_redirects=False) as answer:
                if answer.status != 200:
                    raise await self._refusal(answer)
                yield answer
        except TimeoutError as error:
            raise self._unreachable(" in time.") from error
        except (ClientError, OSError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or error
            raise self._unreachable(f": {reason}") from error

    def _unreachable(self, how: str) -> UnreachableError:
        return UnreachableError(f"The Docker engine at {self._endpoint} did not answer{how}")

    async def _refusal(self, answer: ClientResponse) -> SourceError:
        if answer.status == 400:
            # An engine that was upgraded or replaced may speak another API now.
            self._version = None
        reason = parse_error(await self._body(answer))
        kind = AbsentError if answer.status == 404 else SourceError
        return kind(f"The Docker engine at {self._endpoint} said {answer.status}: {reason}")

    async def _body(self, answer: ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in answer.content.iter_any():
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise SourceError(
                    f"The Docker engine at {self._endpoint} gave an answer of more than "
                    f"{MAX_ANSWER_BYTES} bytes."
                )
        return bytes(body)


class Stream(Iterator[Answer], Generic[Answer]):
    """Answers as they come. Raises SourceError when the connection ends.

    One thread iterates. Any thread, and a signal's handler, may call `close`, which ends the
    iteration.
    """

    def __init__(self, answers: AsyncGenerator[Answer, None]) -> None:
        self._answers = answers
        self._runner = asyncio.Runner()
        self._loop = self._runner.get_loop()
        self._reading = threading.Lock()
        self._task: asyncio.Task[Answer] | None = None
        self._is_closed = False

    def __next__(self) -> Answer:
        """Wait for the next answer and return it."""
        with self._reading:
            if self._is_closed:
                self._end()
                raise StopIteration
            try:
                return self._runner.run(self._wait())
            except BaseException as error:
                self._is_closed = True
                self._end()
                if isinstance(error, asyncio.CancelledError):
                    raise StopIteration from None
                raise

    def close(self) -> None:
        """Drop the connection. Safe to repeat."""
        self._is_closed = True
        with suppress(RuntimeError):  # The loop is closed already.
            self._loop.call_soon_threadsafe(self._cancel)
        # A thread that waits for an answer wakes up and closes the loop itself.
        if self._reading.acquire(blocking=False):
            try:
                self._end()
            finally:
                self._reading.release()

    async def _wait(self) -> Answer:
        self._task = asyncio.current_task()
        if self._is_closed:
            raise asyncio.CancelledError
        return await anext(self._answers)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _end(self) -> None:
        try:
            if not self._loop.is_closed():
                self._loop.run_until_complete(self._answers.aclose())
        finally:
            self._runner.close()


def with_query(path: str, **query: str | int) -> str:
    """Return a path with a query behind it."""
    return f"{path}?{urlencode(query)}"


async def _lines(answer: ClientResponse) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in answer.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
        if len(rest) > MAX_LINE_BYTES:
            # What is left of such a line cannot be read, so it costs this one alone.
            rest = b""


def _address(endpoint: str) -> tuple[str, str]:
    """Return the base of every URL and the path of the socket, empty when there is none."""
    scheme, separator, rest = endpoint.partition("://")
    if scheme == "unix" and rest:
        return "http://localhost", rest
    try:
        url = URL(f"{'http' if scheme == 'tcp' else scheme}://{rest}")
    except ValueError as error:
        raise SourceError(f"The endpoint {endpoint!r} cannot be read: {error}") from error
    if not separator or url.scheme not in {"http", "https"} or not url.host:
        raise SourceError(
            f"The endpoint {endpoint!r} is none of unix:///path, tcp://host:port, "
            "http://host:port and https://host:port."
        )
    if scheme == "tcp" and url.explicit_port is None:
        url = url.with_port(_TCP_PORT)
    return str(url).rstrip("/"), ""


def _tls_context(base: str, certificates: str) -> SSLContext | bool:
    """Return how to check an engine and to say who we are: True, the public authorities.

    The files have the names that Docker's own client looks for. A folder named as the engine's
    host, in the folder that is set, is that engine's alone.
    """
    host = URL(base).host or ""
    if not (certificates and base.startswith("https:")):
        return True
    folder = Path(certificates)
    if (folder / host).is_dir():
        folder /= host
    try:
        context = create_default_context(cafile=folder / "ca.pem")
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    except OSError as error:
        raise SourceError(
            f"METERING_CERT_PATH: {folder} has to have ca.pem, cert.pem and key.pem that can be "
            f"read ({error})."
        ) from error
    return context


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
