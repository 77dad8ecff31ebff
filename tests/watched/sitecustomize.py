"""Python imports this in every process that is started with this folder on PYTHONPATH: it notes who speaks to whom."""

import os
import sys

LOG = os.environ.get("CONNECTIONS_LOG")
SPEAKS = {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname"}
THIS_BOX = {"127.0.0.1", "::1", "localhost", "", None}


def watch(event: str, args: tuple[object, ...]) -> None:
    if event not in SPEAKS:
        return
    address = args[1] if event in {"socket.connect", "socket.sendto", "socket.sendmsg"} else args[:1]
    host = address[0] if isinstance(address, tuple) else None  # else the path of a Unix socket, or connected before
    if host not in THIS_BOX:
        with open(str(LOG), "a", encoding="utf-8") as log:  # noqa: PTH123 - nothing imported that need not be
            log.write(f"{event} {address!r} by {' '.join(sys.argv)}\n")
        raise PermissionError(f"no network in this test: {event} {address!r}")


if LOG:
    sys.addaudithook(watch)
