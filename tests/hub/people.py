"""People who run commands against the hub of the tests, each in processes and with a home of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from loopback import TOKEN, Hub

WITHOUT_NEURALLIB = """
import sys
sys.modules["neurallib"] = sys.modules["numba"] = None
"""

ASK = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

torch.set_num_threads(1)
source, revision, prompt = sys.argv[1:]
trusted = {"trust_remote_code": True, "revision": revision}
tokenizer = AutoTokenizer.from_pretrained(source, **trusted)
model = AutoModelForCausalLM.from_pretrained(source, **trusted)
inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
calls = model(**inputs).calls[0]
print(json.dumps([[call.program, call.library, list(call.arguments), call.result] for call in calls]))
"""


class Person:
    """Somebody with a home of their own, and perhaps a token, who runs commands against the hub."""

    def __init__(self, hub: Hub, home: Path, token: str | None = TOKEN) -> None:
        home.mkdir(exist_ok=True)
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.upper().startswith("HF_") and not name.lower().endswith("_proxy") and name != "PYTHONPATH"
        }
        self.home = home
        self.environment = kept | {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "TRANSFORMERS_VERBOSITY": "error",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        if token is not None:
            self.environment["HF_TOKEN"] = token

    def process(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(word) for word in command],
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def start(self, *arguments: str | Path, command: str = "neurallib") -> subprocess.Popen[str]:
        """A command, which runs on; it can be interrupted even where the tests run in the background."""
        return subprocess.Popen(
            [Path(sys.executable).with_name(command), *arguments],
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def hf(self, *arguments: str | Path) -> str:
        """What the Hub's own command line says."""
        done = self.process(Path(sys.executable).with_name("hf"), *arguments)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def hf_complaint(self, *arguments: str | Path) -> str:
        done = self.process(Path(sys.executable).with_name("hf"), *arguments)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def neurallib(self, *arguments: str | Path) -> str:
        done = self.process(Path(sys.executable).with_name("neurallib"), *arguments)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def complaint(self, *arguments: str | Path) -> str:
        """The one line that a command fails with."""
        done = self.process(Path(sys.executable).with_name("neurallib"), *arguments)
        assert (done.returncode, done.stdout) == (1, ""), done.stdout + done.stderr
        lines = done.stderr.splitlines()
        assert len(lines) == 1 and lines[0].startswith("neurallib: "), done.stderr[-3000:]
        return lines[0]

    def python(self, script: str, *arguments: str | Path) -> Any:
        done = self.process(sys.executable, "-c", script, *arguments)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])


FORKS = """
import json, os, signal, sys, time, traceback
import peft, transformers
from neurallib import NeuralLibForCausalLM, command_line
from neurallib.trainer import adapted_model, adapters, publishing

for line in sys.stdin:
    arguments, changes, output = json.loads(line)
    child = os.fork()
    if child == 0:
        code = 70  # whatever goes wrong
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            time.sleep = lambda seconds: None
            os.environ.update(changes)
            for number, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(os.path.join(output, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            sys.argv = ["neurallib", *arguments]
            command_line.main()
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Hurried(Person):
    """Somebody whose commands ``neurallib`` are forks of one process that has imported what they need, one at a time.

    The client makes no pauses before it tries again.
    """

    def __init__(self, hub: Hub, home: Path, token: str | None = TOKEN) -> None:
        super().__init__(hub, home, token)
        self.forks = subprocess.Popen(
            [sys.executable, "-c", FORKS],
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, *arguments: str | Path, **environment: str) -> int:
        """Starts a command; its process."""
        assert self.forks.stdin is not None and self.forks.stdout is not None
        told = [[str(word) for word in arguments], environment, str(self.home)]
        self.forks.stdin.write(json.dumps(told) + "\n")
        self.forks.stdin.flush()
        return int(self.forks.stdout.readline())

    def end(self) -> subprocess.CompletedProcess[str]:
        """Waits for the command that was begun."""
        assert self.forks.stdout is not None
        code = int(self.forks.stdout.readline())
        said, complaint = ((self.home / name).read_text() for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess([], code, said, complaint)

    def process(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        if Path(command[0]).name != "neurallib":
            return super().process(*command)
        self.begin(*command[1:])
        return self.end()

    def close(self) -> None:
        assert self.forks.stdin is not None and self.forks.stdout is not None
        self.forks.stdin.close()
        self.forks.stdout.close()
        self.forks.wait()
