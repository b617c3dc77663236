"""``lambda-esm`` without the rule that parents come before children: what the checker has to find."""

from __future__ import annotations

from collections.abc import Iterable

from lambda_esm import Lineage, Shard
from lambda_esm.cli import app

_update = Lineage.update


def update(self: Lineage, listed: Iterable[Shard]) -> dict[str, str]:
    """Take a listing in which no shard has parents."""
    return _update(self, [Shard(shard.id, (), closed=shard.closed) for shard in listed])


Lineage.update = update  # type: ignore[method-assign]
app()
