"""A recipe to a run folder.

`reslab.train` is this room and also the function that a person calls, `reslab.train(recipe, out)`;
Python binds a package's name to its module, so the module itself is made callable.
"""

import sys
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    def __call__(self, *arguments: Any, **keywords: Any) -> dict[str, Any]:
        """See `reslab.train.training.train`."""
        from reslab.train.training import train

        return train(*arguments, **keywords)


sys.modules[__name__].__class__ = _Room
