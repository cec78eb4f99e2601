"""PyTorch modules: the tensors as safetensors, the structure as a pickle by value.

The structure of a module is Python code, so that every way to keep it runs code when it is loaded: ``torch.export.load`` falls back to a full
unpickling (torch 2.13) and evaluates the shapes in its file, and TorchScript loses Python control flow and is on its way out. An exported program
also costs seconds to make and to load. The pickle is honest about it, exact for every module, and needs trust; for a model without code, export
it to ONNX.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from modeldeploy.errors import ConfigurationError, IntegrityError
from modeldeploy.packaging.dependencies import need
from modeldeploy.packaging.flavours import pickles
from modeldeploy.packaging.flavours.table import Files, Predict, Saved

_STRUCTURE = "model.pkl"
_TENSORS = "tensors.safetensors"
_WHOLE = "model.pth"
_CALL = "__call__"


def check_method(model: Any, method: str | None) -> str:
    """Check that it is a module; it is called itself unless it has another method to call."""
    if not isinstance(model, need("torch").nn.Module):
        message = f"{type(model).__name__} is not a torch.nn.Module"
        raise ConfigurationError(message, hint="pass the trained module itself, not its state_dict or a tensor")
    if method is not None and not callable(getattr(model, method, None)):
        message = f"{type(model).__name__} has no {method}()"
        raise ConfigurationError(message, hint="leave method= out to call the module itself")
    return method or _CALL


def container(model: Any, kind: str) -> str:
    """Give it one tensor for an array or a table, keyword tensors for a dict of columns."""
    del model
    return "matrix" if kind in {"pandas", "polars", "arrow", "records"} else kind


def labels(model: Any) -> tuple[str, ...]:
    """Give no names to an array."""
    del model
    return ()


def bind(model: Any, *, method: str) -> Predict:
    """Call the module in evaluation mode without gradients, and leave it as it was."""
    torch = need("torch")
    call = model if method == _CALL else getattr(model, method)

    def predict(table: Any) -> Any:
        modes = [(part, part.training) for part in model.modules()]
        model.eval()
        try:
            with torch.no_grad():
                return _answer(torch, call, table, place(model))
        finally:
            for part, training in modes:
                part.training = training

    return predict


def save(model: Any, *, method: str) -> Saved:
    """Save every tensor as safetensors, and the rest by value."""
    del method
    torch = need("torch")
    tensors: list[Any] = []
    places: dict[int, int] = {}

    def persistent_id(obj: Any) -> Any:
        if not isinstance(obj, torch.Tensor):
            return None
        if id(obj) not in places:
            places[id(obj)] = len(tensors)
            tensors.append(obj)
        return ("parameter" if isinstance(obj, torch.nn.Parameter) else "tensor", places[id(obj)], obj.requires_grad)

    structure = pickles.dumps(model, persistent_id=persistent_id)
    plain = {f"{at}": tensor.detach().cpu().clone().contiguous() for at, tensor in enumerate(tensors)}
    data = need("safetensors.torch").save(plain)
    modules = pickles.modules_in(structure) | {"torch", "safetensors", "cloudpickle"}
    return Saved({_STRUCTURE: structure, _TENSORS: data}, {"format": "safetensors"}, pickled=True, modules=modules)


def load(files: Files, options: Mapping[str, str], *, method: str, trusted: bool) -> Predict:
    """Build the module again; refused unless the bundle's digest is trusted."""
    if not trusted:
        message = "the code of a torch module is loaded only when its digest is trusted"
        raise IntegrityError(message, hint="pass trust= with the bundle's digest")
    torch = need("torch")
    if options.get("format") == "whole":
        # What torch.save wrote of a whole module, as MLflow keeps it.
        model = torch.load(io.BytesIO(files.read(_WHOLE)), map_location="cpu", weights_only=False)
    else:
        model = _rebuild(torch, files)
    return bind(model.eval(), method=method)


def _rebuild(torch: Any, files: Files) -> Any:
    plain = need("safetensors.torch").load(files.read(_TENSORS))
    made: dict[int, Any] = {}

    def persistent_load(reference: Any) -> Any:
        kind, at, requires_grad = reference
        if at not in made:
            tensor = plain[str(at)]
            made[at] = torch.nn.Parameter(tensor, requires_grad=requires_grad) if kind == "parameter" else tensor
        return made[at]

    return pickles.loads(files.read(_STRUCTURE), persistent_load=persistent_load)


def place(model: Any) -> tuple[Any, Any]:
    """Say on which device a module is, and of which type its own numbers are."""
    first = next((each for each in model.parameters() if each.is_floating_point()), None)
    return (None, None) if first is None else (first.device, first.dtype)


def _answer(torch: Any, call: Any, table: Any, where: tuple[Any, Any]) -> Any:
    if isinstance(table, Mapping):
        return _plain(torch, call(**{name: tensor(torch, array, where) for name, array in table.items()}))
    return _plain(torch, call(tensor(torch, table, where)))


def tensor(torch: Any, array: Any, where: tuple[Any, Any]) -> Any:
    """Make a tensor; floats get the type of the module's own parameters, which is rarely numpy's default."""
    if array.dtype == object:
        message = "a torch module takes numbers, its input holds text"
        raise ConfigurationError(message, hint="encode the text before, or wrap the module in a function")
    # A read-only array would make torch warn about writes that never happen.
    made = torch.from_numpy(np.array(array))
    device, dtype = where
    return made.to(device=device, dtype=dtype if made.is_floating_point() else None)


def _plain(torch: Any, answer: Any) -> Any:
    if isinstance(answer, torch.Tensor):
        widened = answer.float() if answer.dtype is torch.bfloat16 else answer
        return widened.detach().cpu().numpy()
    if isinstance(answer, Mapping):
        return {name: _plain(torch, part) for name, part in answer.items()}
    if isinstance(answer, list | tuple):
        return {f"prediction_{at}": _plain(torch, part) for at, part in enumerate(answer)}
    return answer
