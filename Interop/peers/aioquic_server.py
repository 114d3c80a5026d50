# SPDX-License-Identifier: Apache-2.0
"""An HTTP/0.9 server on aioquic: ALPN hq-interop, `GET /path` and FIN on a bidirectional stream, answered with the
file's bytes and FIN.

`GET /slow/PATH?chunk=BYTES&pause=SECONDS` sends the same bytes with a pause after every chunk. In the pauses nothing is
in flight and the client owes no acknowledgement: a NAT that rebinds then leaves the server sending to a dead address
until the client speaks on its own account.

With --preferred-address, clients are asked to move there. Prints `ready HOST:PORT`, and for each connection that ends `closed addresses=N`: how many addresses it came from.
"""

import argparse
import asyncio
import logging
import os
import pathlib
import urllib.parse

import aioquic_preferred
from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent, StreamDataReceived

ROOT = pathlib.Path()


def find_file(path: str) -> pathlib.Path | None:
    """The file that a URL path names, if it is one below the root."""
    candidate = (ROOT / urllib.parse.unquote(path).lstrip("/")).resolve()
    return candidate if candidate.is_relative_to(ROOT) and candidate.is_file() else None


class FileProtocol(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.requests: dict[int, bytes] = {}
        self.addresses: set = set()
        self.tasks: set[asyncio.Task] = set()

    def datagram_received(self, data: bytes, addr) -> None:
        self.addresses.add(addr)
        super().datagram_received(data, addr)

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, StreamDataReceived) and event.stream_id % 4 == 0:
            request = self.requests.get(event.stream_id, b"") + event.data
            self.requests[event.stream_id] = request
            if len(request) > 4096:
                self._quic.reset_stream(event.stream_id, 1)
            elif event.end_stream:
                task = asyncio.ensure_future(self.answer(event.stream_id, self.requests.pop(event.stream_id)))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
        elif isinstance(event, ConnectionTerminated):
            for task in self.tasks:
                task.cancel()
            print(f"closed addresses={len(self.addresses)} code={event.error_code} {event.reason_phrase}", flush=True)

    async def answer(self, stream_id: int, request: bytes) -> None:
        words = request.decode("ascii", "replace").split()
        if len(words) != 2 or words[0] != "GET":
            return self.refuse(stream_id)
        target = urllib.parse.urlsplit(words[1])
        if not target.path.startswith("/slow/"):
            file = find_file(target.path)
            if file is None:
                return self.refuse(stream_id)
            self._quic.send_stream_data(stream_id, file.read_bytes(), end_stream=True)
            self.transmit()
            return
        file = find_file(target.path.removeprefix("/slow"))
        if file is None:
            return self.refuse(stream_id)
        query = urllib.parse.parse_qs(target.query)
        chunk = int(query.get("chunk", ["65536"])[0])
        pause = float(query.get("pause", ["0.25"])[0])
        data = file.read_bytes()
        for start in range(0, len(data), chunk):
            end = min(start + chunk, len(data))
            self._quic.send_stream_data(stream_id, data[start:end], end_stream=end == len(data))
            self.transmit()
            await asyncio.sleep(pause)

    def refuse(self, stream_id: int) -> None:
        self._quic.reset_stream(stream_id, 1)
        self.transmit()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, type=pathlib.Path)
    parser.add_argument("--listen", default="127.0.0.1:0")
    parser.add_argument("--certificate", required=True)
    parser.add_argument("--private-key", required=True)
    parser.add_argument("--retry", action="store_true", help="validate addresses with a Retry packet")
    parser.add_argument("--preferred-address", metavar="HOST:PORT", help="another address, to which clients shall move")
    parser.add_argument("--idle-timeout", type=float, default=30)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.DEBUG if options.verbose else logging.ERROR)

    global ROOT
    ROOT = options.root.resolve()
    key_log = os.environ.get("SSLKEYLOGFILE")
    configuration = QuicConfiguration(
        is_client=False,
        alpn_protocols=["hq-interop"],
        idle_timeout=options.idle_timeout,
        max_data=16 << 20,
        max_stream_data=4 << 20,
        secrets_log_file=open(key_log, "a") if key_log else None,
    )
    configuration.load_cert_chain(options.certificate, options.private_key)
    host, _, port = options.listen.rpartition(":")
    if options.preferred_address:
        preferred_host, _, preferred_port = options.preferred_address.rpartition(":")
        preferred = await aioquic_preferred.open_socket(preferred_host.strip("[]"), int(preferred_port))
        aioquic_preferred.announce(preferred[0].get_extra_info("sockname")[:2])
    server = await serve(
        host.strip("[]"), int(port), configuration=configuration, create_protocol=FileProtocol, retry=options.retry
    )
    address = server._transport.get_extra_info("sockname")
    if options.preferred_address:
        aioquic_preferred.join(server, *preferred)
    print(f"ready {address[0]}:{address[1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
