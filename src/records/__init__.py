"""The record: what travels on the stream, its JSON, and what is wrong with one that is none."""
