"""Writes the JSON Schema of every noun that crosses a topic: `python -m stream.schemas configs/schemas`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from stream.messages import Alert, DeadFrame, Decision, Frame, Result

NOUNS = (Alert, DeadFrame, Decision, Frame, Result)


def schemas() -> Mapping[str, bytes]:
    """File name -> schema, JSON Schema 2020-12."""
    return {f"{noun.__name__}.json": _schema(noun) for noun in NOUNS}


def _schema(noun: type) -> bytes:
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | msgspec.json.schema(noun)
    return msgspec.json.format(msgspec.json.encode(schema, order="deterministic"), indent=2) + b"\n"


def main() -> None:
    """Write them into the folder that is named."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in schemas().items():
        (folder / name).write_bytes(schema)


if __name__ == "__main__":
    main()
