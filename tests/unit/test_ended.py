"""What tests of processes stand on."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.ended import hearing_ctrl_c

WAITS = "import signal; signal.pause()"


def test_a_process_hears_ctrl_c_though_we_were_started_to_ignore_it() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with hearing_ctrl_c():
            process = subprocess.Popen([sys.executable, "-c", WAITS], stderr=subprocess.DEVNULL)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        process.send_signal(signal.SIGINT)
        assert process.wait() == -signal.SIGINT
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_what_we_do_at_ctrl_c_is_as_it_was_afterwards(handler: signal.Handlers) -> None:
    before = signal.signal(signal.SIGINT, handler)
    try:
        with hearing_ctrl_c():
            pass
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)
