"""Importing numpy, scikit-learn and skops without what no model needs to predict, for processes that load models and do nothing else.

Counted with scikit-learn 1.9 and skops 0.16: three fifths of the processor time that their imports take go into pandas, which scikit-learn binds
to a name and never uses, into ``scipy.stats``, whose functions it calls while it fits, into docstrings, and into skops's lists of all that
it trusts.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

from modeldeploy.packaging.dependencies import need

DEFERRED = "scipy.stats"
"""What is imported when one of its functions is first called."""
# skops wants to know the class of which it writes no estimator.
_CLUSTER, _UNWRITTEN = "sklearn.cluster", "Birch"
# A class that skops trusts by name where it is; ``is_safe`` trusts it as a class of scikit-learn.
_BINNING = "sklearn.ensemble._hist_gradient_boosting.binning"
_LISTER = "get_public_type_names"
# They write docstrings and signatures into what numpy has compiled, in its layout of today and in that before 2.0.
_DESCRIBERS = tuple(f"numpy.{core}._add_newdocs{part}" for core in ("_core", "core") for part in ("", "_scalars"))


class _Function:
    """Stands for a function of a module that is imported when it is called."""

    def __init__(self, module: str, name: str) -> None:
        self._place = module, name

    def _found(self) -> Any:
        module, name = self._place
        return getattr(importlib.import_module(module), name)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._found()(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by whoever only looks at it
            raise AttributeError(name)
        return getattr(self._found(), name)


class _Deferred(ModuleType):
    """Stands for a module while others take functions from it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Function(self.__name__, name)


def numpy() -> None:
    """Import numpy without the docstrings and signatures of what it has compiled, for models that hold no code which could ask for them."""
    with _standing_in({name: ModuleType(name) for name in _DESCRIBERS}):
        need("numpy")


@contextlib.contextmanager
def imports() -> Iterator[None]:
    """Let scikit-learn be imported without pandas, ``scipy.stats`` and SciPy's care for its docstrings.

    Whoever wants the modules afterwards gets the real ones.
    """
    with _standing_in({"pandas": None, DEFERRED: _Deferred(DEFERRED)}), _undocumented():
        yield


def skops() -> Any:
    """Import skops without its lists of types that it trusts; it then asks about every one of them."""
    cluster = ModuleType(_CLUSTER)
    setattr(cluster, _UNWRITTEN, type(_UNWRITTEN, (), {}))
    need("sklearn.utils")
    with _standing_in({_CLUSTER: cluster, _BINNING: None}), _swapped("sklearn.utils", "all_estimators"):
        package = _unexecuted("skops.io")
        with _swapped("skops.io._utils", _LISTER):
            package.__spec__.loader.exec_module(package)
    need("skops").io = package
    return package


class _Blank(dict[str, list[Any]]):
    """A description without sections."""

    def __missing__(self, _section: str) -> list[Any]:
        return []

    def __str__(self) -> str:
        return "\n"


@contextlib.contextmanager
def _undocumented() -> Iterator[None]:
    """Let SciPy not parse and rewrite the docstrings of hundreds of functions, as it does while it is imported."""
    try:
        place: Any = importlib.import_module("scipy._lib._docscrape")
        parse = place.FunctionDoc
    except (ImportError, AttributeError):  # other versions, which keep it elsewhere
        yield
        return
    over = False

    def describe(*arguments: Any, **options: Any) -> Any:
        # Modules keep this function; what they do with it later is none of our business.
        return parse(*arguments, **options) if over else _Blank()

    place.FunctionDoc = describe
    try:
        yield
    finally:
        place.FunctionDoc, over = parse, True


@contextlib.contextmanager
def _standing_in(modules: Mapping[str, ModuleType | None]) -> Iterator[None]:
    """Have imports find these in place of modules that are not loaded yet; None for what is to be missing."""
    ours = {name: module for name, module in modules.items() if name not in sys.modules}
    sys.modules.update(ours)  # type: ignore[arg-type]  # None is what the import system takes for "not there"
    try:
        yield
    finally:
        for name in ours:
            sys.modules.pop(name, None)


@contextlib.contextmanager
def _swapped(module: str, lister: str) -> Iterator[None]:
    """Let a function that lists things list none."""
    place = importlib.import_module(module)
    listing = getattr(place, lister)
    setattr(place, lister, lambda *_arguments, **_options: [])
    try:
        yield
    finally:
        setattr(place, lister, listing)


def _unexecuted(name: str) -> Any:
    """Give a package whose modules can be imported before its own code runs."""
    spec = find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(name)
    package = module_from_spec(spec)
    sys.modules[name] = package
    return package
