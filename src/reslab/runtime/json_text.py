"""Parse JSON that may be damaged or hostile."""

import json
from collections.abc import Callable
from typing import Any


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
