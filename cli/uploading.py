"""Checks a file, puts it into the bucket, and follows the upload until its account closes."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer
from boto3.s3.transfer import TransferConfig

from cli.errors import UserError, asking
from cli.reports import CLOSED, ENDED, AccountAnswer, Reports
from cli.show import printable
from common.errors import PermanentError
from uploads.formats.contents import LOOKED_AT_BYTES, Beginning, look
from uploads.upload import DELIMITERS, delimiter_of, field_metadata, format_of, upload_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cli.target import Target

# The ETag of an object that was put in parts depends on their size. Fixed here, so that the same file is the same
# upload whenever and wherever it is loaded.
PART_BYTES = 64 * 1024**2
_PARTS = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES)

REGISTER_SECONDS = 120.0
"""How long a notification may take before the user is told that none came."""
_COUNTS = ("lines", "inserted", "rejected", "conflicting", "repeated", "missing")


@dataclass(frozen=True, slots=True)
class Options:
    """How the lines of a file are to be read."""

    id_field: str | None = None
    key_field: str | None = None
    delimiter: str | None = None

    def differing(self, account: AccountAnswer) -> list[str]:
        """In words, what of these an upload was registered with otherwise. It stays as it was registered."""
        pairs = {
            "--id-field": (account.get("id_field"), self.id_field),
            "--key-field": (account.get("key_field"), self.key_field),
        }
        if self.delimiter is not None:  # else the file's name says it, and that is the same
            pairs["--delimiter"] = (_named(account.get("delimiter")), self.delimiter)
        return [
            f"it was registered {_with(option, there)}; {_given(option, here)} is ignored"
            for option, (there, here) in pairs.items()
            if there != here
        ]


def _named(delimiter: str | None) -> str | None:
    return next((name for name, each in DELIMITERS.items() if each == delimiter), delimiter)


def _with(option: str, value: str | None) -> str:
    return f"with {option} {value}" if value else f"without {option}"


def _given(option: str, value: str | None) -> str:
    return f"{option} {value}" if value else f"that there is no {option} now"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of a file."""

    path: str
    upload: str
    account: AccountAnswer | None
    """None if it was not waited for and is not registered yet."""
    seconds: float
    before: str | None = None
    """When the same file was registered before, if it was."""
    ignored: list[str] = field(default_factory=list)
    """In words, the options that are ignored, because it was registered with others."""

    @property
    def closed(self) -> bool:
        """Whether every line of it is accounted for."""
        return self.account is not None and self.account["state"] == CLOSED and self.account["missing"] == 0

    @property
    def refused(self) -> int:
        """How many lines are neither rows nor repetitions of rows."""
        return 0 if self.account is None else self.account["rejected"] + self.account.get("conflicting", 0)

    def to_json(self) -> dict[str, Any]:
        """The object that ``once load --json`` prints."""
        account = self.account or {"state": "uploaded"}
        return {
            "file": self.path,
            "upload": self.upload,
            "state": account["state"],
            **{name: account.get(name) for name in _COUNTS},
            "reason": account.get("reason"),
            "seconds": round(self.seconds, 2),
            "loaded_before": self.before,
            "ignored_options": self.ignored,
        }

    def says(self) -> str:
        """What became of it, in a sentence or two."""
        account = self.account or {}
        if not self.closed:
            return f"{self.path}: {account['state']}, {account['reason'] or 'the account is not closed'}"
        before, then = "", ""
        if self.before:
            before, then = f"this file was loaded before ({_date(self.before)}), nothing to do: ", " then"
        if not self.refused:
            done = "" if before else "done, "
            return f"{self.path}: {before}{done}{account['inserted']:,} of {account['lines']:,} lines inserted{then}"
        kinds = [
            f"{account[name]:,} of {account['lines']:,} lines {word}"
            for name, word in (("rejected", "were rejected"), ("conflicting", "are in conflict"))
            if account.get(name)
        ]
        return f"{self.path}: {before}done, but {' and '.join(kinds)}: `once rejected {self.upload}`"


def _date(iso: str) -> str:
    return datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M")


def require_format(path: Path, key: str, *, param_hint: str) -> None:
    """Refuse a file whose name, as the object's key, tells no format.

    Raises
    ------
    typer.BadParameter
        It says why.
    """
    try:
        format_of(key)
    except PermanentError as error:
        raise typer.BadParameter(printable(f"{path}: {error}"), param_hint=param_hint) from error


def delimiter_named(text: str | None) -> str | None:
    """The delimiter that ``--delimiter`` names, as the object's metadata has it.

    Raises
    ------
    typer.BadParameter
        It is none.
    """
    name = "tab" if text in ("\t", "\\t") else text
    if name is not None and name not in DELIMITERS:
        raise typer.BadParameter(f"is one of {' '.join(DELIMITERS)}", param_hint="--delimiter")
    return name


def field_of(text: str | None, option: str) -> str | None:
    """The field that an option names.

    Raises
    ------
    typer.BadParameter
        It names none.
    """
    if text is not None and not text.strip():
        raise typer.BadParameter("is empty: name a field, or leave the option out", param_hint=option)
    return text


def warning(path: Path, key: str, options: Options) -> str | None:
    """What is wrong with all of a file by its first bytes, if anything is; register refuses it for the same.

    Raises
    ------
    UserError
        The file cannot be read.
    """
    known, gzip = format_of(key)
    delimiter, _ = delimiter_of(known, key, "", {})
    try:
        with path.open("rb") as file:
            head = file.read(LOOKED_AT_BYTES)
        beginning = Beginning(head, is_all=len(head) == path.stat().st_size)
        look(beginning, known, gzip=gzip, delimiter=None if options.delimiter else delimiter or ",")
    except OSError as error:
        raise UserError(f"Could not read {path}: {error.strerror or error}") from error
    except PermanentError as wrong:
        return str(wrong)
    return None


def known_before(target: Target, reports: Reports, path: Path, key: str) -> AccountAnswer | None:
    """The account of this file, if it was put under this key before.

    What S3 will call the content is worked out here. Where it turns out otherwise (a bucket encrypted by SSE-KMS), the
    file counts as a new one, which is what it will be.

    Raises
    ------
    UserError
        The file cannot be read, or the stack cannot be asked.
    """
    try:
        etag = _etag(path)
    except OSError as error:
        raise UserError(f"Could not read {path}: {error.strerror or error}") from error
    return reports.account(upload_id(target.output("UploadBucketName"), key, etag))


def _etag(path: Path) -> str:
    """The ETag that S3 gives the file: the MD5 of it, or that of its parts' MD5s and their number.

    docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
    """
    digests = []
    with path.open("rb") as file:
        while part := file.read(PART_BYTES):
            digests.append(hashlib.md5(part, usedforsecurity=False))
    if len(digests) > 1 or path.stat().st_size >= PART_BYTES:
        together = hashlib.md5(b"".join(each.digest() for each in digests), usedforsecurity=False)
        return f"{together.hexdigest()}-{len(digests)}"
    return (digests or [hashlib.md5(usedforsecurity=False)])[0].hexdigest()


def put(
    target: Target,
    path: Path,
    *,
    key: str | None = None,
    options: Options | None = None,
    sent: Callable[[int], object] | None = None,
) -> str:
    """Put a file into the upload bucket and return the id of the upload that it is.

    Parameters
    ----------
    key
        Its key; by default the file's name.
    options
        How its lines are to be read.
    sent
        Told how many bytes went out, as they go.

    Raises
    ------
    UserError
        The file cannot be read, or S3 does not take it.
    """
    bucket, key, options = target.output("UploadBucketName"), key or path.name, options or Options()
    client = target.client("s3")
    try:
        with asking(f"upload {path}"):
            client.upload_file(
                str(path),
                bucket,
                key,
                ExtraArgs={
                    "Metadata": field_metadata(options.id_field, options.key_field, options.delimiter)
                },
                Callback=sent,
                Config=_PARTS,
            )
            etag = client.head_object(Bucket=bucket, Key=key)["ETag"]
    except OSError as error:
        raise UserError(f"Could not read {path}: {error.strerror or error}") from error
    return upload_id(bucket, key, etag)


def follow(
    reports: Reports,
    upload: str,
    seen: Callable[[AccountAnswer], object],
    *,
    seconds: float | None = None,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> AccountAnswer:
    """Watch an upload until waiting changes nothing any more, and return its account.

    Parameters
    ----------
    seen
        Told every account on the way.
    seconds
        How long to wait; None: as long as it takes.

    Raises
    ------
    UserError
        The upload is not registered in time, or its account did not close in ``seconds``.
    """
    begin = clock()
    while True:
        account = reports.account(upload)
        waited = clock() - begin
        if account is None:
            if waited > min(REGISTER_SECONDS, seconds or REGISTER_SECONDS):
                raise UserError(
                    f"The upload {upload} is in the bucket, but it has not been registered after {waited:.0f} s: "
                    "look at the register function's log."
                )
        else:
            seen(account)
            if account["state"] in ENDED:
                return account
            if seconds is not None and waited > seconds:
                why = "".join(
                    f" The {note['function']} function waits: {printable(note['reason'])}."
                    for note in account.get("waiting") or []
                )
                raise UserError(
                    f"The account of upload {upload} did not close in {seconds:.0f} s (state: {account['state']}, "
                    f"missing: {account['missing']}).{why} It goes on: `once status {upload}` shows how far it is."
                )
        pause(min(1.0, 0.2 + waited / 20))
