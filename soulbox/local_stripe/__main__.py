"""The server as a process of its own: `python -m soulbox.local_stripe --help`."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from aiohttp import web

from soulbox import environment
from soulbox.local_stripe import control, delivery, document, events, pages, timers
from soulbox.local_stripe.clock import Clock
from soulbox.local_stripe.delivery import Policy
from soulbox.local_stripe.operations import OPERATIONS
from soulbox.local_stripe.server import MOST_BODY_BYTES, LocalStripe
from soulbox.local_stripe.state import State
from soulbox.local_stripe.world import World

HOST = "127.0.0.1"
TICK_S = 1.0
# What `make run` repeats; tests say so where they want repeats.
RETRY_AFTER_S = [1.0, 5.0, 30.0, 300.0]


def main() -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser(prog="soulbox.local_stripe", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="where to listen; 0 picks a free one")
    parser.add_argument("--state", type=Path, help="file that keeps everything over a restart")
    parser.add_argument("--webhook-url", help="where events go")
    parser.add_argument(
        "--webhook-secret",
        # By the environment, since every user can read the arguments of every process.
        default=environment.text("STRIPE_WEBHOOK_SECRET"),
        help="what signs them, whsec_...; else of STRIPE_WEBHOOK_SECRET",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(environment.text("SOULBOX_HOME"), "cache"),
        help="folder of the cut document",
    )
    parser.add_argument(
        "--announce-port-on-stdout", action="store_true", help="print the address when it answers"
    )
    given = parser.parse_args()
    if given.webhook_url and not given.webhook_secret:
        parser.error("--webhook-url wants a --webhook-secret")
    asyncio.run(serve(given))


async def serve(given: argparse.Namespace) -> None:
    """Listen, tell the address, and tick until a signal comes."""
    state = State.loaded(given.state) if given.state else State()
    world = World(document.load(OPERATIONS, cache=given.cache), state, Clock())
    server = LocalStripe(world.document, world, given.state)
    server.delivery.apply(Policy(retry_after_s=RETRY_AFTER_S))
    if given.webhook_url:
        one = {"url": given.webhook_url, "secret": given.webhook_secret}
        world.endpoints.append(delivery.endpoint(0, one))
    runner = web.AppRunner(
        application(server), access_log=None, handler_cancellation=True, shutdown_timeout=1
    )
    with stopping() as stop:
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, given.port).start()
        except OSError as error:
            sys.exit(f"Cannot listen on port {given.port}: {error.strerror}")
        world.address = f"http://{HOST}:{runner.addresses[0][1]}"
        if given.announce_port_on_stdout:
            sys.stdout.write(f"{world.address}\n")
            sys.stdout.flush()
        server.delivery.resume()
        while not stop.is_set():
            await tick(server)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), TICK_S)
        await server.delivery.close()
        await runner.cleanup()


def application(server: LocalStripe) -> web.Application:
    """Return the paths of both interfaces."""
    app = web.Application(client_max_size=MOST_BODY_BYTES)
    for method, path in control.CONTROLS:
        app.router.add_route(method, path, partial(control.answer, server))
    for (method, path), page in pages.PAGES.items():
        app.router.add_route(method, path, partial(pages.answer, page, server))
    app.router.add_route("*", "/{path:.*}", server.answer)
    return app


async def tick(server: LocalStripe) -> None:
    """Do what is due by a clock that runs."""
    events.prune(server.world)
    server.keys.prune()
    due = timers.next_due(server.world)
    if due is not None and due <= server.world.now:
        timers.run_due(server.world)
        server.save()
        await server.delivery.flush()


@contextmanager
def stopping() -> Iterator[asyncio.Event]:
    """Give an event that a signal sets."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


if __name__ == "__main__":
    main()
