"""JSON as its sender wrote it: checked and split as text, never parsed and rewritten.

Parsing into Python values changes them: a double keeps 17 digits, and an integer of more than 4,300 digits is an
error. ``msgspec.Raw`` keeps a part of a document as it stands. Like Postgres, msgspec checks the whole document
against RFC 8259: it refuses ``NaN``, ``Infinity``, half a surrogate pair and a byte order mark. Pydantic's parser
accepts the first two and gives no slices. msgspec adds 0.2 MB to a function's package and 2 ms to its start.
"""

from __future__ import annotations

import re

import msgspec

from common.errors import PermanentError

BLANKS = b" \t\r\n"
"""White space between the values of a document."""

BOM = b"\xef\xbb\xbf"
"""UTF-8's mark at the beginning of a file, as some spreadsheets write it. It is no part of the data."""

_LITERAL = re.compile(rb"-?(?:NaN|Infinity)\b")
_PLACE = re.compile(r" \(byte (\d+)\)$")
# Backslashes pair up from the left: one of an odd number of them is the beginning of an escape.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*+\\u0000")
_WHOLE_CHARACTERS = re.compile(
    r"(?:[^\\]|\\[^u]|\\u(?![dD][89a-fA-F])|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})*+"
)
_HALF = re.compile(r"\\u[dD][0-9a-fA-F]{3}")

_TOO_DEEP = "nested too deeply to be read"
_KINDS = {
    b"{": "an object",
    b"[": "a list",
    b'"': "a text",
    b"t": "a boolean",
    b"f": "a boolean",
    b"n": "null",
}

_value = msgspec.json.Decoder(msgspec.Raw)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items = msgspec.json.Decoder(list[msgspec.Raw])
_text = msgspec.json.Decoder(str)

WRONG = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec's decoders raise for bytes that are not what they expect. :func:`fault_of` puts it into words."""


def value_of(data: bytes) -> bytes:
    """The one value in ``data``, as it stands there, without the blanks around it.

    Raises
    ------
    PermanentError
        The bytes are not UTF-8 or not JSON. The message is the reason.
    """
    try:
        data.decode()  # what msgspec passes over it does not check for this
        return bytes(_value.decode(data))
    except WRONG as error:
        raise PermanentError(fault_of(data)) from error


def fields_of(data: bytes) -> dict[str, msgspec.Raw] | None:
    """The fields of an object, each as it stands; None for another value.

    If a name is there twice, the last one counts, as in Postgres.

    Raises
    ------
    PermanentError
        The bytes are not UTF-8 or not JSON. The message is the reason.
    """
    try:
        return _fields.decode(data)
    except msgspec.ValidationError:
        return None
    except WRONG as error:
        raise PermanentError(fault_of(data)) from error


def items_of(value: msgspec.Raw) -> list[msgspec.Raw] | None:
    """The items of a list that is a part of checked JSON, each as it stands; None for another value."""
    try:
        return _items.decode(value)
    except msgspec.ValidationError:
        return None


def text_of(value: msgspec.Raw) -> str:
    """The text of a JSON string, which is a part of checked JSON."""
    return _text.decode(value)


def kind_of(value: bytes) -> str:
    """What a JSON value is, in a word for people."""
    return _KINDS.get(value[:1], "a number")


def has_nul(text: str) -> bool:
    """Whether a text in valid JSON holds U+0000: jsonb cannot.

    Source: postgresql.org/docs/current/datatype-json.html
    """
    # The first search is a hundred times faster, and nearly always enough.
    return "\\u0000" in text and _NUL.search(text) is not None


def fault_of(data: bytes) -> str:
    """Why bytes are not JSON, in words for a person."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        return f"not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}"
    if not data.strip(BLANKS):
        problem = "empty"
    elif data.startswith(BOM):
        problem = "it begins with a byte order mark (U+FEFF)"
    elif half := _HALF.match(text, _whole_characters(text)):
        problem = f"{half[0]} is half of a surrogate pair, and no character"
    else:
        problem = _in_words(data)
    return f"not JSON: {problem}"


def _whole_characters(text: str) -> int:
    found = _WHOLE_CHARACTERS.match(text)
    return found.end() if found else 0


def _in_words(data: bytes) -> str:
    try:
        _value.decode(data)
    except msgspec.DecodeError as error:
        message = str(error).removeprefix("JSON is malformed: ")
    except RecursionError:
        return _TOO_DEEP
    else:
        return _TOO_DEEP  # by one level: whoever looks for the parts of a value has one more
    place = _PLACE.search(message)
    if place is None:
        return "it ends too early" if "truncated" in message else message
    at = int(place[1])
    literal = _LITERAL.match(data, at - (data[at - 1 : at] == b"-"))
    if literal:
        at = literal.start()
    where = f"at line {data.count(b'\n', 0, at) + 1} column {at - data.rfind(b'\n', 0, at)}"
    if literal:
        return f"{literal[0].decode()} is no number in JSON, {where}"
    return f"{message[: place.start()]} {where}"
