"""Off a Kinesis stream into Postgres: each record is one row, however often it is delivered.

CREATE TABLE orders (id text PRIMARY KEY, payload jsonb NOT NULL);
CREATE TABLE rejected_orders (id text PRIMARY KEY, reason text NOT NULL, raw bytea NOT NULL);
"""

import base64
import hashlib
import json
import os
import re
from functools import cache

import pg8000.native

INSERT_ORDERS = """
INSERT INTO orders (id, payload)
SELECT id, payload FROM jsonb_to_recordset(:rows ::jsonb) AS r (id text, payload jsonb)
ON CONFLICT (id) DO NOTHING
"""
INSERT_REJECTED = """
INSERT INTO rejected_orders (id, reason, raw)
SELECT id, reason, decode(raw, 'base64')
FROM jsonb_to_recordset(:rows ::jsonb) AS r (id text, reason text, raw text)
ON CONFLICT (id) DO NOTHING
"""
NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # U+0000 as JSON writes it


def handler(event, context):
    orders, rejected = {}, {}
    for record in event["Records"]:
        raw = base64.b64decode(record["kinesis"]["data"])
        try:
            order = parse(raw)
        except (ValueError, RecursionError) as error:
            # Raised, it would come back until it expires, and hold up its shard for as long. The same bytes
            # are the same bad record.
            name = hashlib.sha256(raw).hexdigest()
            rejected[name] = {"id": name, "reason": repr(error), "raw": base64.b64encode(raw).decode()}
        else:
            orders.setdefault(order["id"], order)
    # An error from here means that nothing of the batch is stored, and Lambda delivers it again.
    store(orders, rejected)


def parse(raw):
    """An order. ValueError: all that would make Postgres refuse the batch because of one record."""
    order = json.loads(raw)
    text = json.dumps(order, ensure_ascii=False, allow_nan=False)  # jsonb holds no NaN,
    text.encode()  # no half of a surrogate pair
    if NUL.search(text):  # and no U+0000
        raise ValueError("holds U+0000, which Postgres cannot store")
    if not isinstance(order, dict) or not isinstance(order.get("payload"), dict):
        raise ValueError('not {"id", "payload"}')
    if not isinstance(order.get("id"), str) or not 0 < len(order["id"]) <= 256:
        raise ValueError("the id is not a text of 1 to 256 characters")
    return order


def store(orders, rejected):
    """Both tables in one transaction."""
    try:
        database = connection()
        database.run("BEGIN")
        # In the order of the ids: two transactions with the same ids then wait for each other. In another
        # order they could deadlock.
        database.run(INSERT_ORDERS, rows=json.dumps([orders[each] for each in sorted(orders)]))
        database.run(INSERT_REJECTED, rows=json.dumps([rejected[each] for each in sorted(rejected)]))
        database.run("COMMIT")
    except BaseException:
        connection.cache_clear()  # whatever state it is in, the next invocation opens another one
        raise


@cache
def connection():
    """One for each execution environment, kept between invocations."""
    return pg8000.native.Connection(
        os.environ["DATABASE_USER"],
        host=os.environ["DATABASE_HOST"],
        port=int(os.environ["DATABASE_PORT"]),
        database=os.environ["DATABASE_NAME"],
        password=os.environ.get("DATABASE_PASSWORD"),
        ssl_context=os.environ.get("DATABASE_TLS") != "disable",  # True: verified
        timeout=10,
    )
