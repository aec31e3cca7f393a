"""The app that is measured: how its binary is built, how an image of it is checked, and how its server is started."""

from dataclasses import dataclass, replace
from pathlib import Path

INPUT = "/input"  # where a program finds what its work is done on


@dataclass(frozen=True)
class Check:
    """How an image shows that it works: its program, called with `arguments`, ends with `exit_code` and prints `prints`
    somewhere. Or, where `https_url` names an environment variable, it fetches from the HTTPS server whose URL is there
    and prints the address that this answers with, trusting the authority in the variable `https_ca`."""

    arguments: tuple[str, ...] = ()
    prints: str = ""
    exit_code: int = 0
    https_url: str = ""
    https_ca: str = ""

    @property
    def only_starts(self) -> bool:
        """Return whether the check shows no more than that the program starts: its arguments ask for a version or for
        help."""
        asks = {"--version", "-V", "-v", "version", "--help", "-h", "help"}
        return (
            bool(self.arguments)
            and not self.https_url
            and (asks.issuperset(self.arguments) or self.arguments[-1] in ("--help", "--version"))
        )


@dataclass(frozen=True)
class Serve:
    """How a server is started and what it is asked: `arguments` and `environment` with `{host}`, `{port}`, `{workers}`
    (its threads) and `{deadline_s}` (after which it should end by itself) in them, which each start fills in. `before`
    has the arguments of each call of the program that has to end with 0 before the server is started.

    It is asked by HTTP/1.1 or, where `http` is 2, HTTP/2, over TLS or not, and answers with `status` within
    `start_timeout_s` seconds of its start. With `grpc`, the name of a service or "", it is asked for its health.
    Without `keep_alive` each request is asked on a new connection."""

    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    method: str = "GET"
    path: str = "/"
    body: str = ""
    before: tuple[tuple[str, ...], ...] = ()
    tls: bool = False
    http: int = 1
    grpc: str | None = None
    status: int = 200
    keep_alive: bool = True
    start_timeout_s: int = 20

    @property
    def takes_port(self) -> bool:
        """Return whether the server is passed the port to listen on; otherwise its port is fixed."""
        return self._has_place("{port}")

    @property
    def takes_workers(self) -> bool:
        """Return whether the server is passed its number of threads."""
        return self._has_place("{workers}")

    def _has_place(self, place: str) -> bool:
        return any(place in text for text in (*self.arguments, *dict(self.environment).values()))

    def invocation(self, **values: str | int) -> tuple[list[str], dict[str, str]]:
        """Return the arguments, and the environment by variable, with these values in place of names in braces."""

        def filled(text: str) -> str:
            for name, value in values.items():
                text = text.replace(f"{{{name}}}", str(value))
            return text

        return [filled(text) for text in self.arguments], {key: filled(text) for key, text in self.environment}


@dataclass(frozen=True)
class Work:
    """What a program that ends does while its speed is measured: it is called with `arguments`, in which `{workers}` is
    its number of threads, and finds what the folder `input` has (by its whole path) at `INPUT`. As in a check, it ends
    with `exit_code` and prints `prints` somewhere."""

    arguments: tuple[str, ...]
    input: str = ""
    prints: str = ""
    exit_code: int = 0


@dataclass(frozen=True)
class Service:
    """What runs beside the app, such as a database: a container of `image` (a reference, or an archive's path), with
    `name` as its host name. `ready` is called in it until it ends with 0."""

    name: str
    image: str
    environment: tuple[tuple[str, str], ...] = ()
    command: tuple[str, ...] = ()
    ready: tuple[str, ...] = ()


@dataclass(frozen=True)
class Image:
    """What an image has beside the program. `files`: sources, as paths in the folder that builds get, and by each its
    place. Folders that are `writable` or `volumes` belong to the program's user. `healthcheck` are the words of a
    command. All places are absolute; a `workdir` of "" is that of the base. `places` are those of single files."""

    files: tuple[tuple[str, str], ...] = ()
    workdir: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    writable: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    volumes: tuple[str, ...] = ()
    healthcheck: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    places: tuple[str, ...] = ()


@dataclass(frozen=True)
class Configuration:
    """What a project itself tells cargo, beside its sources.

    `files` are the names of its configuration files; `rustflags` the compiler's flags by target; `tools` what those
    name by target and the builder may lack: linkers and wrappers. `overrides` are the settings of its profile for
    single packages: package and key. `strips`: its profile strips, which is left to the lab's. `toolchain` is the
    channel that it asks rustup for. `build_dir`: it has a folder of its own for what is compiled. `beside_sources` is a
    digest of what the builds of others' crates find, and Cargo.lock does not tell: variables, and files in their place.
    `date` is that of the sources, as its own variable SOURCE_DATE_EPOCH says, which the lab's would take the place of.
    """

    files: str = ""
    rustflags: tuple[tuple[str, tuple[str, ...]], ...] = ()
    tools: tuple[tuple[str, tuple[str, ...]], ...] = ()
    overrides: tuple[tuple[str, str], ...] = ()
    strips: bool = False
    toolchain: str = ""
    build_dir: bool = False
    beside_sources: str = ""
    date: int | None = None


@dataclass(frozen=True)
class App:
    """A binary of a Rust crate, as `lab_toml.load` reads it from a `lab.toml`.

    `name` is the binary's; `directory` the folder that builds get, `subdirectory` the folder in it that cargo is called
    in, "" for itself; `lock_sha256` the SHA-256 of its Cargo.lock in hex; `package` the crate's name, which cargo is
    told for a `member` of a workspace; `features` are on beside the allocator's, which are in `allocators` by the
    allocator's name; `manifest` is the path of its Cargo.toml from there, where that is in another folder, and else "",
    since cargo's resolver 1 takes features for the package of the folder; `moved_features` are those of the crate's
    default features that bring one of them, `default` where the file has all others; with `own_allocator` its sources
    set one without asking a feature. `profile` is the crate's profile that all cells begin with; `build_environment`
    what the build finds in its environment, `date` that of its sources, in seconds since 1970; `system_packages` are
    Debian's, for the build; `serve` is for a server only, which without a `check` has to answer what `serve` asks;
    `work` is for another program, whose speed is that of this work; `services` run beside the app whenever it runs;
    `image` is what an image of it has beside the program. `arguments` are the user's variables that builds get as build
    arguments; `secrets`, by name, "env" for the variable of that name, or a file. Like these, `ssh` (the agent) and
    `build_commands` are for the step that calls cargo; `git`: the repository.
    """

    name: str
    directory: Path
    lock_sha256: str
    package: str
    features: tuple[str, ...] = ()
    default_features: bool = True
    allocators: tuple[tuple[str, str], ...] = ()
    member: bool = False
    system_packages: tuple[str, ...] = ()
    check: Check | None = Check()
    serve: Serve | None = None
    work: Work | None = None
    subdirectory: str = ""
    profile: str = "release"
    own_allocator: bool = False
    moved_features: tuple[str, ...] = ()
    manifest: str = ""
    build_environment: tuple[tuple[str, str], ...] = ()
    configuration: Configuration = Configuration()
    date: int = 0
    services: tuple[Service, ...] = ()
    arguments: tuple[str, ...] = ()
    secrets: tuple[tuple[str, str], ...] = ()
    ssh: bool = False
    git: bool = False
    build_commands: tuple[str, ...] = ()
    image: Image = Image()

    @property
    def is_measured(self) -> bool:
        """Return whether the app's speed can be measured: it has `serve` (how to request its server) or `work`."""
        return bool(self.serve or self.work)

    @property
    def server(self) -> "App":
        """Return the app that is measured under load or at work: the app itself, or the server of myip. The server of
        myip has the feature `server`, and images that are not the client's."""
        if self.is_measured:
            return self
        return replace(self, name=f"{self.package}-server", features=("server",))
