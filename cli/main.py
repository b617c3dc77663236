"""``once``: load files, follow them until every line is accounted for, look at what was rejected."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from cli import demo, show, target, uploading
from cli import redrive as redriving
from cli import stream as streaming
from cli.errors import UserError
from cli.reports import CLOSED, PAGE, AccountAnswer, Reports
from local import background
from local.errors import StackError

if TYPE_CHECKING:
    from rich.progress import Progress

FAILED, USAGE, REFUSED, IGNORED = 1, 2, 3, 4
EXIT_STATUSES = """Exit status:

0: done.

1: an error: the stack cannot be asked, an upload failed or is stuck, or it is not done in time.

2: wrong usage; nothing was done.

3: `once load`: done, but more lines than --max-rejected were rejected or are in conflict with other records.

4: `once load`: the file was loaded before with other options, which cannot be changed."""

app = typer.Typer(
    help="Oncestream: files become rows in Postgres, each record exactly once.",
    epilog=EXIT_STATUSES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Stack = Annotated[
    str | None,
    typer.Option("--stack", metavar="NAME", help="A deployed stack.", show_default="the one on this machine"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
UploadId = Annotated[str | None, typer.Argument(metavar="[UPLOAD]", help="The id of an upload.")]


@app.command()
def up(
    ministack_port: Annotated[
        int | None, typer.Option(help="Port of the emulator.", show_default="a free one")
    ] = None,
    postgres_port: Annotated[
        int | None, typer.Option(help="Port of Postgres.", show_default="a free one")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Start the stack on this machine, in the background. Does nothing if it runs already."""
    found = background.running()
    state = found or background.start(
        progress=show.steps(), ministack_port=ministack_port, postgres_port=postgres_port
    )
    database = state.database
    url = f"postgresql://{database['database_user']}@{database['database_host']}:{database['database_port']}/{database['database_name']}"
    if as_json:
        show.as_json(
            {"endpoint": state.endpoint, "postgres": url, "api": state.api_url, "outputs": state.outputs}
        )
        return
    show.out.print("The stack is up." if found is None else "The stack is up already.")
    show.out.print(
        f"  AWS       {state.endpoint}\n  Postgres  {url}\n  API       {state.api_url}", soft_wrap=True
    )


@app.command()
def down() -> None:
    """End the stack on this machine. Its data is gone with the next `once up`."""
    show.out.print("The stack is down." if background.stop() else "No stack runs on this machine.")


@app.command(epilog=EXIT_STATUSES)
def load(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", exists=True, dir_okay=False, readable=True, help="NDJSON or CSV, also gzipped."
        ),
    ],
    watch: Annotated[
        bool, typer.Option("--watch/--no-watch", help="Wait until every line is accounted for.")
    ] = True,
    id_field: Annotated[
        str | None,
        typer.Option(
            help="The field that is a record's id.", show_default="an id derived from the line's place"
        ),
    ] = None,
    key_field: Annotated[
        str | None, typer.Option(help="The field that is the partition key.", show_default="the record's id")
    ] = None,
    delimiter: Annotated[
        str | None,
        typer.Option(
            metavar="CHARACTER",
            help="What separates the values of a CSV file; `tab` for tabs.",
            show_default="a comma",
        ),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="The object's key, for one file.", show_default="the file's name")
    ] = None,
    prefix: Annotated[str, typer.Option(help="Put before the file's name to make the object's key.")] = "",
    timeout: Annotated[float | None, typer.Option(min=0, help="Wait at most this many seconds.")] = None,
    max_rejected: Annotated[
        int,
        typer.Option(
            min=0,
            help="How many lines of a file may be rejected, or in conflict, before the exit status is 3.",
        ),
    ] = 0,
    stack: Stack = None,
    as_json: AsJson = False,
) -> None:
    """Upload files and follow them until their accounts close: every line a row, a rejection or a repetition.

    The same file under the same key is loaded once. Its options are those that it was first loaded with.
    """
    if key is not None and (len(files) > 1 or prefix):
        raise typer.BadParameter("is for one file, and without --prefix", param_hint="--key")
    keys = {path: key or prefix + path.name for path in files}
    options = uploading.Options(
        uploading.field_of(id_field, "--id-field"),
        uploading.field_of(key_field, "--key-field"),
        uploading.delimiter_named(delimiter),
    )
    for path in files:
        uploading.require_format(path, keys[path], param_hint="FILE")
        if (wrong := uploading.warning(path, keys[path], options)) is not None:
            show.warn(f"{show.printable(str(path))}: {wrong}")
    where = target.find(stack)
    reports = Reports(where)
    loaded = []
    with show.progress() as display:
        for path in files:
            # One after the other: the stream is shared, loading several at once would make none of them faster.
            loaded.append(
                _load(where, reports, path, keys[path], options, display, watch=watch, timeout=timeout)
            )
    if as_json:
        objects = [each.to_json() for each in loaded]
        show.as_json(objects[0] if len(objects) == 1 else objects)
    else:
        for each in loaded:
            _tell(each, reports, watched=watch)
    for each in loaded:
        for ignored in each.ignored:
            show.error(
                f"{each.path}: {ignored}. To load it with other options, give it another key (`--key`)."
            )
    status = _status(loaded, watched=watch, max_rejected=max_rejected)
    if status:
        raise typer.Exit(status)


def _load(
    where: target.Target,
    reports: Reports,
    path: Path,
    key: str,
    options: uploading.Options,
    display: Progress,
    *,
    watch: bool,
    timeout: float | None,
) -> uploading.Loaded:
    begin = time.monotonic()
    task = display.add_task(show.printable(f"{path.name}: uploading"), total=path.stat().st_size or None)
    known = uploading.known_before(where, reports, path, key)
    # What failed may be mended by the same file put once more; what is loaded, or on its way, is not.
    if known is None or known["state"] in ("failed", "stuck"):
        upload = uploading.put(where, path, key=key, options=options, sent=partial(display.advance, task))
    else:
        upload = known["upload"]
    seen = show.following(display, task, path.name)
    if known is not None and known["state"] == CLOSED:
        account: AccountAnswer | None = known
        seen(known)
    elif watch:
        account = uploading.follow(reports, upload, seen, seconds=timeout)
    else:
        account = reports.account(upload)
    if known is not None and known["state"] == "failed":
        known = None  # it was not loaded, and has been registered anew
    return uploading.Loaded(
        str(path),
        upload,
        account,
        time.monotonic() - begin,
        before=known["registered_at"] if known else None,
        ignored=options.differing(known) if known else [],
    )


def _tell(loaded: uploading.Loaded, reports: Reports, *, watched: bool) -> None:
    if loaded.account is None or not (watched or loaded.closed):
        show.say(
            f"{show.printable(loaded.path)} is upload {loaded.upload}: `once status {loaded.upload}` follows it."
        )
        return
    show.account(loaded.account)
    show.say(f"\n{show.printable(loaded.says())}")
    if loaded.refused:
        show.reasons(reports.reasons(loaded.upload, 5))
        show.say("The first of them:")
        show.rejections(reports.rejected(loaded.upload, 5) or [])


def _status(loaded: list[uploading.Loaded], *, watched: bool, max_rejected: int) -> int:
    if watched and not all(each.closed for each in loaded):
        return FAILED
    if any(each.ignored for each in loaded):
        return IGNORED
    return REFUSED if watched and any(each.refused > max_rejected for each in loaded) else 0


@app.command(epilog=EXIT_STATUSES)
def status(
    upload: UploadId = None,
    only_stream: Annotated[
        bool, typer.Option("--stream", help="The stream and why it waits, no uploads.")
    ] = False,
    stack: Stack = None,
    as_json: AsJson = False,
) -> None:
    """Show the account of an upload (exit status 0 only when it is closed); or the stream and the latest uploads.

    If something waits, the reason is shown that the waiting function has noted.
    """
    if upload is not None and only_stream:
        raise typer.BadParameter("is without an upload", param_hint="--stream")
    where = target.find(stack)
    reports = Reports(where)
    if upload is None:
        _overview(where, reports, only_stream=only_stream, json=as_json)
        return
    account = reports.account(upload)
    if account is None:
        raise UserError(f"There is no upload {upload}. `once status` lists the latest ones.")
    if as_json:
        show.as_json(account)
    else:
        show.account(account)
    if account["state"] != CLOSED:
        raise typer.Exit(FAILED)


def _overview(where: target.Target, reports: Reports, *, only_stream: bool, json: bool) -> None:
    if json and not only_stream:
        show.as_json(reports.uploads(20))
        return
    figures, stored = streaming.of(where), reports.stream()
    if json:
        show.as_json({"stream": figures.to_json(), "postgres": stored})
        return
    show.stream(figures, stored)
    if stored["database"]:
        raise typer.Exit(FAILED)  # an account needs Postgres as well
    if only_stream:
        return
    show.say("")
    if latest := reports.uploads(20):
        show.accounts(latest)
    else:
        show.say("No uploads yet. Load a file: `once load FILE`.")


@app.command()
def rejected(
    upload: UploadId = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Show at most this many.", show_default="20; with --json all")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Show all of them.")] = False,
    after: Annotated[
        str, typer.Option(metavar="PLACE", help="Go on after this place: the end of the last answer.")
    ] = "",
    stack: Stack = None,
    as_json: AsJson = False,
) -> None:
    """Show rejected records: the line in the file, the kind, the reason, the raw text.

    A record is rejected because it can never be stored as it is, or set aside as a conflict because a record with its
    id and other content was there before. Those of an upload come in the order of its file. Without an upload, the
    newest are shown; all of them (--all, --json) come in the order of their ids.
    """
    if limit is not None and everything:
        raise typer.BadParameter("goes without --limit", param_hint="--all")
    reports = Reports(target.find(stack))
    number = limit if limit or everything or as_json else 20
    if upload is None and number is not None and number <= PAGE and not after:
        newest = reports.rejected(None, number) or []
        if as_json:
            show.as_json_list(newest)
        elif newest:
            show.rejections(newest, with_origin=True)
        else:
            show.say("No rejected records.")
        if len(newest) == number and not as_json:
            show.say("There may be more: `once rejected --all`.")
        return
    pages = reports.rejected_pages(upload, number, after)
    if pages is None:
        raise UserError(f"There is no upload {upload}. `once status` lists the latest ones.")
    if as_json:
        show.as_json_list(row for page in pages for row in page.rows)
        return
    shown, behind = 0, None
    for page in pages:
        shown, behind = shown + len(page.rows), page.next
        if page.rows:
            show.rejections(page.rows, with_origin=upload is None)
    if not shown:
        show.say("No more rejected records." if after else "No rejected records.")
    if behind is not None:
        show.say(f"There may be more: add --after {behind}, or --all.")


@app.command()
def redrive(
    what: Annotated[
        redriving.What | None,
        typer.Argument(help="What to send again.", show_default="all of it"),
    ] = None,
    upload: Annotated[
        str | None, typer.Option("--upload", metavar="ID", help="Rejected records of this upload only.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    stack: Stack = None,
    as_json: AsJson = False,
) -> None:
    """Send again what was set aside: rejected records, discarded batches, dead chunk jobs, lost notifications.

    Shows what there is, and asks first. Running it twice is harmless: what is stored stays stored.
    """
    if upload is not None and what != "rejected":
        raise typer.BadParameter("goes with `once redrive rejected` only", param_hint="--upload")
    where = target.find(stack)
    redriver = redriving.Redriver(where, Reports(where))
    found = [redriver.find(each, upload) for each in ([what] if what else get_args(redriving.What))]
    found = [each for each in found if each.count]
    if not as_json:
        for each in found:
            for line in each.says:
                show.say(line)
        if not found:
            show.say("Nothing is set aside.")
    if not found or not (yes or typer.confirm("Send all this again?", err=True)):
        if as_json:
            show.as_json({each.what: {"found": each.count, "sent": 0, "left": []} for each in found})
        return
    done = {each.what: redriver.run(each.what, upload) for each in found}
    if as_json:
        counts = {each.what: each.count for each in found}
        show.as_json(
            {name: {"found": counts[name], "sent": one.sent, "left": one.left} for name, one in done.items()}
        )
    for name, one in done.items():
        if not as_json:
            show.out.print(f"{name}: {one.sent:,} sent, {len(one.left):,} left")
        for reason in one.left[:20]:
            show.error(reason)
    if any(one.left for one in done.values()):
        raise typer.Exit(FAILED)


app.command("demo")(demo.run)


def main() -> None:
    """Run the command line; what a user can cause ends in a sentence, and in one of ``EXIT_STATUSES``."""
    try:
        app()
    except (UserError, StackError) as error:
        show.error(str(error))
        raise SystemExit(FAILED) from None
