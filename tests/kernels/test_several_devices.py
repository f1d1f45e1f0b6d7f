from pathlib import Path

from other_process import output, start


def test_eight_devices_share_rows():
    script = Path(__file__).with_name("eight_devices.py")
    assert "same on eight devices" in output(start(script))
