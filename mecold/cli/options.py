"""Options of commands as records: what several commands share, or what belongs together, is one frozen dataclass."""

import inspect
from collections.abc import Callable
from dataclasses import Field, fields
from functools import wraps
from typing import Any

from mecold.cli.terminal import explained


def options(*records: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the fields of records as options: its parameters of these types become one option per field."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())
        parts = {one.name: one.annotation for one in own if one.annotation in records}
        flat = [one for one in own if one.name not in parts]
        flat += [
            inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=_default(field), annotation=field.type
            )
            for record in parts.values()
            for field in fields(record)
        ]

        @wraps(command)
        def called(*args: Any, **given: Any) -> None:
            made = {
                name: record(**{field.name: given.pop(field.name) for field in fields(record)})
                for name, record in parts.items()
            }
            with explained():
                command(*args, **given, **made)

        called.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
        called.__annotations__ = {one.name: one.annotation for one in flat}
        return called

    return decorate


def _default(field: Field[Any]) -> Any:
    """A field's default, tuples as the lists that the command line gives."""
    return [] if field.default == () else field.default
