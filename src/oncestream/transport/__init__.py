"""How requests get to DynamoDB: a protocol of one method, and two implementations of it.

- :class:`~oncestream.transport.boto3.Boto3Transport` calls a boto3 client, in threads. It needs nothing else.
- :class:`~oncestream.transport.crt.CrtTransport` uses AWS's C runtime (extra ``oncestream[crt]``). For a batch of
  1,000 records it needs a fraction of the processor time. Import it from its own module: only there is
  ``awscrt`` loaded.

A test that wants to stand in between has two places to do it. Best is a server of its own: both transports send to
``client.meta.endpoint_url``, so a boto3 client with ``endpoint_url="http://127.0.0.1:PORT"`` is all that it takes, and
sockets, signatures and timeouts are tested too. Or it brings an object with the method ``send``.
"""

from oncestream.transport.protocol import Pending, Transport

__all__ = ["Pending", "Transport"]
