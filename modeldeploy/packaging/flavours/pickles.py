"""Pickles that are the same bytes in every process, with the code of notebooks and local files inside."""

from __future__ import annotations

import contextlib
import io
import pickle
import pickletools
import site
import sys
import sysconfig
import types
from collections import ChainMap
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from modeldeploy.errors import ConfigurationError
from modeldeploy.packaging.dependencies import need

_STRINGS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"}


def dumps(model: object, *, persistent_id: Callable[[Any], Any] | None = None) -> bytes:
    """Pickle ``model``; functions and classes of the notebook, of ``__main__`` and of local files go by value.

    ``persistent_id`` takes objects out of the pickle, as in the standard library.
    """
    buffer = io.BytesIO()
    with _by_value():
        try:
            _pickler(buffer, persistent_id).dump(model)
        except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
            message = f"{type(model).__name__} cannot be pickled: {error}"
            hint = "keep connections, locks, open files and generators out of the model; open them in predict()"
            raise ConfigurationError(message, hint=hint) from error
    return buffer.getvalue()


def loads(data: bytes, *, persistent_load: Callable[[Any], Any] | None = None) -> Any:
    """Unpickle; the caller has checked that the digest of ``data`` is trusted."""
    need("cloudpickle")
    unpickler = pickle.Unpickler(io.BytesIO(data))  # noqa: S301 - see above
    if persistent_load is not None:
        unpickler.persistent_load = persistent_load  # type: ignore[method-assign]
    return unpickler.load()


def modules_in(data: bytes) -> frozenset[str]:
    """Name the top-level modules that unpickling would import, read from the opcodes; nothing is run."""
    found: set[str] = set()
    strings: list[str] = []
    for opcode, argument, _position in pickletools.genops(data):
        if opcode.name == "GLOBAL":
            found.add(str(argument).partition(" ")[0])
        elif opcode.name == "STACK_GLOBAL":
            found.update(strings[-2:-1])
        elif opcode.name in _STRINGS:
            strings.append(str(argument))
    known = {name.partition(".")[0] for name in found | (set(strings) & set(sys.modules))}
    return frozenset(known - {"__main__", "builtins"} - set(sys.stdlib_module_names))


def is_local(module: str) -> bool:
    """Whether a module is the notebook, ``__main__`` or a file that no installed distribution brings."""
    root = module.partition(".")[0]
    if root == "__main__":
        return True
    if root == "modeldeploy" or root in sys.stdlib_module_names or root in _installed():
        return False
    file = getattr(sys.modules.get(module) or sys.modules.get(root), "__file__", None)
    return file is not None and not any(Path(file).is_relative_to(place) for place in _places())


@cache
def _installed() -> frozenset[str]:
    from importlib.metadata import packages_distributions

    return frozenset(packages_distributions())


@cache
def _places() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return (
        paths["stdlib"],
        paths["platstdlib"],
        paths["purelib"],
        paths["platlib"],
        *site.getsitepackages(),
        site.getusersitepackages(),
    )


@contextlib.contextmanager
def _by_value() -> Iterator[None]:
    """Make cloudpickle take local modules by value: a worker elsewhere could not import them."""
    cloudpickle = need("cloudpickle")
    already = cloudpickle.list_registry_pickle_by_value()
    local = [
        module
        for name, module in list(sys.modules.items())
        if name not in already
        and name != "__main__"
        and isinstance(module, types.ModuleType)
        and name == module.__name__
        and is_local(name)
    ]
    for module in local:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in local:
            cloudpickle.unregister_pickle_by_value(module)


def _pickler(buffer: io.BytesIO, outside: Callable[[Any], Any] | None) -> Any:
    """Make a cloudpickle pickler without what differs from process to process: tracker ids and the names of notebook cells."""
    cloudpickle = need("cloudpickle")

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc,name-defined]
        dispatch_table: ClassVar[Any] = ChainMap({types.CodeType: _reduce_code}, cloudpickle.Pickler.dispatch_table)

        def reducer_override(self, obj: Any) -> Any:
            reduced = super().reducer_override(obj)
            if isinstance(obj, type) and isinstance(reduced, tuple) and reduced[0].__name__ in _SKELETONS:
                at = _SKELETONS[reduced[0].__name__]
                arguments = tuple(None if index == at else value for index, value in enumerate(reduced[1]))
                return (reduced[0], arguments, *reduced[2:])
            return reduced

        def persistent_id(self, obj: Any) -> Any:
            return outside(obj) if outside is not None else None

    return Pickler(buffer, protocol=5)


# The place of the random class tracker id among the arguments of cloudpickle 3's class makers.
_SKELETONS = {"_make_skeleton_class": 4, "_make_skeleton_enum": 5}


def _reduce_code(code: types.CodeType) -> Any:
    # A notebook cell's file is named by the kernel's process id, a script's by its folder: neither belongs to the model.
    from cloudpickle import cloudpickle

    return cloudpickle._code_reduce(code.replace(co_filename=_short(code.co_filename)))  # noqa: SLF001 - its only entry for code


def _short(filename: str) -> str:
    path = Path(filename)
    notebook = "ipykernel_" in filename or filename.startswith("<")
    return "<notebook>" if notebook else path.name
