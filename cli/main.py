"""``once``: load files, follow them until every line is accounted for, look at what was rejected."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Annotated, get_args

import typer

from cli import demo, show, target, uploading
from cli import redrive as redriving
from cli.errors import UserError
from cli.reports import Reports
from local import background
from local.errors import StackError

app = typer.Typer(
    help="Oncestream: files become rows in Postgres, each record exactly once.",
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
    """Start the stack on this machine, in the background. When it runs already, nothing happens."""
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


@app.command()
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
    prefix: Annotated[str, typer.Option(help="Put before the file's name to make the object's key.")] = "",
    timeout: Annotated[float | None, typer.Option(min=0, help="Wait so many seconds at most.")] = None,
    stack: Stack = None,
    as_json: AsJson = False,
) -> None:
    """Upload files and follow them until their accounts close: every line a row, a rejection or a repetition."""
    for path in files:
        uploading.require_format(path, prefix + path.name, param_hint="FILE")
    where = target.find(stack)
    reports = Reports(where)
    loaded = []
    with show.progress() as display:
        for path in files:
            begin = time.monotonic()
            task = display.add_task(f"{path.name}: uploading", total=path.stat().st_size or None)
            upload = uploading.put(
                where, path, key=prefix + path.name, id_field=id_field, key_field=key_field,
                sent=partial(display.advance, task),
            )  # fmt: skip

            seen = show.following(display, task, path.name)
            # One after the other: the stream is shared, loading several at once would make none of them faster.
            account = (
                uploading.follow(reports, upload, seen, seconds=timeout) if watch else reports.account(upload)
            )
            loaded.append(uploading.Loaded(str(path), upload, account, time.monotonic() - begin))
    if as_json:
        objects = [each.to_json() for each in loaded]
        show.as_json(objects[0] if len(objects) == 1 else objects)
    else:
        _tell(loaded, reports, watched=watch)
    if watch and not all(each.closed for each in loaded):
        raise typer.Exit(1)


def _tell(loaded: list[uploading.Loaded], reports: Reports, *, watched: bool) -> None:
    for each in loaded:
        if each.account is None or not watched:
            show.out.print(
                f"{each.path} is upload {each.upload}: `once status {each.upload}` follows it.",
                soft_wrap=True,
            )
            continue
        show.account(each.account)
        if each.account["rejected"]:
            show.out.print(
                f"\nThe first of {each.account['rejected']:,} rejected lines (`once rejected {each.upload}`):"
            )
            show.rejections(reports.rejected(each.upload, 5) or [])


@app.command()
def status(upload: UploadId = None, stack: Stack = None, as_json: AsJson = False) -> None:
    """Show the account of an upload (exit status 0 only when it is closed), or of the latest ones."""
    reports = Reports(target.find(stack))
    if upload is None:
        latest = reports.uploads(20)
        if as_json:
            show.as_json(latest)
        elif latest:
            show.accounts(latest)
        else:
            show.out.print("No uploads yet. Load a file: `once load FILE`.")
        return
    account = reports.account(upload)
    if account is None:
        raise UserError(f"There is no upload {upload}. `once status` lists the latest ones.")
    if as_json:
        show.as_json(account)
    else:
        show.account(account)
    if account["state"] != "done":
        raise typer.Exit(1)


@app.command()
def rejected(
    upload: UploadId = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 20,
    stack: Stack = None,
    as_json: AsJson = False,
) -> None:
    """Show rejected records: the line in the file, the reason, the raw text."""
    rows = Reports(target.find(stack)).rejected(upload, limit)
    if rows is None:
        raise UserError(f"There is no upload {upload}. `once status` lists the latest ones.")
    if as_json:
        show.as_json(rows)
    elif rows:
        show.rejections(rows)
    else:
        show.out.print("No rejected records.")


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
    """Send again what was kept aside: rejected records, discarded batches, dead chunk jobs, lost notifications.

    Shows what there is and asks before it does anything. To do it twice changes nothing: what is stored is stored.
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
                show.out.print(line, markup=False, soft_wrap=True)
        if not found:
            show.out.print("Nothing is kept aside.")
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
        raise typer.Exit(1)


app.command("demo")(demo.run)


def main() -> None:
    """Run the command line; what a user can cause ends in a sentence and exit status 1."""
    try:
        app()
    except (UserError, StackError) as error:
        show.error(str(error))
        raise SystemExit(1) from None
