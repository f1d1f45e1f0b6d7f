"""What is done on the host, where a compiled program would be made for each shape."""

from unlearnkit.host.arrays import concatenate_rows, on_host, put, replace_rows, take_rows
from unlearnkit.host.order import choose_rows, cycled_rows, epoch_rows, several_epochs, whole_rows
from unlearnkit.host.random import AnyKey, HostKey, host_key
from unlearnkit.host.reserve import reserve, room_for

__all__ = [
    "AnyKey",
    "HostKey",
    "choose_rows",
    "concatenate_rows",
    "cycled_rows",
    "epoch_rows",
    "host_key",
    "on_host",
    "put",
    "replace_rows",
    "reserve",
    "room_for",
    "several_epochs",
    "take_rows",
    "whole_rows",
]
