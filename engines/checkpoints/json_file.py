"""JSON files of checkpoints, which anyone may have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engines.errors import CheckpointError


def read_json(path: Path) -> Any:
    """Returns the content of a JSON file. Raises CheckpointError if it cannot be read or is not JSON, also if it is
    nested too deeply to be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise CheckpointError(f"{path}: not a readable JSON file (it is nested too deeply)") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not a readable JSON file ({error})") from error


def read_object(path: Path) -> dict[str, Any]:
    """Returns the object that a JSON file holds. Raises CheckpointError as `read_json`, and if it holds no object."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: a JSON object was expected, not {type(content).__name__}")
    return content
