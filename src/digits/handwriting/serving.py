"""A web application served from this process."""

import os
import socket

import numpy as np
import waitress
from flask import Flask

from digits import IMAGE_SIDE, DigitsError

ANY = np.full((1, IMAGE_SIDE, IMAGE_SIDE), 255, np.uint8)  # image, to have a network compiled


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens, before anything slow is done.

    Raises:
        DigitsError: the port is taken, or the host is not this machine.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        # What Python itself adds is said already.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise DigitsError(
            f"{host}:{port}: cannot listen there: {reason}; another --host or --port?"
        ) from error


def address(listening: socket.socket) -> str:
    """What to type into a browser."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def serve(app: Flask, listening: socket.socket, largest: int) -> None:
    """Answer until interrupted; what is larger than so many bytes is not even read."""
    waitress.serve(
        app,
        sockets=[listening],
        threads=4,
        ident="digits",
        max_request_body_size=largest,
        _quiet=True,
    )
