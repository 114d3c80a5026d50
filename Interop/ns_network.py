# SPDX-License-Identifier: Apache-2.0
"""Network namespaces, and networks between them, that are gone when their maker is."""

import re
import secrets
import subprocess
import time

#: The server's address, on its loopback interface: the same over whichever network it is reached.
SERVER = "10.210.0.1"
#: All its addresses there, when `Network.add_addresses` has been called.
SERVER_ADDRESSES = [SERVER, "10.210.0.9", "fd00:210::1", "fd00:210::9"]


class Failure(Exception):
    """A test that did not pass, and why in one line."""


def run(*command: str) -> str:
    """Runs a command that takes no time to speak of and returns its output."""
    text = " ".join(command)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        raise Failure(f"{text}: took too long") from None
    if done.returncode != 0:
        problem = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
        raise Failure(f"{text}: {problem}")
    return done.stdout


class Namespace:
    """A network namespace under a name that nobody else has."""

    #: Those that are to be removed. Noted here before they are made, so that none is left behind whatever happens.
    existing: list["Namespace"] = []

    def __init__(self, role: str) -> None:
        self.name = f"tern-{secrets.token_hex(4)}-{role}"
        self.existing.append(self)
        run("ip", "netns", "add", self.name)
        self.ip("link", "set", "lo", "up")
        # A datagram is taken from where we could not answer, so that an outage in one direction is just that. Where the
        # system does not let us choose, the outage is in both, which does as well.
        self.shell("for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$f; done 2>/dev/null; true")

    @classmethod
    def delete_all(cls) -> None:
        """Removes all namespaces, and with them their links, addresses and routes."""
        while cls.existing:
            subprocess.run(["ip", "netns", "del", cls.existing[-1].name], capture_output=True, timeout=20)
            cls.existing.pop()

    def ip(self, *arguments: str) -> str:
        return run("ip", "-n", self.name, *arguments)

    def shell(self, text: str) -> str:
        return run("ip", "netns", "exec", self.name, "sh", "-c", text)

    def refused_sends(self) -> int:
        """How many sends the kernel refused with ENETUNREACH so far."""
        names, values = [
            line.split()[1:] for line in self.shell("cat /proc/net/snmp").splitlines() if line.startswith("Ip:")
        ]
        return int(dict(zip(names, values))["OutNoRoutes"])

    def received_bytes(self, link: str) -> int:
        # Not from /sys, which may show another namespace's.
        for line in self.shell("cat /proc/net/dev").splitlines():
            name, _, counters = line.partition(":")
            if name.strip() == link:
                return int(counters.split()[0])
        raise Failure(f"no link {link} in {self.name}")


class Network:
    """A veth pair between a client's namespace and the server's, and the client's route to the server over it."""

    def __init__(self, number: int, client: Namespace, server: Namespace) -> None:
        self.number = number
        self.client = client
        self.server = server
        self.link = f"net{number}"
        self.subnet = f"10.210.{number}.0/24"
        self.gateway = f"10.210.{number}.1"
        self.address = f"10.210.{number}.2"
        server.ip("link", "add", self.link, "type", "veth", "peer", "name", self.link, "netns", client.name)
        for namespace, address in ((server, self.gateway), (client, self.address)):
            namespace.ip("addr", "add", f"{address}/24", "dev", self.link)
            namespace.ip("link", "set", self.link, "up")

    def add_route(self, *table: str) -> None:
        self.client.ip("route", "add", SERVER, "via", self.gateway, "dev", self.link, *table)

    def add_addresses(self) -> None:
        """Gives the server all its addresses, the network IPv6, and the client routes to them."""
        for namespace, address in ((self.server, "1"), (self.client, "2")):
            namespace.ip("addr", "add", f"fd00:210:{self.number}::{address}/64", "dev", self.link, "nodad")
        for address in SERVER_ADDRESSES:
            if ":" in address:
                self.server.ip("addr", "add", f"{address}/128", "dev", "lo")
                self.client.ip("route", "add", address, "via", f"fd00:210:{self.number}::1", "dev", self.link)
            else:
                if address != SERVER:
                    self.server.ip("addr", "add", f"{address}/32", "dev", "lo")
                self.client.ip("route", "add", address, "via", self.gateway, "dev", self.link)

    def server_link_local(self) -> str:
        """The server's link-local address on this network, when both sides may use theirs."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            texts = [
                space.ip("-6", "-o", "addr", "show", "dev", self.link, "scope", "link", "-tentative")
                for space in (self.client, self.server)
            ]
            if all(texts):
                return re.search(r"inet6 ([0-9a-f:]+)/", texts[1]).group(1)
            time.sleep(0.1)
        raise Failure(f"no link-local addresses on {self.link}")

    def remove_route(self) -> None:
        self.client.ip("route", "del", SERVER, "via", self.gateway, "dev", self.link)

    def route_by_source(self) -> None:
        """What comes from this network's address leaves over this network, whatever other routes say."""
        table = str(100 + self.number)
        self.add_route("table", table)
        self.client.ip("rule", "add", "from", self.address, "lookup", table)

    def take_down(self) -> None:
        """With the client's link its routes go."""
        self.client.ip("link", "set", self.link, "down")

    def bring_up(self, metric: int) -> None:
        """The link is up again, and whoever configures networks has added the routes."""
        self.client.ip("link", "set", self.link, "up")
        self.add_route("metric", str(metric))
        self.add_route("table", str(100 + self.number))
