"""`spanwatch pretrain` and `spanwatch train`: from pictures to a signed release, to be taken up again after any end."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from models.engines.protocol import EngineError
from models.release import Release, ReleaseError
from models.releases.signing import key_in
from models.releases.store import ReleaseStore, site_store
from stream.cli.common import ConfigOption, JsonOption, err, guarded, load_config, out, print_json
from stream.config import EngineSection
from stream.errors import Broken, Misuse
from stream.releases import open_release, refusals, site_key, writable_store

RunOption = Annotated[
    Path, typer.Option("--out", help="Folder of this run: checkpoints, curve, and the release.", metavar="DIR")
]
ArchitectureOption = Annotated[str, typer.Option(help="lite0vit2, lite0vit3, lite0, lite0x320, lite2 or vit_small.")]
InitOption = Annotated[
    str | None, typer.Option(help="Start from a .safetensors file, or from timm:NAME (which downloads it).")
]
IdOption = Annotated[str | None, typer.Option("--id", help="The release's id; by default made of what it is.")]
TaxonomyOption = Annotated[Path, typer.Option(help="The classes, in the order of the outputs.", metavar="FILE")]
SeedOption = Annotated[int, typer.Option(help="Everything random is drawn from it.")]
ThreadsOption = Annotated[int, typer.Option(help="Cores to use.", min=1)]
DeviceOption = Annotated[str, typer.Option(help="cpu or cuda.")]
CompileOption = Annotated[
    bool, typer.Option("--compile", help="Compile the network first; takes minutes, meant for long runs on a card.")
]
TAXONOMY = Path("configs/taxonomy.toml")


def pretrain(
    sources: Annotated[list[Path], typer.Argument(help="Folders of pictures, or manifests.", metavar="SOURCE...")],
    run: RunOption = Path("out/pretrain"),
    architecture: ArchitectureOption = "lite0vit2",
    steps: Annotated[int | None, typer.Option(help="Steps of 32 tiles; 700 if not given.", min=1)] = None,
    init: InitOption = None,
    labelled: Annotated[
        Path | None, typer.Option("--probe", help="Labelled tiles to compare start and end on.", metavar="MANIFEST")
    ] = None,
    release_id: IdOption = None,
    taxonomy: TaxonomyOption = TAXONOMY,
    seed: SeedOption = 1,
    threads: ThreadsOption = 2,
    device: DeviceOption = "cpu",
    compiled: CompileOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a base release from pictures that nobody has labelled.

    The transformer learns to see what a larger image-trained network sees. Stopped at any time, the same command goes
    on where it was. Pictures of another size than a tile's are resized: cut large photos first (`spanwatch data
    convert`).

    Example: spanwatch pretrain out/data/train.csv --out out/pretrain
    """
    with guarded(), _trouble():
        course, orders = _load("models.training.course"), _load("models.training.orders")
        order = orders.BaseOrder(
            pictures=orders.pictures(sources),
            shape=_shape(architecture, taxonomy),
            taxonomy=taxonomy,
            init=init,
            labelled=labelled,
            release_id=release_id,
            settings=orders.settings(
                _load("models.training.pretrain").PretrainConfig(),
                steps=steps,
                seed=seed,
                threads=threads,
                device=device,
                compile=compiled,
            ),
        )
        _finish(_follow(course.make_base(order, run, *_home(load_config(config).engine, run))), run, as_json)


def train(
    manifest: Annotated[Path, typer.Argument(help="Labelled tiles; see `spanwatch data convert`.", metavar="MANIFEST")],
    run: RunOption = Path("out/train"),
    architecture: ArchitectureOption = "lite0vit2",
    base: Annotated[str | None, typer.Option(help="The base release to start from: an id or a folder.")] = None,
    init: InitOption = None,
    composed: Annotated[
        float | None, typer.Option(help="Share of composed tiles; 0.25 if not given.", min=0.0, max=1.0)
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder that holds textures/, to compose on photos too.", metavar="DIR", file_okay=False),
    ] = None,
    fold: Annotated[str | None, typer.Option(help="For cross-validation: test on fold K of N.", metavar="K/N")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of 32 tiles; 1200 if not given.", min=1)] = None,
    teacher_steps: Annotated[
        int,
        typer.Option(
            help="Steps of a teacher first: the same, next seed. From a base, their mean is tried too.", min=0
        ),
    ] = 0,
    release_id: IdOption = None,
    remark: Annotated[str, typer.Option(help="A sentence for the card, beside what was measured.")] = "",
    taxonomy: TaxonomyOption = TAXONOMY,
    seed: SeedOption = 1,
    threads: ThreadsOption = 2,
    device: DeviceOption = "cpu",
    compiled: CompileOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a release from labelled tiles: train, calibrate, choose thresholds, export, quantise, measure, sign.

    Photos are split by group; what the release's figures rest on was never trained on. Stopped at any time, the same
    command goes on where it was.

    Example: spanwatch train out/data/manifest.csv --base out/pretrain/releases/BASE --out out/train
    """
    with guarded(), _trouble():
        course, orders = _load("models.training.course"), _load("models.training.orders")
        if base is not None and init is not None:
            raise Misuse("--base and --init are two starts: give one of them")
        section = load_config(config).engine
        settings = orders.settings(
            _load("models.training.train").TrainConfig(),
            steps=steps,
            composed_share=composed,
            seed=seed,
            threads=threads,
            device=device,
            compile=compiled,
        )
        order = orders.TrainOrder(
            manifest=manifest,
            shape=_shape(architecture, taxonomy),
            taxonomy=taxonomy,
            base=None if base is None else _base(base, section),
            init=init,
            release_id=release_id,
            remark=remark,
            surfaces=data,
            fold=_fold(fold),
            settings=settings,
            teacher=orders.teacher_settings(settings, teacher_steps),
        )
        _finish(_follow(course.make_release(order, run, *_home(section, run))), run, as_json)


def _load(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Misuse(f"training needs more than the base install ({error}): pip install -e .[train]") from error


@contextlib.contextmanager
def _trouble() -> Iterator[None]:
    """In here, an error of `models` is one of ours, with the same sentence."""
    try:
        with refusals():
            yield
    except ValueError as error:  # manifests, taxonomies, weights and plans that do not fit
        raise Misuse(str(error)) from error
    except EngineError as error:  # a base release without weights to go on from
        raise Misuse(str(error)) from error
    except FloatingPointError as error:
        raise Broken(str(error)) from error


def _shape(architecture: str, taxonomy: Path) -> Any:
    architectures, taxonomies = _load("models.architecture"), _load("models.taxonomy")
    if architecture not in architectures.PRESETS:
        raise Misuse(f"no architecture {architecture!r}; there are {', '.join(architectures.PRESETS)}")
    return architectures.with_classes(architecture, len(taxonomies.load_taxonomy(taxonomy).names))


def _fold(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal()):
        raise Misuse(f"--fold takes K/N, such as 2/5, not {text!r}")
    return int(number), int(count)


def _home(section: EngineSection, run: Path) -> tuple[ReleaseStore, Path]:
    """Where the release goes and the key that signs it: the site's if the settings name a store, else the run's."""
    if section.store:
        return writable_store(section), site_key(section)
    keys = run / "keys"
    pair = key_in(keys, "site")
    return site_store(run / "releases", keys), pair.private


def _base(name: str, section: EngineSection) -> Release:
    """A base release by its id, or by its folder; beside it lie the keys of the run that made it."""
    folder = Path(name)
    if not folder.is_dir():
        return open_release(section, name)
    keys = folder.resolve().parents[1] / "keys"
    store = site_store(folder.parent, *([keys] if keys.is_dir() else []))
    try:
        return store.open(folder.resolve().name)
    except ReleaseError as error:
        raise Misuse(str(error)) from error


def _follow(steps: Iterator[Any]) -> Release:
    """Show how far each stage is; the release that stands at the end."""
    columns = (
        TextColumn("{task.description:9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err) as progress:
        bars: dict[str, Any] = {}
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                release: Release = end.value
                return release
            if step.stage not in bars:
                bars[step.stage] = progress.add_task(step.stage, total=step.steps, loss=step.loss)
            progress.update(bars[step.stage], completed=step.step, loss=step.loss)


def _finish(release: Release, run: Path, as_json: bool) -> None:
    if as_json:
        print_json({"release": release.id, "folder": str(release.folder), "digest": release.digest})
        return
    out.print(f"{release.id} is in {release.folder}; its card: {release.folder / 'MODEL_CARD.md'}", soft_wrap=True)
    keys = run / "keys"
    if keys.is_dir():
        out.print(
            f"to run it: SPANWATCH_ENGINE__STORE={release.folder.parent} SPANWATCH_ENGINE__TRUSTED_KEYS={keys} "
            f"spanwatch run PHOTO --out DIR, with SPANWATCH_ENGINE__RELEASE={release.id}",
            soft_wrap=True,
        )
