"""The snippet of SECURITY.md that compares a folder's code with ours, run as it stands."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

from neurallib.configuration.remote_code import write_remote_code

SNIPPET = re.findall(r"```python\n(.*?)```", (Path(__file__).parent.parent / "SECURITY.md").read_text(), flags=re.DOTALL)[0]


def compared(folder: Path) -> tuple[list[str], list[str]]:
    """What the snippet prints of a folder named MODEL: the files that are not ours, and those that are missing."""
    done = subprocess.run([sys.executable, "-c", SNIPPET], cwd=folder.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    return ast.literal_eval(found["not ours"]), ast.literal_eval(found["missing"])


def test_only_our_own_code_compares_equal(tmp_path: Path) -> None:
    folder = tmp_path / "MODEL"
    folder.mkdir()
    write_remote_code(folder)
    assert compared(folder) == ([], [])
    genuine = (folder / "modeling_neurallib.py").read_text()
    (folder / "z").mkdir()
    (folder / "z" / "modeling_neurallib.py").write_text(genuine)
    (folder / "modeling_neurallib.py").write_text("print('not ours')\n")
    assert compared(folder) == (["modeling_neurallib.py", "z/modeling_neurallib.py"], [])
    (folder / "modeling_neurallib.py").unlink()
    assert compared(folder) == (["z/modeling_neurallib.py"], ["modeling_neurallib.py"])
