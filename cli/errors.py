"""The one error of the command line, and how AWS's errors are told to its user."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


class UserError(Exception):
    """What was wrong, with which input, and what to do now: printed as it is, without a traceback."""


@contextlib.contextmanager
def asking(what: str) -> Iterator[None]:
    """Turn the errors of AWS calls into sentences. ``what`` completes "Could not ...".

    Raises
    ------
    UserError
        A call inside failed.
    """
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise UserError(
            f"Could not {what}: no AWS credentials. Sign in (`aws sso login`, `aws configure`), or set AWS_PROFILE."
        ) from error
    except NoRegionError as error:
        raise UserError(
            f"Could not {what}: no AWS region. Set AWS_REGION, or one in your profile."
        ) from error
    except ProfileNotFound as error:
        raise UserError(f"Could not {what}: {error}. Set AWS_PROFILE to one that exists.") from error
    except EndpointConnectionError as error:
        raise UserError(
            f"Could not {what}: {error} Is the stack up (`once up`), the network there?"
        ) from error
    except ClientError as error:
        told = error.response.get("Error", {})
        raise UserError(f"Could not {what}: {told.get('Message') or told.get('Code') or error}") from error
    except BotoCoreError as error:
        raise UserError(f"Could not {what}: {error}") from error
