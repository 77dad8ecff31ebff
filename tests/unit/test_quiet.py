"""Nothing leaves the box: the roles listen on loopback only, and the engine's telemetry is off."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from stream.config import Config

ROOT = Path(__file__).parents[2]

WATCHED = """
import socket, sys
calls = []
def refuse(self, address, *rest):
    calls.append(address)
    raise OSError("no network in this test")
socket.socket.connect = socket.socket.connect_ex = refuse
from stream.config import Config
from stream.worker.role import start_engine
start_engine(Config().engine).engine.close()
assert not calls, f"connected to {calls}"
from models.engines.openvino import telemetry_is_off
assert telemetry_is_off()
print("quiet")
"""


def test_loading_and_running_the_engine_opens_no_connection_and_no_telemetry() -> None:
    done = subprocess.run([sys.executable, "-c", WATCHED], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout.strip() == "quiet", done.stderr


def test_the_pages_are_on_loopback_unless_told_otherwise() -> None:
    assert Config().metrics.host == "127.0.0.1"
