"""Lambda's event source mapping for streams, in small parts.

The rules, which do no I/O, start no threads and are told the time:

- ``records``      what moves: a record, a batch, the outcome of a delivery, a discard
- ``mapping``      a mapping and its settings, as the Lambda API names them
- ``filters``      FilterCriteria
- ``decisions``    batch + outcome + settings -> what is done, retried, discarded
- ``queue``        one shard: records in; batches, discards and a checkpoint out
- ``shards``       which shards may be read now, and from where

and the thin layer that talks to AWS or to something that speaks its API:

- ``clients``, ``sources``, ``invoke``, ``destinations``, ``checkpoints``
- ``worker``, ``run``, ``poller``   the loops of a shard, of a mapping, of them all
- ``observer``     watching it, and making it deliver twice

``local.event_source_mapping`` is the front door and the command line. A fault-injection harness needs
only ``queue.ShardQueue`` (and ``shards.Lineage`` when it reshards).
"""
