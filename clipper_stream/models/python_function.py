"""The runtime `python`: a function, a class or an instance named `package.module:attribute`."""

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.model import Model, Rows

Predict = Callable[[Rows], Sequence[Any] | NDArray[Any]]


@dataclass(frozen=True, slots=True)
class FunctionModel:
    """A function from rows to outputs, as a model.

    Attributes:
        predict_batch: The function.

    >>> FunctionModel(len).predict_batch([1, 2])
    2
    """

    predict_batch: Predict


def is_within(uri: str, package: str) -> bool:
    """Whether the URI's module is the package or inside it.

    >>> is_within("acme.models.svm:Svm", "acme.models"), is_within("acme.models2:Svm", "acme.models")
    (True, False)
    """
    module = uri.partition(":")[0]
    return module == package or module.startswith(package + ".")


def read(uri: str) -> bytes:
    """The bytes of the module's file, empty for a module without one; its packages are imported on the way.

    Raises:
        ModelNotLoaded: no such module.
    """
    module, _ = _parts(uri)
    try:
        spec = importlib.util.find_spec(module)
    except (Exception, SystemExit) as error:
        raise _not_imported(uri, module, error) from error
    if spec is None:
        raise _not_imported(uri, module, ModuleNotFoundError(f"No module named {module!r}"))
    get_data = getattr(spec.loader, "get_data", None)
    content: bytes = get_data(spec.origin) if get_data and spec.has_location else b""
    return content


def load(uri: str, content: bytes, parameters: Mapping[str, Any]) -> Model:
    """The model that the attribute is or makes.

    Args:
        uri: `package.module:attribute`; the attribute may be dotted.
        content: Unused: Python imports the module itself.
        parameters: Keyword arguments for the class, or for each call of the function.

    Raises:
        ModelNotLoaded: it cannot be imported, cannot be made with these parameters, or is no model.
    """
    del content
    module, attribute = _parts(uri)
    target = _imported(uri, module, attribute)
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


def _imported(uri: str, module: str, attribute: str) -> Any:
    try:
        found = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported
        raise _not_imported(uri, module, error) from error
    try:
        return reduce(getattr, attribute.split("."), found)
    except AttributeError as error:
        public = ", ".join(name for name in vars(found) if not name.startswith("_")) or "nothing"
        raise ModelNotLoaded(f"model {uri!r}: {module} has no {attribute}; it has {public}") from error


def _not_imported(uri: str, module: str, error: BaseException) -> ModelNotLoaded:
    what = f"model {uri!r}: importing {module} failed with {type(error).__name__}: {error}"
    return ModelNotLoaded(f"{what}; install the package, or add its directory to PYTHONPATH, where the model runs")


def _instantiated(uri: str, target: type, parameters: Mapping[str, Any]) -> Any:
    try:
        return target(**parameters)
    except (Exception, SystemExit) as error:
        what = f"model {uri!r}: {target.__name__}(**{dict(parameters)}) failed with {type(error).__name__}: {error}"
        raise ModelNotLoaded(f"{what}; correct the manifest's parameters or the class") from error


def _with_method(uri: str, target: Any, method: Predict, parameters: Mapping[str, Any]) -> Model:
    if parameters:
        raise ModelNotLoaded(f"model {uri!r} is an instance and takes no parameters: name its class, or leave them out")
    _bound(uri, method, {})
    return target if isinstance(target, Model) else FunctionModel(method)


def _bound(uri: str, function: Any, parameters: Mapping[str, Any]) -> Predict:
    """The function of one argument that is left when the parameters are filled in."""
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
