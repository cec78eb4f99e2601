"""Deploy, roll out, roll back and batch-score models, the same way on this machine and on any cloud.

>>> from modeldeploy import Endpoint, Model, RolloutPolicy
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modeldeploy import errors as errors
    from modeldeploy.handles.batch import BatchJob as BatchJob
    from modeldeploy.handles.edge import EdgeTarget as EdgeTarget
    from modeldeploy.handles.endpoint import Endpoint as Endpoint
    from modeldeploy.handles.model import Model as Model
    from modeldeploy.handles.operation import Operation as Operation
    from modeldeploy.handles.rollout import Rollout as Rollout
    from modeldeploy.handles.session import Session as Session
    from modeldeploy.observe.log import log_to_console as log_to_console
    from modeldeploy.registry import register as register
    from modeldeploy.values.analysis import Analysis as Analysis
    from modeldeploy.values.gate import Gate as Gate
    from modeldeploy.values.rollout import RolloutPolicy as RolloutPolicy
    from modeldeploy.values.serving import Hardware as Hardware
    from modeldeploy.values.serving import Scale as Scale
    from modeldeploy.values.serving import Traffic as Traffic
    from modeldeploy.values.tolerance import Tolerance as Tolerance

# Where each public name lives; the module is imported when the name is first asked for.
_HOMES = {
    "Analysis": "modeldeploy.values.analysis",
    "BatchJob": "modeldeploy.handles.batch",
    "EdgeTarget": "modeldeploy.handles.edge",
    "Endpoint": "modeldeploy.handles.endpoint",
    "Gate": "modeldeploy.values.gate",
    "Hardware": "modeldeploy.values.serving",
    "Model": "modeldeploy.handles.model",
    "Operation": "modeldeploy.handles.operation",
    "Rollout": "modeldeploy.handles.rollout",
    "RolloutPolicy": "modeldeploy.values.rollout",
    "Scale": "modeldeploy.values.serving",
    "Session": "modeldeploy.handles.session",
    "Tolerance": "modeldeploy.values.tolerance",
    "Traffic": "modeldeploy.values.serving",
    "log_to_console": "modeldeploy.observe.log",
    "register": "modeldeploy.registry",
}

__all__ = [
    "Analysis",
    "BatchJob",
    "EdgeTarget",
    "Endpoint",
    "Gate",
    "Hardware",
    "Model",
    "Operation",
    "Rollout",
    "RolloutPolicy",
    "Scale",
    "Session",
    "Tolerance",
    "Traffic",
    "errors",
    "log_to_console",
    "register",
]


def __getattr__(name: str) -> Any:
    import importlib

    if name == "__version__":
        from importlib.metadata import version

        return version("modeldeploy")
    if name == "errors":
        return importlib.import_module("modeldeploy.errors")
    home = _HOMES.get(name)
    if home is None:
        message = f"module 'modeldeploy' has no attribute {name!r}"
        raise AttributeError(message)
    found = getattr(importlib.import_module(home), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
