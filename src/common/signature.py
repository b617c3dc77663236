"""Signature version 4 for requests that differ in nothing but target and body.

botocore derives the day's key and puts the headers in order for each request anew: 80 microseconds, where the
work that differs takes 15. tests/unit/test_lean.py compares the signatures.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Any

_ALGORITHM = "AWS4-HMAC-SHA256"


class Signature:
    """Signs POST requests to ``host`` and ``path`` with ``credentials``, botocore's, which may change.

    Source: docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """

    def __init__(
        self,
        credentials: Any,
        *,
        region: str,
        service: str,
        host: str,
        path: str,
        content_type: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._credentials = credentials
        self._region = region
        self._service = service
        self._host = host
        self._path = path
        self._content_type = content_type
        self._clock = clock
        self._key: tuple[str, str, bytes] = ("", "", b"")

    def headers(self, target: str, body: bytes) -> dict[str, str]:
        """The headers that are signed, but for ``Host``, and ``Authorization``."""
        frozen = self._credentials.get_frozen_credentials()
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock()))
        # In the order of their names, as the signature wants them.
        headers = {"Content-Type": self._content_type, "Host": self._host, "X-Amz-Date": stamp}
        if frozen.token:
            headers["X-Amz-Security-Token"] = frozen.token
        headers["X-Amz-Target"] = target
        signed = ";".join(headers).lower()
        values = "".join(f"{name.lower()}:{value}\n" for name, value in headers.items())
        request = f"POST\n{self._path}\n\n{values}\n{signed}\n{hashlib.sha256(body).hexdigest()}"
        day = stamp[:8]
        scope = f"{day}/{self._region}/{self._service}/aws4_request"
        text = f"{_ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        signature = hmac.digest(self._key_of(frozen.secret_key, day), text.encode(), "sha256").hex()
        del headers["Host"]
        headers["Authorization"] = (
            f"{_ALGORITHM} Credential={frozen.access_key}/{scope}, SignedHeaders={signed}, Signature={signature}"
        )
        return headers

    def _key_of(self, secret: str, day: str) -> bytes:
        known_secret, known_day, key = self._key
        if (secret, day) != (known_secret, known_day):
            key = f"AWS4{secret}".encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._key = (secret, day, key)
        return key
