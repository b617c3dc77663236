"""A file becomes an upload: put into the bucket, followed until its account closes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer
from boto3.s3.transfer import TransferConfig

from cli.errors import UserError, asking
from cli.reports import CLOSED, ENDED, Account, Reports
from common.errors import PermanentError
from uploads.upload import field_metadata, format_of, upload_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cli.target import Target

# The ETag of an object that was put in parts depends on their size. Fixed here, so that the same file is the same
# upload whenever and wherever it is loaded.
_PARTS = TransferConfig(multipart_threshold=64 * 1024**2, multipart_chunksize=64 * 1024**2)

REGISTER_SECONDS = 120.0
"""How long a notification may take before the user is told that none came."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of a file."""

    path: str
    upload: str
    account: Account | None
    """None if it was not waited for and is not registered yet."""
    seconds: float

    @property
    def closed(self) -> bool:
        """Whether every line of it is accounted for."""
        return self.account is not None and self.account["state"] == CLOSED and self.account["missing"] == 0

    def to_json(self) -> dict[str, Any]:
        """The object that ``once load --json`` prints."""
        account = self.account or {"state": "uploaded"}
        names = ("lines", "inserted", "rejected", "repeated", "missing")
        return {
            "file": self.path,
            "upload": self.upload,
            "state": account["state"],
            **{name: account.get(name) for name in names},
            "reason": account.get("reason"),
            "seconds": round(self.seconds, 2),
        }


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
        raise typer.BadParameter(f"{path}: {error}", param_hint=param_hint) from error


def put(
    target: Target,
    path: Path,
    *,
    key: str | None = None,
    id_field: str | None = None,
    key_field: str | None = None,
    sent: Callable[[int], object] | None = None,
) -> str:
    """Put a file into the upload bucket and return the id of the upload that it is.

    Parameters
    ----------
    key
        Its key; by default the file's name.
    id_field, key_field
        The fields that hold a line's record id and its partition key.
    sent
        Told how many bytes went out, as they go.

    Raises
    ------
    UserError
        The file cannot be read, or S3 does not take it.
    """
    bucket, key = target.output("UploadBucketName"), key or path.name
    client = target.client("s3")
    try:
        with asking(f"upload {path}"):
            client.upload_file(
                str(path),
                bucket,
                key,
                ExtraArgs={"Metadata": field_metadata(id_field, key_field)},
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
    seen: Callable[[Account], object],
    *,
    seconds: float | None = None,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Account:
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
                raise UserError(
                    f"The account of upload {upload} did not close in {seconds:.0f} s (state: {account['state']}, "
                    f"missing: {account['missing']}). It goes on: `once status {upload}` shows how far it is."
                )
        pause(min(1.0, 0.2 + waited / 20))
