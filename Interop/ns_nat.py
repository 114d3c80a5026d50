# SPDX-License-Identifier: Apache-2.0
"""Routers with a real NAT (nftables, connection tracking) between a client's namespace and the server's."""

import shutil

from ns_network import SERVER, Namespace


class Nat:
    """A router whose clients are seen under one of its own addresses, and a port that it chooses for each flow anew.

    A rebinding flushes what the kernel tracks: the next datagram from the inside gets another port, and until then
    nothing gets in, as the server's datagrams meet no mapping.
    """

    def __init__(self, number: int, client: Namespace, outer: "Namespace | Nat") -> None:
        self.router = Namespace(f"nat{number}")
        self.inside = f"in{number}"
        self.outside = f"out{number}"
        self.client = client
        #: The client's address, its gateway, and this router's addresses on the way to the server.
        self.address = f"10.211.{number}.2"
        self.gateway = f"10.211.{number}.1"
        self.outside_addresses = [f"10.212.{number}.{host}" for host in (2, 3, 4, 5)]
        self.current = 0
        upstream = outer.router if isinstance(outer, Nat) else outer
        self.client.ip("link", "add", self.inside, "type", "veth", "peer", "name", self.inside, "netns", self.router.name)
        self.client.ip("addr", "add", f"{self.address}/24", "dev", self.inside)
        self.router.ip("addr", "add", f"{self.gateway}/24", "dev", self.inside)
        upstream.ip("link", "add", self.outside, "type", "veth", "peer", "name", self.outside, "netns", self.router.name)
        upstream.ip("addr", "add", f"10.212.{number}.1/24", "dev", self.outside)
        for address in self.outside_addresses:
            self.router.ip("addr", "add", f"{address}/24", "dev", self.outside)
        for namespace, link in (
            (self.client, self.inside),
            (self.router, self.inside),
            (self.router, self.outside),
            (upstream, self.outside),
        ):
            namespace.ip("link", "set", link, "up")
        self.client.ip("route", "add", SERVER, "via", self.gateway, "dev", self.inside)
        self.router.ip("route", "add", SERVER, "via", f"10.212.{number}.1", "dev", self.outside)
        self.router.shell("echo 1 >/proc/sys/net/ipv4/ip_forward")
        # Nobody is told that a port is not mapped: real ones stay silent, too.
        self.router.shell(
            "nft 'add table ip tern; add chain ip tern drops { type filter hook input priority 0; }; "
            "add rule ip tern drops udp sport 4433 drop; "
            "add chain ip tern source { type nat hook postrouting priority 100; }'"
        )
        self.translate()

    @staticmethod
    def is_available() -> bool:
        return bool(shutil.which("nft") and shutil.which("conntrack"))

    @property
    def outside_address(self) -> str:
        return self.outside_addresses[self.current]

    def translate(self) -> None:
        self.router.shell(
            f"nft 'flush chain ip tern source; add rule ip tern source oifname {self.outside} "
            f"snat to {self.outside_address} fully-random'"
        )

    def rebind_port(self) -> None:
        self.router.shell("conntrack -F 2>/dev/null")

    def rebind_address(self) -> None:
        self.current = (self.current + 1) % len(self.outside_addresses)
        self.translate()
        self.rebind_port()

    def route_by_source(self, table: int = 190) -> None:
        """What comes from this network's address leaves over this network, whatever other routes say."""
        self.client.ip("route", "add", SERVER, "via", self.gateway, "dev", self.inside, "table", str(table))
        self.client.ip("rule", "add", "from", self.address, "lookup", str(table))
