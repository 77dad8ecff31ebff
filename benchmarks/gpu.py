"""`make gpu-check`: on a box with a graphics card, runs the tests that need one and measures all that only one can say.

Needs no network and no more than Python, PyTorch, timm, onnx, onnxruntime, cuda-bindings, msgspec and a JPEG decoder;
TensorRT is measured where it can be imported. Writes one JSON file, of which `spanwatch bench report` makes a table.
"""

from __future__ import annotations

import argparse
import itertools
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import simplejpeg

from benchmarks.card import SWAPS, GpuResult, ahead, frames_per_second, jpeg, rate, swap_gaps, tiles_per_second
from benchmarks.shares import PRODUCT, ceilings, flops_of
from models.engines.bench import environment
from models.engines.gate import judge
from models.engines.gpu.device import Device, NotHere
from models.engines.gpu.driver import driver_obstacle
from models.engines.gpu.engine import Network, OwningEngine
from models.engines.gpu.opening import BUCKETS, TensorRtEngine, open_tensorrt, this_card, this_device
from models.engines.protocol import Engine, EngineError
from models.engines.tensorrt import TENSORRT_PRECISIONS, Order
from models.engines.trial import evidence, score_tiles
from models.release import Release
from models.releases.folder import draft

ROOT = Path(__file__).parents[1]
TESTS = ("tests/contract/test_device.py", "tests/unit/models/gpu")
PLAIN = {"ViT-S/16": {"width": 384, "heads": 6}, "ViT-Ti/16": {"width": 192, "heads": 3}}
PIXELS_MAY_DIFFER = 2.0
"""Of 255, on average, between the decoder on the card and the CPU's: they round and enlarge colours differently."""
SIZES = {"12 MP": (4000, 3000), "20 MP": (5472, 3648), "48 MP": (8000, 6000)}


Section = Iterator[GpuResult]


class Around(NamedTuple):
    """Seconds of each measurement, and threads to decode in."""

    seconds: float
    threads: int


def tests() -> Section:
    """The tests that need a card, and those of its engines on the card of numpy; a box may lack what others need."""
    options = ("--noconftest", "--continue-on-collection-errors", "-p", "no:cacheprovider", "-W", "ignore")
    command = [sys.executable, "-m", "pytest", "-q", "-rs", *options, *TESTS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout[-3000:])
    counted = re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout.splitlines()[-1] if done.stdout else "")
    words = ", ".join(f"{number} {name}" for number, name in counted) or done.stderr[-300:]
    yield GpuResult(what="tests", value=float(done.returncode), unit="exit code", note=words)


def engines(release: Release, folder: Path) -> Iterator[tuple[str, Callable[[], Engine]]]:
    """PyTorch compiled, and TensorRT where it can be imported: by name, and how to open them."""
    if find_spec("torch") is None:
        print("PyTorch is left out: it is not installed")
    else:
        from models.engines.torch_on_card import TORCH_PRECISIONS, open_torch

        for precision in TORCH_PRECISIONS:
            yield f"torch {precision}", lambda precision=precision: open_torch(release, precision)
    try:
        card = this_card()
    except EngineError as error:
        print(f"TensorRT is left out: {error}")
        return
    for one in TENSORRT_PRECISIONS:
        yield f"tensorrt {one}", lambda one=one: open_tensorrt(release, one, folder, card)


def of_release(name: str, open_engine: Callable[[], Engine], release: Release, around: Around) -> Section:
    """One engine of the shipped release: how long it takes to open, the gate, rates, whole frames, swaps."""
    seen, device = evidence(release), this_device()
    began = time.perf_counter()
    engine = open_engine()
    yield GpuResult(what="opens in", on=name, value=time.perf_counter() - began, unit="s", note="with compiling")
    verdict = judge(score_tiles(engine, seen.tiles).probabilities, seen, release.classes, engine.precision)
    note = verdict.reasons[0] if verdict.reasons else f"gate passed, {verdict.agreement:.2%} of the decisions"
    yield GpuResult(what="largest difference", on=name, value=verdict.largest, note=note)
    for bucket in engine.batch_sizes:
        speed = tiles_per_second(engine, bucket, around.seconds)
        yield GpuResult(what="engine only", on=name, case=f"{bucket} tiles", value=speed, unit="tiles/s")
    for size, pixels in SIZES.items():
        whole, decoding, alone = frames_per_second(engine, [jpeg(pixels)], around.threads, around.seconds)
        words = f"decoding alone {decoding:.1f}, engine alone {alone:.1f}"
        share = whole / min(decoding, alone)
        yield GpuResult(
            what="JPEG to scores", on=name, case=size, value=whole, unit="frames/s", share=share, note=words
        )
    engine.close()
    # PyTorch compiles at each opening, which takes minutes; a plan is read.
    yield from swap_gaps(open_engine, device.free_memory, SWAPS if name.startswith("tensorrt") else 3)
    device.close()


def most() -> Section:
    """What this card can do at most, which the shares are of."""
    for name, value in ceilings().items():
        yield GpuResult(what="ceiling", case=name, value=value, unit="TFLOP/s" if name == PRODUCT else "GB/s")


def plain_transformer(name: str, sizes: dict[str, int], on: str, release: Release, seconds: float) -> Section:
    """ViT-S/16 or ViT-Ti/16 at 256 px with random weights by one compiler, engine only."""
    from models.vit import DefectNetwork

    shape = msgspec.structs.replace(release.architecture, kind="transformer", stem="patches", depth=12, **sizes)
    network, like = DefectNetwork(shape).eval(), msgspec.structs.replace(release, architecture=shape)
    share_of_one = flops_of(network, shape.tile_size) / 1e12 / ceilings()[PRODUCT]
    kind = TensorRtEngine if on.startswith("tensorrt") else torch_kind()
    engine = kind.opened(like, this_device(), partial(compiled, network, on))
    with closing(engine):
        for bucket in engine.batch_sizes:
            speed, case = tiles_per_second(engine, bucket, seconds), f"{bucket} tiles"
            share = speed * share_of_one
            yield GpuResult(what="engine only", on=f"{name} {on}", case=case, value=speed, unit="tiles/s", share=share)


def torch_kind() -> type[OwningEngine]:
    """PyTorch is imported only where it is there."""
    from models.engines.torch_on_card import TorchOnCard

    return TorchOnCard


def compiled(network: Any, on: str, device: Device) -> Network:
    """A network by the compiler, and in the precision, that `on` names."""
    from models.engines.torch_on_card import TorchNetwork

    compiler, _, precision = on.partition(" ")
    if compiler == "torch":
        return TorchNetwork(network, precision, BUCKETS)  # type: ignore[arg-type]
    from models.training.export import traced

    side, library = network.shape.tile_size, this_card().library
    graph = traced(network, np.zeros((2, side, side, 3), dtype=np.uint8))
    return library.open(library.build(Order(graph, "f16", BUCKETS, side)).plan, "f16", device)


def decoders(seconds: float, threads: int) -> Iterator[GpuResult]:
    """JPEG on the card by torchvision beside the CPU's decoder, and how far their pixels differ."""
    import torch
    from torchvision.io import decode_jpeg

    for name, size in SIZES.items():
        data = jpeg(size)
        on_cpu = simplejpeg.decode_jpeg(data, "RGB")
        with ThreadPoolExecutor(threads) as pool:
            speed = rate(ahead(pool, lambda _, data=data: simplejpeg.decode_jpeg(data, "RGB"), threads * 2), seconds)
        yield GpuResult(what="decoding", on=f"simplejpeg, {threads} threads", case=name, value=speed, unit="frames/s")
        loaded = [torch.frombuffer(bytearray(data), dtype=torch.uint8)] * 8
        try:
            found = decode_jpeg(loaded, device="cuda")[0].permute(1, 2, 0).cpu().numpy()
        except RuntimeError as error:
            yield GpuResult(
                what="decoding", on="torchvision on the card", case=name, note=str(error).partition("\n")[0]
            )
            continue
        batches = (decode_jpeg(loaded, device="cuda")[0][0, 0, 0].item() for _ in itertools.count())
        far = np.abs(found.astype(np.int16) - on_cpu)
        words = f"pixels differ by {far.mean():.2f} on average, {int(far.max())} at most"
        if far.mean() > PIXELS_MAY_DIFFER:
            yield GpuResult(what="failed", on="torchvision on the card", case=name, note=f"another photo: {words}")
        speed = 8 * rate(batches, seconds)
        yield GpuResult(
            what="decoding", on="torchvision on the card", case=name, value=speed, unit="frames/s", note=words
        )


def sections(release: Release, folder: Path, around: Around) -> Iterator[tuple[str, Callable[[], Section]]]:
    """Everything there is to run, by name; one that fails does not keep the others from it."""
    yield "tests", tests
    yield "ceilings", most
    for name, open_engine in engines(release, folder):
        yield name, partial(of_release, name, open_engine, release, around)
    for name, sizes in PLAIN.items():
        for on in ("torch f16", "torch bf16", "tensorrt f16"):
            yield f"{name} {on}", partial(plain_transformer, name, sizes, on, release, around.seconds)
    yield "decoders", partial(decoders, around.seconds, around.threads)


def results(sections: Iterable[tuple[str, Callable[[], Section]]], only: str = "") -> Section:
    """The results of every section whose name holds these words."""
    for name, section in sections:
        if only in name:
            try:
                yield from section()
            except NotHere as error:
                yield GpuResult(what="left out", on=name, note=str(error)[:300])
            except Exception as error:  # what is measured on a card already is worth more than a clean end
                yield GpuResult(what="failed", on=name, note=f"{type(error).__name__}: {error}"[:300])


def champion() -> Path:
    """The release that ships; read here, because the store checks signatures with more than this box needs to have."""
    zoo = ROOT / "models/zoo"
    return zoo / str(msgspec.json.decode((zoo / "aliases.json").read_bytes())["champion"])


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results", help="folder of the JSON file")
    parser.add_argument("--release", type=Path, default=champion(), help="its folder")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--only", default="", help="sections whose name holds these words, for example: tensorrt")
    asked = parser.parse_args()
    if obstacle := driver_obstacle():
        sys.exit(f"gpu-check needs a graphics card: {obstacle}")
    described, release = environment(), draft(asked.release)
    device = this_device()
    described |= {"card": device.card.name, "driver": device.card.driver, "memory": device.card.memory}
    device.close()
    described["measured_at"] = datetime.now(UTC).isoformat(timespec="seconds")
    asked.out.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^a-z0-9]+", "-", described["card"].lower()).strip("-")
    path = asked.out / f"gpu_{name}_{described['measured_at'][:10]}.json"
    content = {"scenario": "gpu", "environment": described, "plan": {"release": release.id, "seconds": asked.seconds}}
    found: list[GpuResult] = []
    with tempfile.TemporaryDirectory() as folder:
        around = Around(asked.seconds, described["cores"])
        for one in results(sections(release, Path(folder), around), asked.only):
            print(*(str(part) for part in msgspec.structs.astuple(one) if part not in {"", None}), flush=True)
            found.append(one)
            # After each one: a run that is cut off keeps what it has measured.
            path.write_bytes(msgspec.json.format(msgspec.json.encode({**content, "results": found}), indent=1) + b"\n")
    print(f"written to {path}")
    if any(one.what == "failed" or (one.what == "tests" and one.value) for one in found):
        sys.exit("something failed: see above")


if __name__ == "__main__":
    main()
