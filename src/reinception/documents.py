"""Dataclasses as JSON values and back, strictly: the one decoder of networks, recipes, manifests and options.

A document may come from anyone, so nothing in it is taken on trust: types must match exactly (no text for a number, no
boolean for an integer; an integer is accepted for a float), numbers must be finite, every field must be there and no
other, and nesting is limited. What does not fit is one line that names its place: `arch.stages.stem.3.kernel: ...`.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from reinception.errors import ReinceptionError

if TYPE_CHECKING:
    from cattrs import Converter

MAX_DEPTH = 40
_SHOWN_CHARACTERS = 60
T = TypeVar("T")


class _MisfitError(Exception):
    """What does not fit. `is_placed`: the message already names the place."""

    def __init__(self, message: str, *, is_placed: bool = False) -> None:
        super().__init__(message)
        self.is_placed = is_placed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Documents:
    """How some dataclasses are written as JSON objects.

    `kinds` are those whose objects carry a name as `type`, by that name. Values of a class in `bare` are written as
    their only field. `readers` decode the classes that have documents of their own. A tuple of (name, value) pairs is
    a list of `{"name": ..., "layers": ...}`. With `has_defaults` a missing field takes its default.
    """

    kinds: Mapping[str, type[Any]] = dataclasses.field(default_factory=dict)
    bare: tuple[type[Any], ...] = ()
    readers: Mapping[type[Any], Callable[[Any], Any]] = dataclasses.field(default_factory=dict)
    has_defaults: bool = False
    error: type[ReinceptionError] = ReinceptionError

    def encode(self, value: Any) -> Any:
        """`value` as plain JSON values."""
        if dataclasses.is_dataclass(value):
            fields = {field.name: self.encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
            if type(value) in self.bare:
                return fields.popitem()[1]
            kind = self._names.get(type(value))
            return fields if kind is None else {"type": kind, **fields}
        if isinstance(value, tuple):
            if value and all(isinstance(item, tuple) and isinstance(item[0], str) for item in value):
                return [{"name": name, "layers": self.encode(item)} for name, item in value]
            return [self.encode(item) for item in value]
        if isinstance(value, Mapping):
            return {name: self.encode(item) for name, item in value.items()}
        return str(value) if isinstance(value, Path) else value

    def decode(self, document: Any, cls: type[T], where: str) -> T:
        """The value of `cls` that `document` describes. Raises `error`, one line that begins with `where`."""
        level = [document]
        for _ in range(MAX_DEPTH):
            level = [child for item in level for child in _children(item)]
        if level:
            raise self.error(f"{where}: nested more than {MAX_DEPTH} deep")
        try:
            return self._converter.structure(document, cls)
        except Exception as error:
            place, cause = _first(error, where)
            is_placed = isinstance(cause, _MisfitError) and cause.is_placed
            is_own = isinstance(cause, ReinceptionError) and place == where
            raise self.error(str(cause) if is_placed or is_own else f"{place}: {cause}") from None

    @cached_property
    def _names(self) -> dict[type[Any], str]:
        return {cls: name for name, cls in self.kinds.items()}

    @cached_property
    def _converter(self) -> Converter:
        from cattrs import Converter  # costs 70 ms, which a command that reads no document should not pay

        converter = Converter()
        for scalar in (bool, int, float, str):
            converter.register_structure_hook(scalar, _scalar)
        converter.register_structure_hook_func(_is(types.UnionType, Union), self._union)
        converter.register_structure_hook_func(_is(tuple), self._tuple)
        converter.register_structure_hook_func(_is(Mapping), _mapping)
        converter.register_structure_hook_func(lambda cls: str(get_origin(cls)) == "typing.Literal", _literal)
        converter.register_structure_hook_factory(dataclasses.is_dataclass, self._object_hook)
        return converter

    def _object_hook(self, cls: type[Any]) -> Callable[[Any, Any], Any]:
        from cattrs.gen import make_dict_structure_fn

        if cls in self.readers:
            return lambda document, _: _read(self.readers[cls], document)
        if cls in self.bare:
            (content,) = get_type_hints(cls).values()
            return lambda document, _: cls(self._converter.structure(document, content))
        known = dataclasses.fields(cls)
        required = [
            field.name
            for field in known
            if not self.has_defaults or field.default is field.default_factory is dataclasses.MISSING
        ]
        fill, kind = make_dict_structure_fn(cls, self._converter), self._names.get(cls)

        def structure(document: Any, _: Any) -> Any:
            _require(isinstance(document, Mapping), "a JSON object", document)
            given = dict(document)
            if kind is not None and (found := given.pop("type", None)) != kind:
                raise _MisfitError(f"expected type {kind!r}, found {_shown(found)}")
            if unknown := sorted(given.keys() - {field.name for field in known}):
                raise _MisfitError(f"unknown field {_shown(unknown[0])}; written by a newer version?")
            if missing := [name for name in required if name not in given]:
                raise _MisfitError(f"lacks {', '.join(missing)}")
            return fill(given, cls)

        return structure

    def _union(self, document: Any, union: Any) -> Any:
        if document is None and types.NoneType in get_args(union):
            return None
        options = [option for option in get_args(union) if option not in (types.NoneType, Path)]
        if isinstance(document, list):
            options = [option for option in options if option in self.bare] or options
        elif isinstance(document, str) and str in options:
            return document
        if len(options) == 1:
            return self._converter.structure(document, options[0])
        _require(isinstance(document, Mapping), "a JSON object", document)
        kind = document.get("type")
        chosen = self.kinds.get(kind) if isinstance(kind, str) else None
        if chosen is None or chosen not in options:
            raise _MisfitError(f"unknown type {_shown(kind)}")
        return self._converter.structure(document, chosen)

    def _tuple(self, document: Any, expected: Any) -> tuple[Any, ...]:
        item, *rest = get_args(expected)
        _require(isinstance(document, list), "a list", document)
        if get_origin(item) is tuple and get_args(item)[0] is str:
            return tuple(self._named(pair, get_args(item)[1]) for pair in document)
        if rest != [...]:
            _require(len(document) == 1 + len(rest), f"{1 + len(rest)} values", document)
        return tuple(self._converter.structure(document, list[item]))

    def _named(self, pair: Any, expected: Any) -> tuple[str, Any]:
        from cattrs import IterableValidationNote

        fits = isinstance(pair, Mapping) and pair.keys() == {"name", "layers"} and isinstance(pair["name"], str)
        _require(fits, "an object with a name and layers", pair)
        try:
            return pair["name"], self._converter.structure(pair["layers"], expected)
        except Exception as error:
            error.add_note(IterableValidationNote("", pair["name"], expected))
            raise


def _first(error: BaseException, where: str) -> tuple[str, BaseException]:
    """The first of the errors that cattrs has collected, and its place."""
    from cattrs import AttributeValidationNote, BaseValidationError, IterableValidationNote

    for note in reversed(getattr(error, "__notes__", [])):
        if isinstance(note, AttributeValidationNote):
            where = f"{where}.{note.name}"
        elif isinstance(note, IterableValidationNote):
            name = str(note.index)
            where = f"{where}.{name if name.isalnum() or name.isidentifier() else _shown(name)}"
    return _first(error.exceptions[0], where) if isinstance(error, BaseValidationError) else (where, error)


def _read(reader: Callable[[Any], Any], document: Any) -> Any:
    try:
        return reader(document)
    except ReinceptionError as error:
        raise _MisfitError(str(error), is_placed=True) from None


def _scalar(document: Any, kind: type[Any]) -> Any:
    fits = type(document) is kind and (kind is not float or math.isfinite(document))
    if kind is float and type(document) is int and abs(document) < 2**1023:
        fits, document = True, float(document)
    _require(fits, kind.__name__, document)
    return document


def _literal(document: Any, literal: Any) -> Any:
    _require(document in get_args(literal), f"one of {', '.join(map(repr, get_args(literal)))}", document)
    return document


def _mapping(document: Any, expected: Any) -> dict[str, Any]:
    _, content = get_args(expected)
    _require(isinstance(document, Mapping), "a JSON object", document)
    fits = content is Any or all(type(item) is content for item in document.values())
    _require(fits, f"a JSON object of {getattr(content, '__name__', content)}", document)
    return dict(document)


def _is(*origins: object) -> Callable[[Any], bool]:
    return lambda cls: get_origin(cls) in origins


def _children(item: object) -> list[Any]:
    return item if isinstance(item, list) else list(item.values()) if isinstance(item, Mapping) else []


def _require(fits: bool, expected: str, found: object) -> None:
    if not fits:
        raise _MisfitError(f"expected {expected}, found {_shown(found)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
