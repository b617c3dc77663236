"""``make chaos``: the local stack loads records while its parts are broken, and the account has to close all the same.

``plan`` says what is done when (by a seed), ``inputs`` what is sent, ``wire`` and ``addon`` what happens to requests on
the wire, ``faults`` how the rest is broken, ``journal`` and ``watch`` note what happened, ``account`` compares what is
in Postgres with what was sent, ``outcome`` holds what came of it, ``report`` and ``chart`` make a page of that,
``run`` brings them together.
"""
