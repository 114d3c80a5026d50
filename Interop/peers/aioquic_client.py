# SPDX-License-Identifier: Apache-2.0
"""An HTTP/0.9 client on aioquic: ALPN hq-interop, every URL a bidirectional stream of one connection, all at once.

Writes each file to the output folder and prints its size; exits with 1 when any is missing or cut short.
"""

import argparse
import asyncio
import logging
import os
import pathlib
import ssl
import sys
import time
import urllib.parse

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent, StreamDataReceived, StreamReset


class FetchProtocol(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.bodies: dict[int, bytearray] = {}
        self.waiters: dict[int, asyncio.Future] = {}
        self.received = 0
        self.key_update_after: int | None = None
        self.key_updates = 0

    async def fetch(self, path: str) -> bytes:
        stream_id = self._quic.get_next_available_stream_id()
        self.bodies[stream_id] = bytearray()
        self.waiters[stream_id] = asyncio.get_running_loop().create_future()
        self._quic.send_stream_data(stream_id, f"GET {path}\r\n".encode(), end_stream=True)
        self.transmit()
        await self.waiters[stream_id]
        return bytes(self.bodies[stream_id])

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, StreamDataReceived) and event.stream_id in self.bodies:
            self.bodies[event.stream_id] += event.data
            self.received += len(event.data)
            self.update_keys_when_due()
            if event.end_stream and not self.waiters[event.stream_id].done():
                self.waiters[event.stream_id].set_result(None)
        elif isinstance(event, StreamReset) and event.stream_id in self.waiters:
            self.fail(self.waiters[event.stream_id], f"the server reset the stream with {event.error_code}")
        elif isinstance(event, ConnectionTerminated):
            for waiter in self.waiters.values():
                self.fail(waiter, f"connection closed: {event.error_code:#x} {event.reason_phrase}")

    def update_keys_when_due(self) -> None:
        """Starts a key update after every `key_update_after` bytes, once the handshake allows it."""
        if self.key_update_after and self.received >= self.key_update_after * (self.key_updates + 1):
            self.key_updates += 1
            self.request_key_update()

    @staticmethod
    def fail(waiter: asyncio.Future, reason: str) -> None:
        if not waiter.done():
            waiter.set_exception(ConnectionError(reason))


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="+", help="https://HOST:PORT/PATH; all on one host")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path())
    parser.add_argument("--ca", help="PEM file of the certificate authority to trust")
    parser.add_argument("--insecure", action="store_true")
    parser.add_argument("--key-update", type=int, metavar="BYTES", help="start a key update after each BYTES received")
    parser.add_argument("--idle-timeout", type=float, default=30)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.DEBUG if options.verbose else logging.ERROR)

    urls = [urllib.parse.urlsplit(url) for url in options.url]
    key_log = os.environ.get("SSLKEYLOGFILE")
    configuration = QuicConfiguration(
        is_client=True,
        alpn_protocols=["hq-interop"],
        idle_timeout=options.idle_timeout,
        max_data=16 << 20,
        max_stream_data=4 << 20,
        secrets_log_file=open(key_log, "a") if key_log else None,
    )
    if options.ca:
        configuration.load_verify_locations(options.ca)
    if options.insecure:
        configuration.verify_mode = ssl.CERT_NONE
    options.output.mkdir(parents=True, exist_ok=True)

    start = time.monotonic()
    async with connect(
        urls[0].hostname, urls[0].port, configuration=configuration, create_protocol=FetchProtocol
    ) as protocol:
        protocol.key_update_after = options.key_update
        paths = [url.path + (f"?{url.query}" if url.query else "") for url in urls]
        results = await asyncio.gather(*(protocol.fetch(path) for path in paths), return_exceptions=True)
        key_updates = protocol.key_updates
    failures = 0
    for url, result in zip(urls, results):
        if isinstance(result, BaseException):
            print(f"{url.path}: {result}", file=sys.stderr)
            failures += 1
        else:
            (options.output / pathlib.PurePosixPath(url.path).name).write_bytes(result)
    total = sum(len(result) for result in results if isinstance(result, bytes))
    print(
        f"{len(urls) - failures} of {len(urls)} files, {total} bytes, {time.monotonic() - start:.2f} s, "
        f"{key_updates} key updates"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except (ConnectionError, OSError) as error:
        sys.exit(f"{error or 'the server cannot be reached'}")
