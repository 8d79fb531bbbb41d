"""The bundle that lets a saved model load where ``neurallib`` is not installed (``trust_remote_code=True``).

The loader of transformers copies the file named in ``auto_map`` and what it imports as ``from .name import …``, all
from one flat folder. So the modules that the model needs are found by following their relative imports, and written
side by side with every such import made flat: ``..configuration.machine_config`` becomes ``.machine_config``.

This works from a checkout, from an installed package, and from a bundle itself, when a model that was loaded by remote
code is saved again: this module travels with the bundle, and a bundle of a bundle is the same bundle.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

AUTO_MAP = {
    "AutoConfig": "configuration_neurallib.NeuralLibConfig",
    "AutoModel": "modeling_neurallib.NeuralLibModel",
    "AutoModelForCausalLM": "modeling_neurallib.NeuralLibForCausalLM",
}
"""What ``config.json`` tells the Auto classes of transformers: module and class, from the model's own folder."""

COMPANION = """

# Written by remote_code.py. The import never runs: the loader reads it, and so copies the model together with its
# configuration, from where both can be saved again.
from typing import TYPE_CHECKING  # noqa: E402

if TYPE_CHECKING:
    from .modeling_neurallib import NeuralLibForCausalLM  # noqa: F401
"""
"""What the bundle's ``configuration_neurallib.py`` has at its end."""

_RELATIVE_IMPORT = re.compile(rb"from\s+\.+\s*[\w.]*\s+import")
_SEEN_BY_THE_LOADER = re.compile(r"^\s*(?:from\s+\.(\S+)\s+import|import\s+\.(\S+)\s*$)", re.MULTILINE)


class RemoteCodeError(RuntimeError):
    """Modules that cannot be made into a flat bundle."""


def remote_code() -> dict[str, str]:
    """The bundle: file name → source text, in the order of the names.

    Raises:
        RemoteCodeError: a module is missing, two have one name, or an import cannot be made flat.
    """
    here = Path(__file__).resolve().parent
    beside = here / "modeling_neurallib.py"
    entry = beside if beside.is_file() else here.parent / "modeling_neurallib" / "modeling_neurallib.py"
    sources: dict[str, Path] = {}
    imports: dict[Path, list[tuple[ast.ImportFrom, Path]]] = {}
    waiting = [entry, here / "configuration_neurallib.py", Path(__file__).resolve()]
    while waiting:
        path = waiting.pop()
        known = sources.setdefault(path.name, path)
        if known != path:
            raise RemoteCodeError(f"two modules are named {path.name}, {known} and {path}: rename one")
        if path not in imports:
            imports[path] = list(_own_imports(path))
            waiting += [target for _, target in imports[path]]
    bundle = {name: _flattened(path, imports[path]) for name, path in sorted(sources.items())}
    if COMPANION not in bundle["configuration_neurallib.py"]:
        bundle["configuration_neurallib.py"] += COMPANION
    for name, text in bundle.items():
        _check(name, text, bundle)
    return bundle


def write_remote_code(directory: str | os.PathLike[str]) -> dict[str, str]:
    """Write the bundle into a model's folder, which is made if it is missing.

    Returns:
        The sha256 of every file written, by name.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    hashes = {}
    for name, text in remote_code().items():
        data = text.encode()
        # Not through text mode: the same bytes, and so the same hash, on every system.
        (folder / name).write_bytes(data)
        hashes[name] = hashlib.sha256(data).hexdigest()
    return hashes


def _own_imports(path: Path) -> Iterator[tuple[ast.ImportFrom, Path]]:
    """The relative imports of a module, wherever they stand in it, each with the file that it names."""
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except OSError as error:
        raise RemoteCodeError(f"the source of {path.stem} cannot be read ({error.strerror}): {path}") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            if not node.module:
                raise RemoteCodeError(
                    f"{path.name}:{node.lineno}: 'from {'.' * node.level} import' names a package; import from a module"
                )
            target = path.parents[node.level - 1].joinpath(*node.module.split(".")).with_suffix(".py")
            if not target.is_file():
                raise RemoteCodeError(
                    f"{path.name}:{node.lineno}: {'.' * node.level}{node.module} is no module, {target} is missing"
                )
            yield node, target
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            if any(name.split(".")[0] == "neurallib" for name in names):
                raise RemoteCodeError(f"{path.name}:{node.lineno}: imports neurallib by name; use a relative import")


def _flattened(path: Path, imports: Iterable[tuple[ast.ImportFrom, Path]]) -> str:
    """The source of a module with every relative import naming a neighbour."""
    lines = path.read_bytes().replace(b"\r\n", b"\n").splitlines(keepends=True)
    for node, target in imports:
        # Columns of the ast count bytes.
        line, column = lines[node.lineno - 1], node.col_offset
        head, statement = line[:column], line[column:]
        flat, found = _RELATIVE_IMPORT.subn(f"from .{target.stem} import".encode(), statement, count=1)
        if not found:
            raise RemoteCodeError(f"{path.name}:{node.lineno}: write 'from … import' on one line")
        lines[node.lineno - 1] = head + flat
    return b"".join(lines).decode()


def _check(name: str, text: str, bundle: dict[str, str]) -> None:
    """The loader finds imports by a regular expression, in docstrings too: what it finds must be in the bundle."""
    for match in _SEEN_BY_THE_LOADER.finditer(text):
        module = match[1] or match[2]
        if f"{module}.py" not in bundle:
            line = text.count("\n", 0, match.start(match.lastindex or 0)) + 1
            raise RemoteCodeError(f"{name}:{line}: reads as an import of .{module}, which does not exist: reword it")
