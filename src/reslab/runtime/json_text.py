"""Parse JSON that may be damaged or hostile."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reslab.errors import os_reason
from reslab.runtime.files import MAX_LIST_BYTES, read_regular


def parse_json(
    text: str | bytes, object_hook: Callable[[dict[str, Any]], Any] | None = None
) -> Any:
    """Parse JSON; raise ValueError with the reason, JSONDecodeError if it has a position."""
    try:
        return json.loads(text, object_hook=object_hook)
    except json.JSONDecodeError:
        raise
    except UnicodeDecodeError:
        reason = "not UTF-8 text"
    except RecursionError:
        reason = "nested too deeply"
    except ValueError:
        reason = "a number has too many digits"
    raise ValueError(reason)


def read_json(path: Path, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Read a JSON file; raise ValueError, naming the file and the malformed line."""
    try:
        return parse_json(read_regular(path, MAX_LIST_BYTES), object_hook)
    except OSError as error:
        raise ValueError(f"{path}: {os_reason(error)}") from None
    except json.JSONDecodeError as error:
        place = f"{path}:{error.lineno}"
        raise ValueError(f"{place}: malformed JSON: {error.msg}, column {error.colno}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
