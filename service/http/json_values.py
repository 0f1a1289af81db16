"""JSON values for the contract's fields: which are allowed, and the first one of a message that is not."""

from __future__ import annotations

import reprlib
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message_factory import GetMessageClass

from engines.errors import InvalidInput

LONE_SURROGATE = "Unicode text without halves of surrogate pairs"
_ALLOWED = {
    FieldDescriptor.CPPTYPE_INT32: "a whole number of 32 bits",
    FieldDescriptor.CPPTYPE_UINT32: f"a whole number from 0 to {2**32 - 1}",
    FieldDescriptor.CPPTYPE_INT64: "a whole number of 64 bits",
    FieldDescriptor.CPPTYPE_UINT64: f"a whole number from 0 to {2**64 - 1}",
    FieldDescriptor.CPPTYPE_BOOL: "true or false",
    FieldDescriptor.CPPTYPE_DOUBLE: "a number",
    FieldDescriptor.CPPTYPE_FLOAT: "a number",
    FieldDescriptor.CPPTYPE_STRING: LONE_SURROGATE,
    FieldDescriptor.CPPTYPE_MESSAGE: "a JSON object",
}


def allowed_values(field: FieldDescriptor) -> str:
    """The values that a field can carry, in words."""
    if field.enum_type is not None:
        return f"one of {', '.join(field.enum_type.values_by_name)}"
    if field.type == FieldDescriptor.TYPE_BYTES:
        return "base64"
    return _ALLOWED[field.cpp_type]


def first_invalid(content: dict[str, Any], descriptor: Descriptor, path: str = "") -> InvalidInput | None:
    """The error for the first member of `content`, by its path, that a message of this type does not take."""
    for name, value in content.items():
        field = descriptor.fields_by_name.get(name) or descriptor.fields_by_camelcase_name.get(name)
        if field is None:
            return _unknown(name, descriptor, path)
        at = f"{path}.{name}" if path else name
        nested = field.message_type
        if nested is not None and not field.is_repeated and isinstance(value, dict):
            found = first_invalid(value, nested, at)
            if found is not None:
                return found
        elif not _is_parsed({name: value}, descriptor):
            allowed = allowed_values(field)
            shown = reprlib.repr(value)
            message = f"{at} is {shown}; it must be {allowed}."
            return InvalidInput(at, message, "MESSAGE_INVALID", value=shown, allowed=allowed)
    return None


def _unknown(name: str, descriptor: Descriptor, path: str) -> InvalidInput:
    allowed = ", ".join(descriptor.fields_by_name) or "none"
    shown = reprlib.repr(name)
    message = f"{path or 'The frame'} has no field {shown}; allowed fields are {allowed}."
    return InvalidInput(path or "frame", message, "MESSAGE_INVALID", value=shown, allowed=allowed)


def _is_parsed(content: dict[str, Any], descriptor: Descriptor) -> bool:
    try:
        ParseDict(content, GetMessageClass(descriptor)())
    except (ParseError, ValueError, TypeError, RecursionError, AttributeError):
        return False
    return True
