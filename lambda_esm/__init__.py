"""Lambda's event source mapping for streams, on this machine: polls Kinesis and DynamoDB streams and
invokes functions.

Emulators of AWS poll streams by simpler rules than Lambda's (some lose the records that a function reports
as failed), and ``sam local start-lambda`` does not poll at all. This poller follows the documented rules:
batches by number, bytes and time; partial batch responses; bisecting; retries bounded by number and by age;
throttling that costs no retry; filters; several batches of a shard at once with each key in order;
on-failure destinations; parents before children after a reshard.

From the command line: ``lambda-esm --help``. From Python::

    with StreamPoller(Clients(endpoint), functions=["consumer"], observer=MyObserver()) as poller:
        ...  # put records on the stream
        poller.wait_until_drained(timeout=60)

The names in ``__all__`` are the public interface. Inside, the rules do no I/O, start no threads and are told
the time:

- ``records``      what moves: a record, a batch, the outcome of a delivery, a discard
- ``mapping``      a mapping and its settings, as the Lambda API names them
- ``filters``      FilterCriteria
- ``decisions``    batch + outcome + settings -> what is done, retried, discarded
- ``queue``        one shard: records in; batches, discards and a checkpoint out
- ``shards``       which shards may be read now, and from where

and a thin layer talks to AWS or to something that speaks its API:

- ``clients``, ``sources``, ``invoke``, ``destinations``, ``checkpoints``
- ``template``, ``lookup``   mappings from a template, and where its streams are
- ``worker``, ``run``, ``poller``   the loops of a shard, of a mapping, of them all
- ``observer``, ``metrics``, ``output``   watching it, and making it deliver twice
- ``pytest_plugin`` the fixture ``event_source_mapping``
- ``cli``          the command line

A fault-injection harness needs only ``ShardQueue`` (and ``Lineage`` when it reshards).
"""

from lambda_esm.checkpoints import CheckpointStore, FileCheckpoints, MemoryCheckpoints
from lambda_esm.clients import Clients
from lambda_esm.invoke import HandlerInvoker, Invoker, LambdaInvoker, UrlInvoker
from lambda_esm.mapping import Backoff, EventSourceMapping, InvalidMappingError, MappingSettings
from lambda_esm.metrics import Totals
from lambda_esm.observer import Delivery, Observer, Progress, Redeliver, every, never
from lambda_esm.poller import StreamPoller
from lambda_esm.queue import ShardQueue
from lambda_esm.records import (
    Answered,
    Batch,
    CheckpointLost,
    Discard,
    FunctionFailed,
    NotInvoked,
    StreamRecord,
    Window,
)
from lambda_esm.shards import Lineage, Shard

__all__ = [
    "Answered",
    "Backoff",
    "Batch",
    "CheckpointLost",
    "CheckpointStore",
    "Clients",
    "Delivery",
    "Discard",
    "EventSourceMapping",
    "FileCheckpoints",
    "FunctionFailed",
    "HandlerInvoker",
    "InvalidMappingError",
    "Invoker",
    "LambdaInvoker",
    "Lineage",
    "MappingSettings",
    "MemoryCheckpoints",
    "NotInvoked",
    "Observer",
    "Progress",
    "Redeliver",
    "Shard",
    "ShardQueue",
    "StreamPoller",
    "StreamRecord",
    "Totals",
    "UrlInvoker",
    "Window",
    "every",
    "never",
]
