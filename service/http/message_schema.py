"""JSON schemas of the contract's messages, as the HTTP surface writes them."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

_TYPES = {
    FieldDescriptor.TYPE_BOOL: "boolean",
    FieldDescriptor.TYPE_DOUBLE: "number",
    FieldDescriptor.TYPE_INT32: "integer",
    FieldDescriptor.TYPE_INT64: "string",  # protobuf's JSON writes 64 bits as text
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_UINT64: "string",
}


def message_schema(message: Descriptor) -> dict[str, Any]:
    """The schema of a message's JSON object, in which every field without presence stands."""
    return {
        "type": "object",
        "properties": {field.name: _field_schema(field) for field in message.fields},
        "required": [field.name for field in message.fields if not field.has_presence],
        "additionalProperties": False,
    }


def _field_schema(field: FieldDescriptor) -> dict[str, Any]:
    schema = _value_schema(field)
    return {"type": "array", "items": schema} if field.is_repeated else schema


def _value_schema(field: FieldDescriptor) -> dict[str, Any]:
    if field.message_type is not None:
        return message_schema(field.message_type)
    if field.enum_type is not None:
        return {"enum": [value.name for value in field.enum_type.values]}
    return {"type": _TYPES[field.type]}
