import socket
from pathlib import Path

from other_process import output, start

HERE = Path(__file__).parent


def test_eight_devices_train_audit_and_verify(tmp_path):
    assert "same on eight devices" in output(start(HERE / "eight_devices.py", tmp_path / "log"))


def test_two_processes_train_one_network():
    """To the bit as two devices of one process do."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = HERE / "two_processes.py"
    alone = output(start(script, port))
    both = [start(script, port, number) for number in (0, 1)]
    told = [output(process) for process in both]
    for printed in told:
        assert printed.splitlines()[-2:] == alone.splitlines()[-2:]
