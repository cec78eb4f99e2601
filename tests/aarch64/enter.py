"""Enter a root file system of another architecture: ``unshare ... enter.py ROOT PROGRAM ARGUMENT...``; loopback is all the network there is."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys

_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1


def main() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
    root, *command = sys.argv[1:]
    os.chroot(root)
    os.chdir("/")
    environ = {"HOME": "/home", "PATH": "/usr/bin:/bin", "PYTHONPATH": "/site", "LANG": "C.UTF-8"}
    os.execve(command[0], command, environ)


if __name__ == "__main__":
    main()
