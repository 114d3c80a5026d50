# SPDX-License-Identifier: Apache-2.0
"""A preferred address for servers on aioquic, which follows one as a client and cannot announce one (RFC 9000, section 9.6).

The connection ID with sequence number 1 and the address go into the transport parameters of every server's connection.
The preferred address is a second socket of the same server. aioquic knows a path by the peer's address alone, so what
comes in on that socket bears an address with a third element, and answers to such an address leave from there.
"""

import asyncio
import os

import aioquic.quic.connection as connection
from aioquic.quic.events import ConnectionIdIssued
from aioquic.quic.packet import QuicPreferredAddress

PREFERRED = "preferred"


def announce(address: tuple[str, int]) -> None:
    """Has all connections of servers in this process announce the address."""
    serialize = connection.QuicConnection._serialize_transport_parameters
    push = connection.push_quic_transport_parameters
    parameter: list[QuicPreferredAddress] = []

    def push_with_address(buffer, parameters) -> None:
        if parameter:
            parameters.preferred_address = parameter.pop()
        push(buffer, parameters)

    def serialize_with_address(self) -> bytes:
        if not self._is_client:
            if self._host_cid_seq == 1:
                issued = connection.QuicConnectionId(
                    cid=os.urandom(self._configuration.connection_id_length),
                    sequence_number=1,
                    stateless_reset_token=os.urandom(16),
                    was_sent=True,
                )
                self._host_cids.append(issued)
                self._host_cid_seq = 2
                self._events.append(ConnectionIdIssued(connection_id=issued.cid))
            issued = next(known for known in self._host_cids if known.sequence_number == 1)
            is_ipv6 = ":" in address[0]
            parameter.append(
                QuicPreferredAddress(
                    ipv4_address=None if is_ipv6 else address,
                    ipv6_address=address if is_ipv6 else None,
                    connection_id=issued.cid,
                    stateless_reset_token=issued.stateless_reset_token,
                )
            )
        return serialize(self)

    connection.push_quic_transport_parameters = push_with_address
    connection.QuicConnection._serialize_transport_parameters = serialize_with_address


class TwoSockets:
    """Sends from the socket that a peer's address belongs to."""

    def __init__(self, main: asyncio.DatagramTransport, preferred: asyncio.DatagramTransport) -> None:
        self.main = main
        self.preferred = preferred

    def sendto(self, data: bytes, address) -> None:
        if address[-1] == PREFERRED:
            self.preferred.sendto(data, address[:-1])
        else:
            self.main.sendto(data, address)

    def __getattr__(self, name: str):
        return getattr(self.main, name)


class PreferredSocket(asyncio.DatagramProtocol):
    """Hands what comes to the preferred address to the server."""

    def __init__(self, server: asyncio.DatagramProtocol) -> None:
        self.server = server

    def datagram_received(self, data: bytes, address) -> None:
        self.server.datagram_received(data, (*address, PREFERRED))


async def open_socket(host: str, port: int) -> tuple[asyncio.DatagramTransport, PreferredSocket]:
    """Opens the socket, of which `join` makes the server's second one."""
    loop = asyncio.get_running_loop()
    return await loop.create_datagram_endpoint(lambda: PreferredSocket(None), local_addr=(host, port))


def join(server, transport: asyncio.DatagramTransport, socket: PreferredSocket) -> None:
    socket.server = server
    server._transport = TwoSockets(server._transport, transport)
