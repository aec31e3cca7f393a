"""The CPU architectures that the lab builds for, by the names that others have for them."""

import platform
from enum import Enum
from typing import Self

from rustimg_lab.errors import check_known


class Architecture(Enum):
    """A CPU architecture; the value is the kernel's name for it."""

    X86_64 = "x86_64"
    AARCH64 = "aarch64"

    @classmethod
    def named(cls, name: str) -> Self:
        """Return the architecture with the kernel's or Debian's name. Raises LabError, with the nearest name, for
        another name."""
        architectures = {text: member for member in cls for text in (member.debian, member.value)}
        check_known("architecture", name, architectures)
        return architectures[name]

    @property
    def debian(self) -> str:
        """Return the name that Debian, Docker and valgrind have for it."""
        return {"X86_64": "amd64", "AARCH64": "arm64"}[self.name]

    @property
    def elf(self) -> str:
        """Return the name of the machine in the header of an ELF file."""
        return f"EM_{self.name}"

    @property
    def mark(self) -> str:
        """Return the suffix in the names of cells, images and files of this architecture, such as `-arm64`; "" for
        x86_64."""
        return "" if self is Architecture.X86_64 else f"-{self.debian}"

    def rust(self, libc: str) -> str:
        """Return Rust's target for programs that are linked with `libc`: `musl` or `gnu` (glibc)."""
        return f"{self.value}-unknown-linux-{libc}"


# Of this machine; `engine.doctor` refuses any other machine, and an engine of another.
NATIVE = Architecture.AARCH64 if platform.machine() in ("aarch64", "arm64") else Architecture.X86_64
TARGETS = tuple(architecture.rust(libc) for architecture in Architecture for libc in ("musl", "gnu"))  # of Rust
