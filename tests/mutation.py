"""Break one rule in memory: the source of a module with one expression changed, in place of the real one."""

import importlib
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType, ModuleType


@contextmanager
def broken(module_name: str, rule: str, instead: str) -> Iterator[None]:
    """Within this context every function of the module runs with `rule` replaced by `instead`."""
    module = importlib.import_module(module_name)
    source = inspect.getsource(module)
    assert source.count(rule) == 1, f"{module_name}: {source.count(rule)} times, not once: {rule}"
    fresh = dict(vars(module))
    exec(compile(source.replace(rule, instead), str(module.__file__), "exec"), fresh)  # our own source
    undo: list[tuple[object, str, object]] = []
    for owner, name, value in list(_uses(module)):
        replacement: object = fresh[value.__qualname__.split(".")[0]]
        for step in value.__qualname__.split(".")[1:]:
            replacement = vars(replacement)[step]
        undo.append((owner, name, value))
        setattr(owner, name, replacement)
    try:
        yield
    finally:
        for owner, name, real in undo:
            setattr(owner, name, real)


def _uses(module: ModuleType) -> Iterator[tuple[object, str, FunctionType]]:
    """Wherever a function of the module is bound: in itself, its classes, and all that imported it."""
    for loaded in list(sys.modules.values()):
        if loaded.__name__.split(".")[0] not in ("healthagent", "tests"):
            continue
        for name, value in list(vars(loaded).items()):
            if isinstance(value, FunctionType) and _is_of(value, module):
                yield loaded, name, value
    for value in list(vars(module).values()):
        if inspect.isclass(value) and value.__module__ == module.__name__:
            for name, method in list(vars(value).items()):
                if isinstance(method, FunctionType) and _is_of(method, module):
                    yield value, name, method


def _is_of(function: FunctionType, module: ModuleType) -> bool:
    return function.__module__ == module.__name__ and "<" not in function.__qualname__
