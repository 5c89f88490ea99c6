"""Optional extras of the package that a command needs."""

from importlib.util import find_spec


def require_extra(extra: str, *modules: str) -> None:
    """Check that what an optional extra brings is installed, before a command begins."""
    from clipper_stream.errors import InvalidSetting

    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise InvalidSetting(f"this command needs {', '.join(missing)}: pip install 'clipper-stream[{extra}]'")
