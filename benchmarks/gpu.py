"""`make gpu-check`: on a box with a graphics card, runs the tests that need one and measures all that only one can say.

Needs no network and no more than Python, PyTorch, timm, onnx, onnxruntime, cuda-bindings, msgspec and a JPEG decoder;
TensorRT is measured where it can be imported. Writes one JSON file, of which `spanwatch bench report` makes a table.
"""

from __future__ import annotations

import argparse
import io
import itertools
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import simplejpeg

from benchmarks.card import GpuResult, ahead, frames_per_second, jpeg, rate, swap_gaps, tiles_per_second
from benchmarks.shares import ceilings, flops_of
from models.engines.bench import environment
from models.engines.gate import judge
from models.engines.gpu.device import Device
from models.engines.gpu.driver import driver_obstacle
from models.engines.gpu.engine import GpuEngine, Network
from models.engines.gpu.opening import BUCKETS, open_tensorrt, this_card, this_device
from models.engines.protocol import Engine, EngineError
from models.engines.tensorrt import TENSORRT_PRECISIONS, Order
from models.engines.trial import evidence, score_tiles
from models.release import Release
from models.releases.folder import draft

ROOT = Path(__file__).parents[1]
TESTS = ("tests/contract/test_device.py", "tests/unit/models/gpu")
SIZES = {"12 MP": (4000, 3000), "20 MP": (5472, 3648), "48 MP": (8000, 6000)}


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
        speed = 8 * rate(batches, seconds)
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
