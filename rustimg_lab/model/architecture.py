"""The CPU architectures that the lab builds for, by the names that others have for them."""

from enum import Enum


class Architecture(Enum):
    """A CPU architecture; the value is the kernel's name for it."""

    X86_64 = "x86_64"

    @property
    def debian(self) -> str:
        """Return the name that Debian, Docker and valgrind have for it."""
        return {Architecture.X86_64: "amd64"}[self]

    @property
    def elf(self) -> str:
        """Return the name of the machine in the header of an ELF file."""
        return f"EM_{self.name}"

    def rust(self, libc: str) -> str:
        """Return Rust's target for programs that are linked with `musl` or `gnu` (glibc)."""
        return f"{self.value}-unknown-linux-{libc}"
