"""A model made elsewhere becomes a release: its graph is looked at, its golden scores are made here, people decide."""

from __future__ import annotations

import datetime
import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.architecture import Architecture
from models.engines.openvino import Graph, Port, read_graph, run_graph
from models.engines.protocol import EngineError
from models.release import GOLDEN_FILE, MODEL_FILE, Lineage, Release, ReleaseError, ReleaseFacts
from models.releases.disk import aside
from models.releases.folder import defects_to_classes
from models.releases.store import Check, ReleaseStore
from models.releases.writing import NewRelease, check_size, write_release
from models.taxonomy import Taxonomy

EXPECTED = (
    "expected is one input uint8[n, side, side, 3] (RGB tiles, any n; scaling belongs inside the graph), and as "
    "outputs float32[n, classes] probabilities, then, if there are any, float32[n, width] embeddings"
)
HALF = 0.5
WHY = "made elsewhere, never evaluated here: 0.5 is nobody's choice"
BATCH_TOLERANCE = 1e-3
"""Largest difference of a probability when a tile is scored alone and among others."""


@dataclass(frozen=True)
class ForeignModel:
    """An ONNX file and what its outputs mean; `logits`: they are no probabilities yet, and get a sigmoid."""

    path: Path
    taxonomy: Taxonomy
    id: str | None = None
    logits: bool = False


def import_onnx(
    store: ReleaseStore, model: ForeignModel, like: Release, key: Path, check: Check = lambda _: None
) -> Release:
    """Make a release of a model made elsewhere, signed with the site's private `key`.

    The golden tiles of `like` are kept with what the model says of them in float32. All its thresholds are 0.5 and all
    its classes go to people: nothing is known about it. Raises ReleaseError for a graph of another form.
    """
    content = _read(model.path)
    digest = hashlib.sha256(content).hexdigest()
    with aside(store.folder) as folder:
        file = folder / MODEL_FILE
        file.write_bytes(_with_sigmoid(content, model.path) if model.logits else content)
        try:
            shape = architecture_of(read_graph(file), len(model.taxonomy.defects), model.path)
            tiles = fit(_golden_of(like), shape.tile_size)
            np.savez_compressed(folder / GOLDEN_FILE, tiles=tiles, probabilities=_reference(file, tiles, model))
        except EngineError as error:
            raise ReleaseError(f"{model.path}: {error}; {EXPECTED}") from error
        facts = ReleaseFacts(
            id=model.id or default_id(model.path, digest),
            parent=None,
            created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            architecture=shape,
            classes=tuple(
                msgspec.structs.replace(one, trained=True, high=HALF, low=HALF, people=True, why=WHY)
                for one in defects_to_classes(model.taxonomy)
            ),
            lineage=Lineage(
                origin=f"a model made elsewhere, imported from {model.path.name}",
                training={"training": "unknown", "evaluation": "never evaluated here (`spanwatch evaluate` does it)"},
                data={model.path.name: digest},
                credits=like.lineage.credits,  # its golden tiles keep their licences
            ),
        )
        return write_release(store, NewRelease(facts, lambda into: _move(folder, into), check), key)


def architecture_of(graph: Graph, classes: int, path: Path) -> Architecture:
    """Tile size and width of a foreign graph (a width of 0: no embeddings); raises ReleaseError if it does not fit."""
    form = f"it has inputs {_ports(graph.inputs)} and outputs {_ports(graph.outputs)}; {EXPECTED}"
    if len(graph.inputs) != 1 or len(graph.outputs) not in {1, 2}:
        raise ReleaseError(f"{path}: {form}")
    [tiles], [first, *rest] = graph.inputs, graph.outputs
    match tiles.shape:
        case (None, int(side), int(other), 3) if side == other and tiles.kind == "u8":
            pass
        case _:
            raise ReleaseError(f"{path}: {form}")
    if any(one.kind != "f32" or len(one.shape) != 2 for one in graph.outputs):
        raise ReleaseError(f"{path}: {form}")
    if first.shape[1] != classes:
        raise ReleaseError(f"{path}: it scores {first.shape[1]} classes, the taxonomy names {classes}")
    width = rest[0].shape[1] if rest else 0
    if width is None:
        raise ReleaseError(f"{path}: {form}")
    return Architecture(tile_size=side, classes=classes, width=width, depth=0, heads=0, levels=(), kind="foreign")


def default_id(path: Path, digest: str) -> str:
    """The file's name and the first digits of its sha256, as an id."""
    words = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._") or "model"
    return f"{words[:60]}-{digest[:8]}"


def fit(tiles: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Golden tiles of another size, uint8[n, side, side, 3]: cut, or mirrored at their edges; nothing is resampled."""
    cut = tiles[:, :side, :side]
    short = side - cut.shape[1]
    return np.pad(cut, ((0, 0), (0, short), (0, short), (0, 0)), mode="symmetric")


def _golden_of(release: Release) -> NDArray[np.uint8]:
    """The golden tiles of another release, uint8[n, side, side, 3]."""
    with np.load(release.path(GOLDEN_FILE), allow_pickle=False) as golden:
        tiles: NDArray[np.uint8] = golden["tiles"]
    return tiles


def _reference(file: Path, tiles: NDArray[np.uint8], model: ForeignModel) -> NDArray[np.float32]:
    """float32[n, classes]; raises ReleaseError for what cannot be probabilities or depends on a tile's neighbours."""
    found = run_graph(file, tiles)[0]
    if not ((found >= 0.0) & (found <= 1.0)).all():
        raise ReleaseError(
            f"{model.path}: its scores lie between {found.min():.3g} and {found.max():.3g} and are no probabilities; "
            "if they are logits, say --logits"
        )
    if np.abs(run_graph(file, tiles[:1])[0] - found[:1]).max() > BATCH_TOLERANCE:
        raise ReleaseError(f"{model.path}: a tile's scores depend on the tiles beside it; export it for inference")
    return found


def _with_sigmoid(content: bytes, path: Path) -> bytes:
    """The same model with its first output turned from logits into probabilities."""
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    except ImportError as error:
        raise ReleaseError("--logits needs the package onnx: pip install onnx, or export with the sigmoid") from error
    try:
        model = onnx.load_model_from_string(content)
        output = model.graph.output[0]
    except (DecodeError, IndexError) as error:
        raise ReleaseError(f"{path}: no ONNX model: {error}") from error
    model.graph.node.append(onnx.helper.make_node("Sigmoid", [output.name], ["probabilities_of_logits"]))
    output.name = "probabilities_of_logits"
    return bytes(model.SerializeToString())


def _read(path: Path) -> bytes:
    try:
        check_size(1, path.stat().st_size, path)
        return path.read_bytes()
    except OSError as error:
        raise ReleaseError(f"{path}: {error.strerror}") from error


def _move(source: Path, into: Path) -> None:
    for path in source.iterdir():
        shutil.move(path, into / path.name)


def _ports(ports: tuple[Port, ...]) -> str:
    return ", ".join(f"{kind}[{', '.join(str(size or 'n') for size in shape)}]" for _, kind, shape in ports) or "none"
