"""One process of the stack: started from its command, held, and ended, by its own id."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.processes import ROOT, STOP_TIMEOUT_S


@dataclass
class Process:
    """A command, and the process that runs it while there is one."""

    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def pid(self) -> int:
        """Its number, while it runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_started(self) -> bool:
        """Whether it was started, and not stopped since."""
        return self._process is not None

    @property
    def has_ended(self) -> bool:
        """Whether it ended by itself after it was started."""
        return self._process is not None and self._process.poll() is not None

    def start(self) -> None:
        """Start it, in a process group of its own."""
        here = Path(sys.executable).parent
        path = f"{here}{os.pathsep}{os.environ['PATH']}"
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command,
                cwd=ROOT,
                env={**os.environ, **self.environment, "PATH": path},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def run(self) -> None:
        """Run it to its end. Raises AssertionError with what it said when it fails."""
        self.start()
        assert self._process is not None
        assert self._process.wait(60) == 0, self.log.read_text()
        self._process = None

    def ask_to_end(self) -> None:
        """Ask it to end, and to finish what it has. It need not run, nor be let go on before."""
        if self._process is not None:
            # The main process alone: it lets its children finish.
            self._process.terminate()
            self._tell(signal.SIGCONT)

    def stop(self) -> None:
        """End it as an operator would; whoever is left of it after a while is killed."""
        if self._process is None:
            return
        self.ask_to_end()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(STOP_TIMEOUT_S)
        self._process = None

    def hold(self) -> None:
        """Let it and its children stand still, as in a machine that is out of memory."""
        self._tell(signal.SIGSTOP)

    def release(self) -> None:
        """Let it go on."""
        self._tell(signal.SIGCONT)

    def _tell(self, number: signal.Signals) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
