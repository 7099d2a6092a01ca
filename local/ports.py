"""Ports of the local cloud: whether one is free, and a clear word when it is not."""

from __future__ import annotations

import socket

from local.serving import LOOPBACK


class PortInUse(Exception):
    """A port that was asked for is taken; the message names the option that chooses another."""


def check_free(port: int, option: str) -> None:
    """Refuse a port that something else listens on.

    Raises
    ------
    PortInUse
        Names the port and the option.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise PortInUse(
                f"Port {port} on {LOOPBACK} cannot be used ({error.strerror}); "
                f"choose another with {option}."
            ) from None


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port
