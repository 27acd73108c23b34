"""Ports that no two tests of this machine have at the same time, and that the kernel gives to nobody by itself."""

from __future__ import annotations

import random
import socket

_FROM, _TO = 20_000, 30_000
"""Below the range that connections and `bind` to port 0 get theirs from (net.ipv4.ip_local_port_range)."""

_held: list[socket.socket] = []


def reserve_port() -> int:
    """A free port on loopback, this process's own until it ends, though nothing listens there yet."""
    ports = list(range(_FROM, _TO))
    random.SystemRandom().shuffle(ports)
    for port in ports:
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0tfwatch-tests-port-{port}")
            with socket.create_server(("127.0.0.1", port)):
                pass
        except OSError:
            claim.close()
        else:
            _held.append(claim)
            return port
    raise AssertionError(f"no free port from {_FROM} to {_TO}")
