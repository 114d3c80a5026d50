# SPDX-License-Identifier: Apache-2.0
"""aioquic, qh3 or aiopquic as a peer of `tern perf`: the same protocol and the same figures.

    python_peer.py STACK serve --listen HOST:PORT --cert FILE --key FILE
    python_peer.py STACK get HOST:PORT --cacert FILE [--download BYTES] [--upload BYTES]

aioquic is Python throughout; qh3 has its packets and TLS in Rust; aiopquic is picoquic, in C on a thread of its own,
with only its events in Python. The three have the same API but for a few corners, which are here.

The protocol (ALPN perf): the client opens a bidirectional stream, sends the number of bytes it wants as a big-endian
integer of 8 bytes, may then upload, and ends its side; the server then answers that many bytes and its end.
"""

import argparse
import asyncio
import importlib
import inspect
import json
import resource
import socket
import ssl
import time

APPLICATION_PROTOCOL = "perf"
#: What Tern and quinn are given, too.
DATAGRAM_SIZE = 1452
STREAM_WINDOW = 16 << 20
CONNECTION_WINDOW = 24 << 20
AES_128_GCM_SHA256 = 0x1301

#: Bytes handed to a stream at a time where the stack can say that it is full.
CHUNK = bytes(256 << 10)


class Stack:
    def __init__(self, name: str) -> None:
        self.name = name
        self.asyncio = importlib.import_module(f"{name}.asyncio")
        self.events = importlib.import_module(f"{name}.quic.events")
        self.configuration_type = importlib.import_module(f"{name}.quic.configuration").QuicConfiguration

    def configuration(self, **options):
        """The same settings under whichever of their names the stack knows."""
        known = inspect.signature(self.configuration_type).parameters
        wanted = {
            "alpn_protocols": [APPLICATION_PROTOCOL],
            "max_data": CONNECTION_WINDOW,
            "max_stream_data": STREAM_WINDOW,
            "max_datagram_size": DATAGRAM_SIZE,
            "congestion_control_algorithm": "cubic",
            "cipher_suite": AES_128_GCM_SHA256,
            "ip_family": socket.AF_INET,
        }
        if "cipher_suites" in known:
            suites = importlib.import_module(f"{self.name}.tls").CipherSuite
            wanted["cipher_suites"] = [suites(AES_128_GCM_SHA256)]
        chosen = {name: value for name, value in wanted.items() if name in known}
        return self.configuration_type(**chosen, **options)

    def protocol(self) -> type:
        """The connection class, made here because its base belongs to the stack."""
        stack = self

        class PerfProtocol(stack.asyncio.QuicConnectionProtocol):
            def __init__(self, *arguments, **options) -> None:
                super().__init__(*arguments, **options)
                self.requests: dict[int, bytes] = {}
                self.received: dict[int, int] = {}
                self.ends: dict[int, asyncio.Future] = {}
                self.tasks: set[asyncio.Task] = set()

            def quic_event_received(self, event) -> None:
                if isinstance(event, stack.events.StreamDataReceived):
                    self.data_received(event.stream_id, event.data, event.end_stream)
                elif isinstance(event, stack.events.ConnectionTerminated):
                    for end in self.ends.values():
                        if not end.done():
                            end.set_exception(ConnectionError(f"connection closed: {event.reason_phrase}"))

            def data_received(self, stream: int, data: bytes, is_end: bool) -> None:
                if stream in self.ends:
                    self.received[stream] += len(data)
                    if is_end and not self.ends[stream].done():
                        self.ends[stream].set_result(None)
                    return
                request = self.requests.get(stream, b"")
                if len(request) < 8:
                    request += bytes(data[: 8 - len(request)])
                    self.requests[stream] = request
                if is_end:
                    wanted = int.from_bytes(self.requests.pop(stream), "big")
                    task = asyncio.ensure_future(self.send(stream, b"", wanted))
                    self.tasks.add(task)
                    task.add_done_callback(self.tasks.discard)

            async def send(self, stream: int, beginning: bytes, zeros: int) -> None:
                """Sends the beginning, so many zero bytes and the end."""
                if not hasattr(self._quic, "send_stream_data_drained"):
                    # These two take any amount at once.
                    self._quic.send_stream_data(stream, beginning + bytes(zeros), end_stream=True)
                    self.transmit()
                    return
                if beginning:
                    await self._quic.send_stream_data_drained(stream, beginning)
                while zeros > 0:
                    length = min(zeros, len(CHUNK))
                    await self._quic.send_stream_data_drained(stream, CHUNK[:length])
                    zeros -= length
                await self._quic.send_stream_data_drained(stream, b"", end_stream=True)

            async def exchange(self, upload: int, download: int) -> None:
                stream = self._quic.get_next_available_stream_id()
                self.received[stream] = 0
                self.ends[stream] = asyncio.get_running_loop().create_future()
                await self.send(stream, download.to_bytes(8, "big"), upload)
                await self.ends[stream]
                if self.received[stream] != download:
                    raise ConnectionError(f"the server answered {self.received[stream]} bytes instead of {download}")

        return PerfProtocol


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def free_port(host: str) -> int:
    """aiopquic does not tell which port it got, so it is given one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


async def serve(stack: Stack, options: argparse.Namespace) -> None:
    configuration = stack.configuration(is_client=False)
    configuration.load_cert_chain(options.cert, options.key)
    host, port = options.listen
    port = port or free_port(host)
    server = await stack.asyncio.serve(
        host, port, configuration=configuration, create_protocol=stack.protocol()
    )
    print(f"ready {host}:{port}", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        server.close()


async def get(stack: Stack, options: argparse.Namespace) -> None:
    configuration = stack.configuration(is_client=True, server_name="localhost")
    configuration.verify_mode = ssl.CERT_REQUIRED
    configuration.load_verify_locations(cafile=options.cacert)
    host, port = options.server
    results = []
    for test, size in [("download", options.download), ("upload", options.upload)]:
        if not size:
            continue
        async with stack.asyncio.connect(
            host, port, configuration=configuration, create_protocol=stack.protocol()
        ) as connection:
            cpu, start = cpu_seconds(), time.monotonic()
            await connection.exchange(
                upload=size if test == "upload" else 0, download=size if test == "download" else 0
            )
            seconds, cpu = time.monotonic() - start, cpu_seconds() - cpu
        results.append(
            {
                "test": test,
                "bytes": size,
                "gigabitsPerSecond": size * 8 / seconds / 1e9,
                "seconds": seconds,
                "cpuSecondsPerGB": {"client": cpu / (size / 1e9)},
            }
        )
    print(json.dumps(results))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stack", choices=["aioquic", "qh3", "aiopquic"])
    roles = parser.add_subparsers(required=True)
    server = roles.add_parser("serve")
    server.add_argument("--listen", type=host_and_port, required=True, metavar="HOST:PORT")
    server.add_argument("--cert", required=True, metavar="FILE")
    server.add_argument("--key", required=True, metavar="FILE")
    server.set_defaults(run=serve)
    client = roles.add_parser("get")
    client.add_argument("server", type=host_and_port, metavar="HOST:PORT")
    client.add_argument("--cacert", required=True, metavar="FILE")
    client.add_argument("--download", type=int, default=0, metavar="BYTES")
    client.add_argument("--upload", type=int, default=0, metavar="BYTES")
    client.set_defaults(run=get)
    options = parser.parse_args()
    asyncio.run(options.run(Stack(options.stack), options))


if __name__ == "__main__":
    main()
