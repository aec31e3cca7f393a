"""What a `lab.toml` may say: its keys, their types, and the values that can work."""

import re
from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rustimg_lab.build import contents
from rustimg_lab.errors import LabError, check_keys, unknown_name
from rustimg_lab.host.files import resolve_path
from rustimg_lab.model import toml
from rustimg_lab.model.app import Check, Serve, Service, Work
from rustimg_lab.model.matrix import ALLOCATORS

# Every key with the types that its value may have, by table; "" is the file itself.
KEYS: dict[str, dict[str, tuple[type, ...]]] = {
    "": {"binary": (str,), "package": (str,), "features": (list,), "default_features": (bool,), "packages": (list,),
         "profile": (str,), "context": (str,), "own_allocator": (bool,), "build_environment": (dict,),
         "from_environment": (list,), "secrets": (dict,), "ssh": (bool,), "git": (bool,), "build_commands": (list,),
         "allocators": (dict,), "check": (dict,), "serve": (dict,), "work": (dict,), "services": (list,),
         **contents.KEYS},
    "allocators": dict.fromkeys(ALLOCATORS, (str,)),
    "check": toml.types(Check),
    "serve": toml.types(Serve),
    "work": toml.types(Work),
}  # fmt: skip
NAME = r"[A-Za-z0-9_][A-Za-z0-9_-]*"
_FEATURE, _VARIABLE = r"[A-Za-z0-9_][A-Za-z0-9_./:+?-]*", r"[A-Za-z_][A-Za-z0-9_]*"
_OF_CONTAINER = r"[A-Za-z_][A-Za-z0-9_.-]*"  # a variable, at a container's start
_SERVICE = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")  # a host's name, and a part of an image's
_REFERENCE = re.compile(r"[\w./:@-]+", re.ASCII)
_FILE = re.compile(r"[^'\"`$\\,\n]+")  # as the shell and BuildKit's options take it
# The form of texts, by table and key, and what is said of another.
_FORMS = {
    **dict.fromkeys(
        ("binary", "package"),
        (NAME, "cannot be the name of a package or a binary here: take ASCII letters, digits, - and _"),
    ),
    "profile": (r"[A-Za-z0-9_-]+", "cannot be the name of a profile: cargo takes letters, digits, - and _"),
    "features": (_FEATURE, "cannot be such a name"),
    "packages": (r"[a-z0-9][a-z0-9+.-]+", "cannot be such a name"),
    "from_environment": (_VARIABLE, "cannot be such a name"),
    "build_commands": (rf"[^{toml.CONTROL}]*[^\s{toml.CONTROL}][^{toml.CONTROL}]*", "cannot be a command of one line"),
    **{f"[allocators] {name}": (_FEATURE, "cannot be the name of a feature") for name in ALLOCATORS},
    **dict.fromkeys(("[check] https_url", "[check] https_ca"), (_VARIABLE, "cannot be the name of a variable")),
    "[serve] method": ("GET|POST|PUT", "is not one of GET, POST, PUT"),
    "[serve] path": ("/[!-~]*", "cannot be a path: it begins with /, and a space is %20 in it, another letter %C3%A9"),
}
_RANGES = {
    "[check] exit_code": range(256), "[work] exit_code": range(256), "[serve] http": range(1, 3),
    "[serve] status": range(200, 600), "[serve] start_timeout_s": range(1, 601),
}  # fmt: skip
_PLACES = ("host", "port", "workers", "deadline_s")  # what each start of a server fills in
_WORKS = ("workers",)  # and each call at work
_SERVICE_BYTES = 127
_HEALTH = {"method": "POST", "path": "/grpc.health.v1.Health/Check", "http": 2}  # how gRPC asks
TOKEN = re.compile(r"CARGO_REGISTR(Y|IES_\w+)_TOKEN")
# Variables that the step which calls cargo has already: the lab's, BuildKit's and the builder's; and cargo's own.
_LABS = {
    "RUST_TARGET", "BINUTILS", "TARGET_CC", "SOURCE_DATE_EPOCH", "RUST_IMAGE", "BASE_IMAGE", "ca", "PATH", "HOME",
    "GIT_SSH_COMMAND", "GIT_SSL_CAINFO", "SSH_AUTH_SOCK",
    *(f"{prefix}{suffix}" for prefix in ("TARGET", "BUILD") for suffix in ("PLATFORM", "OS", "ARCH", "VARIANT")),
}  # fmt: skip
_CARGOS = re.compile(
    r"CARGO_((TARGET|PROFILE|HTTP|NET|REGISTRIES|REGISTRY|PKG|CFG|FEATURE|MANIFEST|CRATE|BIN)_\w+|HOME|ENCODED_RUSTFLAGS"
    r"|BUILD_(RUSTFLAGS|TARGET|TARGET_DIR|BUILD_DIR|RUSTC_WORKSPACE_WRAPPER))|RUSTFLAGS|RUSTC_BOOTSTRAP|RUSTC_WORKSPACE_WRAPPER"
)


def check(settings: dict[str, Any]) -> None:
    """Raise LabError, with the key, on an unknown key and on a value that cannot work."""
    for table, keys in KEYS.items():
        prefix, entries = (f"[{table}] ", settings.get(table, {})) if table else ("", settings)
        check_keys(entries, keys, prefix)
        for key, value in entries.items():
            _check_value(prefix, key, value)
    contents.check(settings)
    check_table = settings.get("check", {})
    if ("https_url" in check_table and ({"prints", "exit_code"} & set(check_table) or settings.get("services"))) or (
        "https_ca" in check_table and "https_url" not in check_table
    ):
        raise LabError("[check] 'https_url' goes with 'https_ca' and 'arguments', and with nothing else")
    _check_variables(settings)


def _check_value(prefix: str, key: str, value: Any) -> None:
    """Raises LabError on a text of another form, also in a list, and on a number that is not in its range."""
    texts = value if isinstance(value, list) and key not in ("before", "services", "ports") else []
    if not all(isinstance(text, str) for text in texts):
        raise LabError(f"{prefix}'{key}' has something in it that is no text")
    form, complaint = _FORMS.get(f"{prefix}{key}", (".*", ""))
    for text in [value] if isinstance(value, str) else texts:
        if complaint and not re.fullmatch(form, text):
            raise LabError(f"{prefix}'{key}': {text!r} {complaint}")
    limits = _RANGES.get(f"{prefix}{key}")
    if limits and value not in limits:
        raise LabError(f"{prefix}'{key}': {value} is not within {limits[0]} to {limits[-1]}")


def _check_variables(settings: dict[str, Any]) -> None:
    """Raises LabError on a variable of the build that it cannot have."""
    texts, secrets, names = (
        settings.get("build_environment", {}),
        settings.get("secrets", {}),
        settings.get("from_environment", []),
    )
    for name, value in (*texts.items(), *secrets.items(), *((name, "") for name in names)):
        if not re.fullmatch(_VARIABLE, name) or not toml.is_line(value):
            raise LabError(f"{name!r} is no variable with a text of one line")
        is_token = bool(TOKEN.fullmatch(name))
        if name in _LABS:
            raise LabError(f"the variable '{name}' is set by the lab or its builder: the program needs another name")
        if _CARGOS.fullmatch(name) and not (name in secrets and is_token):
            place = "[secrets]" if is_token else ".cargo/config.toml"
            raise LabError(f"the variable '{name}' is cargo's own, which it or the lab sets; the place is {place}")
        if [*texts, *secrets, *names].count(name) > 1:
            raise LabError(f"the variable '{name}' is there twice")
        if name in secrets and not _FILE.fullmatch(value):
            raise LabError(f"[secrets] '{name}': '{value}' is neither \"env\" nor a path without quotes and commas")


def serve(table: dict[str, Any], ports: list[int]) -> Serve:
    """Return what `[serve]` says; `ports` are those of the file. Raises LabError on what no start of a server can
    have."""
    environment = table.get("environment", {})
    _check_environment("[serve] ", environment)
    calls = table.get("before", [])
    if not all(isinstance(call, list) and all(isinstance(text, str) for text in call) for call in calls):
        raise LabError("[serve] 'before' is a list of lists of arguments, such as [[\"migrate\"]]")
    _check_places("serve", _PLACES, [*table.get("arguments", []), *environment.values()])
    nested_fields = {"environment": tuple(sorted(environment.items())), "before": tuple(map(tuple, calls))}
    server = Serve(**toml.freeze(table) | nested_fields)
    if not server.takes_port and not ports:
        raise LabError(
            "[serve] has no {port} in its arguments or environment: the port is another at each start; of a server "
            "with a port of its own, `ports` names it"
        )
    http_keys = table.keys() & {"method", "path", "body", "status"} or table.get("http") == 1
    if "grpc" in table and (http_keys or len(table["grpc"].encode()) > _SERVICE_BYTES):
        raise LabError("[serve] 'grpc' is the name of a service, and goes with no method, path, body, status, http = 1")
    if (table.get("http") == 2 or "grpc" in table) and not server.keep_alive:
        raise LabError("[serve] 'keep_alive' = false goes with HTTP/1 alone: leave out http = 2 or grpc")
    return replace(server, **_HEALTH) if "grpc" in table else server


def work(table: dict[str, Any], directory: Path) -> Work:
    """Return what `[work]` says, with the absolute path of its input, which need not exist until it is measured. Raises
    LabError on what no call can have."""
    program = toml.make(Work, table, "[work] ")
    _check_places("work", _WORKS, program.arguments)
    return replace(program, input=program.input and str(resolve_path(program.input, directory, "[work] 'input': ")))


def _check_places(table: str, names: tuple[str, ...], texts: Iterable[str]) -> None:
    """Raises LabError on a placeholder that is nearly one of those that the lab fills in; others are the program's."""
    for place in re.findall(r"\{(\w+)\}", " ".join(texts)):
        if place not in names and get_close_matches(place.lower(), names, cutoff=0.75):
            raise unknown_name(f"[{table}] placeholder", f"{{{place}}}", [f"{{{name}}}" for name in names])


def _check_environment(prefix: str, environment: dict[str, Any]) -> None:
    """Raises LabError on a variable that no container can have."""
    if not all(isinstance(text, str) for text in environment.values()):
        raise LabError(f"{prefix}'environment' has something in it that is no text")
    if bad_names := [name for name in environment if not re.fullmatch(_OF_CONTAINER, name)]:
        raise LabError(f"{prefix}'environment': {bad_names[0]!r} cannot be the name of a variable")


def services(tables: list[Any], directory: Path) -> tuple[Service, ...]:
    """Return what `[[services]]` says, with absolute paths of archives. Raises LabError on an invalid name, image,
    command or environment."""
    from rustimg_lab.build.archives import detect  # loads the docker package, which help and completion do not need

    entries: dict[str, Service] = {}
    for table in tables:
        service = toml.make(Service, table, prefix := f"[[services]] {len(entries) + 1}: ")
        _check_environment(prefix, dict(service.environment))
        if not all(isinstance(text, str) for text in (*service.command, *service.ready)):
            raise LabError(f"{prefix}'command' or 'ready' has something in it that is no text")
        if not _SERVICE.fullmatch(service.name) or service.name in entries:
            raise LabError(f"{prefix}'name': '{service.name}' cannot be a host's name, or is that of another service")
        image = str(resolve_path(service.image, directory, prefix)) if detect(service.image) else service.image
        if image == "packages" or not (detect(image) or _REFERENCE.fullmatch(image)):
            raise LabError(f"{prefix}'image': '{image}' cannot be the name of an image, or the path of an archive")
        entries[service.name] = replace(service, image=image, environment=tuple(sorted(service.environment)))
    return tuple(entries.values())
