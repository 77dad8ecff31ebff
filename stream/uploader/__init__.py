"""The drone's side: photos go from a card or a folder to the log, each once, through any outage."""

from __future__ import annotations

from stream.uploader.destination import Destination
from stream.uploader.outbox import Outbox
from stream.uploader.report import Flight, Options, Progress, Refused, Report, Sent
from stream.uploader.uploader import Uploader

__all__ = ["Destination", "Flight", "Options", "Outbox", "Progress", "Refused", "Report", "Sent", "Uploader"]
