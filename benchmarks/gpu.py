"""`make gpu-check`: on a box with a graphics card, runs the tests that need one and measures all that only one can say.

Needs no network and no more than Python, PyTorch, timm, onnx, onnxruntime, cuda-bindings, msgspec and a JPEG decoder;
TensorRT is measured where it can be imported. Writes one JSON file, of which `spanwatch bench report` makes a table.
"""

from __future__ import annotations

import argparse
import io
import itertools
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from benchmarks.shares import ceilings, flops_of
from models.engines.bench import environment
from models.engines.gate import judge
from models.engines.gpu.device import Device
from models.engines.gpu.driver import driver_obstacle
from models.engines.gpu.engine import GpuEngine, Network
from models.engines.gpu.opening import BUCKETS, open_tensorrt, this_card, this_device
from models.engines.protocol import Engine, EngineError, Tile
from models.engines.tensorrt import TENSORRT_PRECISIONS, Order
from models.engines.trial import evidence, score_tiles
from models.release import Release
from models.releases.folder import draft
from models.runner import AdmittedTile, Runner
from stream.worker.tiling import tile

ROOT = Path(__file__).parents[1]
TESTS = ("tests/contract/test_device.py", "tests/unit/models/gpu")
PHOTO = ROOT / "tests/data/flight/deck-7036.jpg"
SIZES = {"12 MP": (4000, 3000), "20 MP": (5472, 3648), "48 MP": (8000, 6000)}
SWAPS = 20
AHEAD = 3
"""Calls on their way while a rate is measured."""

Pixels = NDArray[np.uint8]


class GpuResult(msgspec.Struct, frozen=True, kw_only=True):
    """One figure: `what` of `on` (engine and precision) in which `case`; `share` of what this card could do at most."""

    what: str
    on: str = ""
    case: str = ""
    value: float | None = None
    unit: str = ""
    share: float | None = None
    note: str = ""


def tiles_per_second(engine: Engine, count: int, seconds: float) -> float:
    """Of calls of so many tiles of one photo on the card, several on their way at once, after a round to warm up."""
    side = engine.tile_size
    pixels = np.random.default_rng(0).integers(0, 256, (side * 4, side * 4, 3), dtype=np.uint8)
    photo = engine.admit(pixels)
    places = np.random.default_rng(1).integers(0, side * 3, (count, 2))
    tiles = [Tile(photo, int(y), int(x)) for y, x in places]
    pending: deque[Any] = deque()
    done, began = -AHEAD * count, 0.0
    try:
        while True:
            pending.append(engine.start(tiles))
            if len(pending) == AHEAD:
                pending.popleft().wait()
                done += count
                began = began or time.perf_counter()
                if (spent := time.perf_counter() - began) >= seconds and done > 0:
                    return done / spent
    finally:
        while pending:
            pending.popleft().wait()
        engine.evict(photo)


def grid(width: int, height: int, side: int) -> list[tuple[int, int]]:
    """Top left corners of a photo's tiles."""
    cut = tile(width, height, side)
    return [(int(y), int(x)) for y, x in itertools.product(cut.ys, cut.xs)]


def jpeg(size: tuple[int, int], photo: Path = PHOTO) -> bytes:
    """The photo at another size, as a camera would save it."""
    pixels = cv2.resize(cv2.imread(str(photo)), size, interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def frames_per_second(
    engine: Engine, photos: Sequence[bytes], threads: int, seconds: float
) -> tuple[float, float, float]:
    """Whole frames a second, from JPEG bytes to scores; decoding alone on as many threads; and the engine alone."""
    decoded = simplejpeg.decode_jpeg(photos[0], "RGB")
    height, width, _ = decoded.shape
    places = grid(width, height, engine.tile_size)

    def decode(number: int) -> Pixels:
        found: Pixels = simplejpeg.decode_jpeg(photos[number % len(photos)], "RGB")
        return found

    with ThreadPoolExecutor(threads) as pool:
        decoding = _rate(_ahead(pool, decode, threads * 2), seconds)
        photo = engine.admit(decoded)
        tiles = [Tile(photo, y, x) for y, x in places]
        alone = _rate((engine.infer(tiles) for _ in itertools.count()), seconds)
        engine.evict(photo)
        with Runner(_Kept(engine), depth=0) as runner:
            whole = _rate(_answered(runner, _ahead(pool, decode, threads * 2), places), seconds)
    return whole, decoding, alone


class _Kept:
    """An engine that a runner does not close."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def close(self) -> None:
        """Not ours to close."""


def _ahead(pool: ThreadPoolExecutor, work: Callable[[int], Pixels], count: int) -> Iterator[Pixels]:
    """Results in order, with so many of them being worked on."""
    numbers = itertools.count()
    waiting = deque(pool.submit(work, next(numbers)) for _ in range(count))
    try:
        while True:
            yield waiting.popleft().result()
            waiting.append(pool.submit(work, next(numbers)))
    finally:
        for one in waiting:
            one.cancel()


def _answered(runner: Runner, photos: Iterator[Pixels], places: Sequence[tuple[int, int]]) -> Iterator[None]:
    """Frames in order, with AHEAD of them at the engine."""
    waiting: deque[Any] = deque()
    for pixels in photos:
        photo = runner.admit(pixels)
        waiting.append((photo, runner.infer([AdmittedTile(photo, y, x) for y, x in places])))
        if len(waiting) == AHEAD:
            photo, future = waiting.popleft()
            future.result()
            runner.evict(photo)
            yield


def _rate(events: Iterator[Any], seconds: float) -> float:
    """Events a second over at least so many seconds, after three to warm up."""
    for _ in range(3):
        next(events)
    began, done = time.perf_counter(), 0
    for _ in events:
        done += 1
        if (spent := time.perf_counter() - began) >= seconds:
            break
    return done / spent


def swap_gaps(
    open_engine: Callable[[], Engine], free_memory: Callable[[], int], swaps: int = SWAPS
) -> Iterator[GpuResult]:
    """Under load: the longest pause between two answered batches around a swap, and what memory does over all."""
    engine = open_engine()
    count, side, name = engine.batch_sizes[-1], engine.tile_size, f"{type(engine).__name__} {engine.precision}"
    pixels = np.zeros((side, side, 3), dtype=np.uint8)
    gaps, usual, held = [], [], []
    with Runner(engine) as runner:
        for _ in range(swaps):
            after = open_engine()  # beside the load in a worker, before it here: what is measured is the swap
            times = []
            drained = None
            for number in range(20):
                photo = runner.admit(pixels)
                future = runner.infer([AdmittedTile(photo, 0, 0)] * count)
                if number == 9:
                    drained = runner.swap(after)
                future.result()
                times.append(time.perf_counter())
                runner.evict(photo)
            assert drained is not None
            drained.result()
            steps = np.diff(times)
            gaps.append(float(steps[8:12].max()))
            usual.append(float(np.median(steps)))
            held.append(free_memory())
    batch = statistics.median(usual)
    yield GpuResult(what="longest pause at a swap", on=name, value=1000 * max(gaps), unit="ms", share=max(gaps) / batch)
    yield GpuResult(what="memory kept by each swap", on=name, value=(held[0] - held[-1]) / 1e6 / swaps, unit="MB")


def run_tests() -> GpuResult:
    """The tests that need a card, and those of its engines on the card of numpy."""
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-W", "ignore", "-p", "no:cacheprovider", *TESTS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout[-3000:])
    counted = re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout.splitlines()[-1] if done.stdout else "")
    words = ", ".join(f"{number} {name}" for number, name in counted) or done.stderr[-300:]
    return GpuResult(what="tests", value=float(done.returncode), unit="exit code", note=words)


def engines(release: Release, folder: Path) -> Iterator[tuple[str, Callable[[], Engine]]]:
    """PyTorch compiled, and TensorRT where it can be imported: by name, and how to open them."""
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


def measured(release: Release, folder: Path, seconds: float, threads: int) -> Iterator[GpuResult]:
    """Everything about the engines of one release."""
    seen, device = evidence(release), this_device()
    photos = {name: [jpeg(size)] for name, size in SIZES.items()}
    for name, open_engine in engines(release, folder):
        began = time.perf_counter()
        try:
            engine = open_engine()
        except EngineError as error:
            yield GpuResult(what="opens", on=name, note=str(error))
            continue
        yield GpuResult(what="opens in", on=name, value=time.perf_counter() - began, unit="s", note="with compiling")
        verdict = judge(score_tiles(engine, seen.tiles).probabilities, seen, release.classes, engine.precision)
        note = verdict.reasons[0] if verdict.reasons else f"gate passed, {verdict.agreement:.2%} of the decisions"
        yield GpuResult(what="largest difference", on=name, value=verdict.largest, note=note)
        for bucket in engine.batch_sizes:
            speed = tiles_per_second(engine, bucket, seconds)
            yield GpuResult(what="engine only", on=name, case=f"{bucket} tiles", value=speed, unit="tiles/s")
        for size, bytes_of in photos.items():
            whole, decoding, alone = frames_per_second(engine, bytes_of, threads, seconds)
            least = min(decoding, alone)
            words = f"decoding alone {decoding:.1f}, engine alone {alone:.1f}"
            yield GpuResult(
                what="JPEG to scores", on=name, case=size, value=whole, unit="frames/s", share=whole / least, note=words
            )
        engine.close()
        yield from swap_gaps(open_engine, device.free_memory)
    device.close()


def plain_transformers(release: Release, seconds: float) -> Iterator[GpuResult]:
    """ViT-S/16 and ViT-Ti/16 at 256 px with random weights, engine only, against the card's measured ceilings."""
    from models.vit import DefectNetwork

    most = ceilings()
    for name, value in most.items():
        yield GpuResult(what="ceiling", case=name, value=value, unit="TFLOP/s" if "matrix" in name else "GB/s")
    for name, sizes in {"ViT-S/16": {"width": 384, "heads": 6}, "ViT-Ti/16": {"width": 192, "heads": 3}}.items():
        shape = msgspec.structs.replace(release.architecture, kind="transformer", stem="patches", depth=12, **sizes)
        network, like = DefectNetwork(shape).eval(), msgspec.structs.replace(release, architecture=shape)
        share_of_one = flops_of(network, shape.tile_size) / 1e12 / most["half-precision matrix product"]
        order = Order(exported(network, shape.tile_size), "f16", BUCKETS, shape.tile_size)
        for on, make in compiled(network, order).items():
            device = this_device()
            try:
                engine = GpuEngine(like, device, make(device), graphs=on.startswith("tensorrt"))
                engine.warm()
            except EngineError as error:
                yield GpuResult(what="opens", on=f"{name} {on}", note=str(error))
                continue
            for bucket in engine.batch_sizes:
                speed, case = tiles_per_second(engine, bucket, seconds), f"{bucket} tiles"
                share = speed * share_of_one
                yield GpuResult(
                    what="engine only", on=f"{name} {on}", case=case, value=speed, unit="tiles/s", share=share
                )
            engine.close()
            device.close()


def compiled(network: Any, order: Order) -> dict[str, Callable[[Device], Network]]:
    """A network by each compiler: by name, and how to make it for a device."""
    from models.engines.torch_on_card import TorchNetwork

    def tensorrt(device: Device) -> Network:
        library = this_card().library
        return library.open(library.build(order).plan, "f16", device)

    return {
        "torch f16": lambda _: TorchNetwork(network, "f16", order.buckets),
        "torch bf16": lambda _: TorchNetwork(network, "bf16", order.buckets),
        "tensorrt f16": tensorrt,
    }


def exported(network: Any, side: int) -> bytes:
    """ONNX of a network in float32."""
    import torch

    file = io.BytesIO()
    torch.onnx.export(
        network,
        (torch.zeros((2, side, side, 3), dtype=torch.uint8),),
        file,  # type: ignore[arg-type]
        opset_version=17,
        dynamo=False,
        input_names=["tiles"],
        output_names=["probabilities", "embeddings"],
        dynamic_axes={name: {0: "n"} for name in ("tiles", "probabilities", "embeddings")},
    )
    return file.getvalue()


def decoders(seconds: float, threads: int) -> Iterator[GpuResult]:
    """JPEG on the card by torchvision beside the CPU's decoder, and how far their pixels differ."""
    import torch
    from torchvision.io import decode_jpeg

    for name, size in SIZES.items():
        data = jpeg(size)
        on_cpu = simplejpeg.decode_jpeg(data, "RGB")
        with ThreadPoolExecutor(threads) as pool:
            speed = _rate(_ahead(pool, lambda _, data=data: simplejpeg.decode_jpeg(data, "RGB"), threads * 2), seconds)
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
        speed = 8 * _rate(batches, seconds)
        yield GpuResult(
            what="decoding", on="torchvision on the card", case=name, value=speed, unit="frames/s", note=words
        )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results")
    parser.add_argument("--release", type=Path, default=ROOT / "models/zoo/lite0vit2-256.2026-11", help="its folder")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    asked = parser.parse_args()
    if obstacle := driver_obstacle():
        sys.exit(f"gpu-check needs a graphics card: {obstacle}")
    around, release = environment(), draft(asked.release)
    device = this_device()
    around |= {"card": device.card.name, "driver": device.card.driver, "memory": device.card.memory}
    device.close()
    around["measured_at"] = datetime.now(UTC).isoformat(timespec="seconds")
    threads = around["cores"]
    results = [run_tests()]
    with tempfile.TemporaryDirectory() as folder:
        for one in itertools.chain(
            measured(release, Path(folder), asked.seconds, threads),
            plain_transformers(release, asked.seconds),
            decoders(asked.seconds, threads),
        ):
            print(*(str(part) for part in msgspec.structs.astuple(one) if part not in {"", None}), flush=True)
            results.append(one)
    asked.out.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^a-z0-9]+", "-", around["card"].lower()).strip("-")
    path = asked.out / f"gpu_{name}_{around['measured_at'][:10]}.json"
    content = {"scenario": "gpu", "environment": around, "plan": {"release": release.id, "seconds": asked.seconds}}
    path.write_bytes(msgspec.json.format(msgspec.json.encode({**content, "results": results}), indent=1) + b"\n")
    print(f"written to {path}")
    if results[0].value:
        sys.exit("tests failed: see above")


if __name__ == "__main__":
    main()
