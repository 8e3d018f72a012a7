from __future__ import annotations

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int, number: signal.Signals) -> None:
    """Have the kernel send this process `number` when `parent` ends, however that happens.

    Call it in the child, after its fork; it outlasts an exec.
    """
    if number is not signal.SIGKILL:
        # The parent's handler came with the fork, and would swallow a signal before the exec.
        signal.signal(number, signal.SIG_DFL)
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(number))
    if os.getppid() != parent:
        # The parent was gone before the kernel knew.
        os._exit(1)
