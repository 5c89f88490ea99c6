"""The runtime `python`: a function, a class or an instance named `package.module:attribute`.

Rules of this file, where only some modules are allowed:
- The module is one of them, and is all that is imported, with the packages that it is in.
- The way from the module to the attribute meets nothing that was defined elsewhere: no module, no imported function or
  class, no object of an imported class. A module that imports `os` does not offer `os.system`.
- No name on the way begins with an underscore: behind `__class__` and `__globals__` is the whole interpreter.
"""

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.allowlist import allows_module, not_allowed
from clipper_stream.models.model import Model, Rows
from clipper_stream.models.row_spec import RowSpec
from clipper_stream.models.runtimes.model_files import ModelFile
from clipper_stream.names import choices

Predict = Callable[[Rows], Sequence[Any] | NDArray[Any]]


@dataclass(frozen=True, slots=True)
class FunctionModel:
    """A function from rows to outputs, as a model.

    Attributes:
        predict_batch: The function.
        fitted_row: What it was fitted with, where it says so.

    >>> FunctionModel(len).predict_batch([1, 2])
    2
    """

    predict_batch: Predict
    fitted_row: RowSpec | None = None


UNPICKLES = False
NEEDS_DIGEST = False
"""Whoever may change an allowed module's file may change what it imports as well: its digest says little, and is only
compared when there is one."""


def check_allowed(uri: str, parameters: Mapping[str, Any], allowed: Sequence[str]) -> None:
    """Raise `ModelNotLoaded` when the URI's module is not allowed, or a part of the attribute is private."""
    del parameters
    module, attribute = _parts(uri)
    if not allows_module(allowed, module):
        raise not_allowed(f"model {uri!r}", allowed, "allowed_modules", module)
    hidden = [name for name in attribute.split(".") if name.startswith("_")]
    if hidden:
        raise ModelNotLoaded(f"model {uri!r}: {hidden[0]} is a private name: give the model a public one")


def read(uri: str) -> bytes:
    """The bytes of the module's file, empty for a module without one; its packages are imported on the way."""
    module, _ = _parts(uri)
    try:
        spec = importlib.util.find_spec(module)
    except BaseException as error:  # the packages that it is in may raise anything
        raise _not_imported(uri, module, error) from error
    if spec is None:
        raise _not_imported(uri, module, ModuleNotFoundError(f"No module named {module!r}"))
    get_data = getattr(spec.loader, "get_data", None)
    content: bytes = get_data(spec.origin) if get_data and spec.has_location else b""
    return content


def load(uri: str, file: ModelFile) -> Model:
    """The model that the attribute is or makes, with the parameters of the class or of each call of the function.

    Raises:
        ModelNotLoaded: it cannot be imported, was defined elsewhere, cannot be made with these parameters, or is no
            model.
    """
    module, attribute = _parts(uri)
    target, parameters = _imported(uri, module, attribute, file.allowed), file.parameters
    if inspect.isclass(target):
        target = _instantiated(uri, target, parameters)
        parameters = {}
    method = getattr(target, "predict_batch", None) or getattr(target, "predict", None)
    if method is not None:
        return _with_method(uri, target, method, parameters)
    return FunctionModel(_bound(uri, target, parameters))


def _parts(uri: str) -> tuple[str, str]:
    module, colon, attribute = uri.partition(":")
    names = [*module.split("."), *attribute.split(".")]
    if not colon or not all(name.isidentifier() for name in names):
        raise ModelNotLoaded(f"uri {uri!r}: the runtime python takes package.module:attribute")
    return module, attribute


def _imported(uri: str, module: str, attribute: str, allowed: Sequence[str] | None) -> Any:
    try:
        found = importlib.import_module(module)
    except BaseException as error:  # a module may raise anything while it is imported
        raise _not_imported(uri, module, error) from error
    target: Any = found
    for name in attribute.split("."):
        target = _attribute(uri, found, target, name)
        if allowed is not None:
            _check_defined(uri, target, name, allowed)
    return target


def _attribute(uri: str, module: ModuleType, owner: Any, name: str) -> Any:
    try:
        return getattr(owner, name)
    except BaseException as error:  # an attribute may be computed
        own = {each: value for each, value in vars(module).items() if _home(value) == module.__name__}
        public = [each for each in own if not each.startswith("_")]
        where = f"model {uri!r}: there is no {name} in {module.__name__}"
        raise ModelNotLoaded(f"{where}: {choices(name, public)}") from error


def _check_defined(uri: str, target: Any, name: str, allowed: Sequence[str]) -> None:
    """The target was defined in an allowed module; of an object that is no function or class, its class was."""
    if isinstance(target, ModuleType):
        raise ModelNotLoaded(f"model {uri!r}: {name} is a module, name it before the colon: {target.__name__}:...")
    home = _home(target)
    if not isinstance(home, str) or not allows_module(allowed, home):
        what = f"model {uri!r}: {name} was defined in {home}, which"
        raise not_allowed(f"{what} (or wrap it in a function of your module)", allowed, "allowed_modules", str(home))


def _home(target: Any) -> Any:
    while type(target) is partial:  # is what it calls
        target = target.func
    try:
        return getattr(target, "__module__", None)
    except BaseException:  # noqa: BLE001 - an attribute may be computed
        return None


def _not_imported(uri: str, module: str, error: BaseException) -> ModelNotLoaded:
    advice = "correct the module"
    if isinstance(error, ModuleNotFoundError):
        advice = "install the package, or add its directory to PYTHONPATH, where the model runs"
    return ModelNotLoaded(f"model {uri!r}: importing {module} failed with {type(error).__name__}: {error}; {advice}")


def _instantiated(uri: str, target: type, parameters: Mapping[str, Any]) -> Any:
    try:
        return target(**parameters)
    except BaseException as error:
        what = f"model {uri!r}: {target.__name__}(**{dict(parameters)}) failed with {type(error).__name__}: {error}"
        raise ModelNotLoaded(f"{what}; correct the manifest's parameters or the class") from error


def _with_method(uri: str, target: Any, method: Predict, parameters: Mapping[str, Any]) -> Model:
    if parameters:
        raise ModelNotLoaded(f"model {uri!r} is an instance and takes no parameters: name its class, or leave them out")
    _bound(uri, method, {})
    return target if isinstance(target, Model) else FunctionModel(method)


def _bound(uri: str, function: Any, parameters: Mapping[str, Any]) -> Predict:
    if not callable(function) or inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        kind = "async function" if callable(function) else type(function).__name__
        raise ModelNotLoaded(f"model {uri!r} is of kind {kind}: give a function of rows, or a class with predict_batch")
    try:
        inspect.signature(function).bind(np.empty(0), **parameters)
    except TypeError as error:
        what = f"model {uri!r} cannot be called with rows and parameters {dict(parameters)}: {error}"
        raise ModelNotLoaded(f"{what}; correct the manifest's parameters or the function") from error
    except ValueError:  # a callable of an extension module need not show its signature
        pass
    return cast("Predict", partial(function, **parameters) if parameters else function)
