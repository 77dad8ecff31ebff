"""`spanwatch release`: which releases there are, which one runs, and how one comes, goes and becomes the champion."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from models.release import CARD_FILE, CHAMPION, Release, ReleaseError
from models.releases.archive import export_release, import_release
from models.releases.foreign import ForeignModel, import_onnx
from models.releases.store import By, default_store
from models.taxonomy import Taxonomy, TaxonomyError, load_taxonomy
from stream.cli.common import FAILED, ConfigOption, JsonOption, complain, guarded, load_config, out, print_json
from stream.errors import Misuse
from stream.releases import engine_agrees, open_release, refusals, release_store, site_key, writable_store

release_app = typer.Typer(no_args_is_help=True, help="Models, their figures, and which of them is the champion.")

NameArgument = Annotated[str, typer.Argument(help="A release id or an alias.", metavar="RELEASE")]
WhyOption = Annotated[str, typer.Option("--why", help="Kept in the store's history.", metavar="TEXT")]


@release_app.command("list")
def list_(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the releases of this box; the champion is the one that runs.

    Example: spanwatch release list
    """
    with guarded():
        store = release_store(load_config(config).engine)
        with refusals():
            aliases = store.aliases()
        table = Table("release", "plays", "made", "trained", "to people", "parent")
        for name in store.ids():
            plays = [alias for alias, target in aliases.items() if target == name]
            try:
                release = store.open(name)
            except ReleaseError as error:  # one that was tampered with does not hide the others
                if as_json:
                    print_json({"id": name, "aliases": plays, "refused": str(error)})
                refused = Text.assemble(("refused:", "red"), f" {error}")
                table.add_row(name, ", ".join(plays) or "–", "–", refused, "–", "–")
                continue
            if as_json:
                print_json(_summary(release, plays))
            trained = f"{sum(release.trained)} of {len(release.classes)}"
            people = str(sum(one.people for one in release.classes) or "–")
            table.add_row(name, ", ".join(plays) or "–", release.created[:10], trained, people, release.parent or "–")
        if not as_json:
            out.print(table)


@release_app.command()
def show(name: NameArgument = "champion", config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show a release's card: what it was tested on, how well it did, what it cannot do.

    Example: spanwatch release show champion
    """
    with guarded():
        release = open_release(load_config(config).engine, name)
        if as_json:
            print_json(_everything(release))
        else:
            out.print(release.path(CARD_FILE).read_text(encoding="utf-8"))


@release_app.command()
def verify(name: NameArgument = "champion", config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Check a release's signature, every file, and its golden tiles on this very processor; exit 1 if one is wrong.

    Example: spanwatch release verify champion
    """
    with guarded():
        store = release_store(load_config(config).engine)
        with refusals():
            wanted = store.resolve(name)
        try:
            release = store.audit(wanted, engine_agrees)
        except ReleaseError as error:
            if as_json:
                print_json({"id": wanted, "verified": False, "refused": str(error)})
            complain(error)
            raise typer.Exit(FAILED) from error
        signer = store.signer(release).name
        if as_json:
            print_json({"id": release.id, "verified": True, "digest": release.digest, "signed_by": signer})
        else:
            out.print(f"{release.id}: {len(release.files)} files as signed by {signer}, golden tiles agree")


@release_app.command()
def promote(
    name: NameArgument,
    role: Annotated[
        Literal["champion", "candidate", "shadow"], typer.Option("--as", help="What the release is to be called.")
    ] = "champion",
    why: WhyOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a release the champion, after checking it as `verify` does; roles that start from now on run it.

    As candidate or shadow it is checked too and gets that name alone, for `engine check --release candidate` and the
    like.

    Example: spanwatch release promote pier-7-tuned --why "better on the east quay"
    """
    with guarded():
        store = writable_store(load_config(config).engine)
        by = By(getpass.getuser(), why)
        with refusals():
            if role == CHAMPION:
                release = store.promote(name, by, engine_agrees)
            else:
                release = store.point(role, name, by, engine_agrees)
        _say_aliases(release, role, store.aliases(), as_json)


@release_app.command()
def rollback(why: WhyOption = "", config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Make the release champion that was it before, after checking it as `verify` does; a second time, the newer again.

    Example: spanwatch release rollback --why "false alarms on wet concrete"
    """
    with guarded():
        store = writable_store(load_config(config).engine)
        with refusals():
            release = store.rollback(By(getpass.getuser(), why), engine_agrees)
        _say_aliases(release, CHAMPION, store.aliases(), as_json)


@release_app.command()
def export(
    name: NameArgument,
    target: Annotated[Path, typer.Argument(help="The file to write.", metavar="FILE.tar")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a release to one .tar file, to carry to another box.

    Example: spanwatch release export champion champion.tar
    """
    with guarded():
        release = open_release(load_config(config).engine, name)
        with refusals():
            export_release(release, target)
        if as_json:
            print_json({"id": release.id, "digest": release.digest, "file": str(target)})
        else:
            out.print(f"{release.id} is in {target}", soft_wrap=True)


@release_app.command("import")
def import_(
    source: Annotated[Path | None, typer.Argument(help="A .tar or a folder.", metavar="SOURCE")] = None,
    onnx: Annotated[Path | None, typer.Option("--onnx", help="A model made elsewhere.", metavar="FILE")] = None,
    taxonomy: Annotated[
        Path | None, typer.Option("--taxonomy", help="With --onnx: its classes, in their order.", metavar="FILE")
    ] = None,
    release_id: Annotated[str | None, typer.Option("--id", help="With --onnx: the release's id.")] = None,
    logits: Annotated[bool, typer.Option("--logits", help="With --onnx: it gives logits, not probabilities.")] = False,
    key: Annotated[
        Path | None, typer.Option("--key", help="With --onnx: the private key to sign with.", metavar="FILE")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a release into the site's own store: one that another box exported, or a model made elsewhere.

    A release must be signed with a key that is trusted here, and nothing of it may have changed.

    A model made elsewhere is one ONNX file: input uint8 of n x side x side x 3 (RGB, any n, scaling inside the graph);
    outputs float32 of n x classes (probabilities), then n x width (embeddings) if there are any. It is signed with the
    site's key, its thresholds are 0.5, and all its classes go to people.

    Example: spanwatch release import champion.tar
    """
    with guarded():
        if (source is None) == (onnx is None) or (onnx is None) != (taxonomy is None):
            raise Misuse("name a .tar or a folder, or else --onnx FILE with --taxonomy FILE")
        settings = load_config(config)
        if onnx is not None and taxonomy is not None:
            model = ForeignModel(onnx, _taxonomy(taxonomy), release_id, logits)
            signing = key or site_key(settings.engine)
            store = writable_store(settings.engine)
            with refusals():
                release = import_onnx(store, model, default_store().open(), signing, engine_agrees)
        elif source is not None:
            store = writable_store(settings.engine)
            with refusals():
                release = import_release(store, source, engine_agrees)
        if as_json:
            print_json(_summary(release, []))
            return
        out.print(f"{release.id} is in {store.folder}; it runs after: spanwatch release promote {release.id}")
        if onnx is not None:
            out.print(f"It was never evaluated: spanwatch evaluate MANIFEST.csv --release {release.id}")


def _taxonomy(path: Path) -> Taxonomy:
    try:
        return load_taxonomy(path)
    except TaxonomyError as error:
        raise Misuse(str(error)) from error


def _say_aliases(release: Release, role: str, aliases: dict[str, str], as_json: bool) -> None:
    if as_json:
        print_json({"id": release.id, "aliases": aliases})
    elif role != CHAMPION:
        champion = aliases.get(CHAMPION)
        still = f"; the champion is still {champion}" if champion else ""
        out.print(f"{release.id} is the {role}{still}", soft_wrap=True)
    else:
        before = aliases.get("previous")
        out.print(f"{release.id} is the champion" + (f"; before it was {before}" if before else ""), soft_wrap=True)
        out.print("Roles that run already go on with the release they opened until they are started again.")


def _summary(release: Release, plays: list[str]) -> dict[str, Any]:
    return {
        "id": release.id,
        "aliases": plays,
        "created": release.created,
        "parent": release.parent,
        "digest": release.digest,
        "trained": [one.name for one in release.classes if one.trained],
        "people": [one.name for one in release.classes if one.people],
    }


def _everything(release: Release) -> dict[str, Any]:
    return {**msgspec.structs.asdict(release), "folder": str(release.folder), "digest": release.digest}
