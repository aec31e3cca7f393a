"""A crate -> how its server gets its address, and which requests it answers, as its sources name them."""

import functools
import re
from collections import Counter
from pathlib import Path
from typing import Any

from rustimg_lab.build import crate_settings
from rustimg_lab.build.crate import READER, Crate
from rustimg_lab.build.crate_settings import HOST_NAME, LOOPBACK, LOOPBACK_HOST, OWN
from rustimg_lab.build.known import KNOWN, SOURCES

_SERVER = re.compile(
    r"TcpListener|TcpSocket|\bHttpServer\b|axum::|\bserve_connection\w*\(|hyper\w*::server\b"
    r"|\b\w*listen\w*\s*:\s*(?:\w+<)?(?:\w+::)*(?:SocketAddr|IpAddr|u16)\b"
)
_SERVES = re.compile(r"\bserve\(")  # by TCP, or by its standard input
_OTHER = re.compile(
    r'\bUdpSocket::bind\w*\(\s*(?!&?(?:"[^"]*:0"|\([^()]*,\s*0\)))|\bUnixListener\b'
)  # with port 0 it asks
_OF_GRPC = re.compile(
    r"\badd_(?:optional_)?service\(|\bServer::builder\(|\btransport::(?:\{[^}]*\b)?Server\b|\bRoutes::"
)
_VARIABLE = re.compile(
    r'(?:\b(?:var(?:_os)?\(|env(?:\((?!\s*"\w+",)|\s*=))\s*|#\[envconfig\([^\]]*?\bfrom\s*=\s*)"(\w+)"'
    rf'|(?<!\.)\b{READER}(?:::<[^>()]*>)?\(\s*&?"([A-Z]\w*)"'
)
# Where a variable is read by a constant that holds its name; and a function that reads one by its
# argument, however it is called.
_BY_NAME = re.compile(rf"(?:(?<!\.)\b{READER}(?:::<[^>()]*>)?\(\s*&?|\benv\s*=\s*)(?:\w+::)*([A-Z][A-Z\d_]*)\b")
_READS = re.compile(
    r"\bfn\s+(\w+)\s*(?:<[^>]*>)?\(\s*(\w+)\s*:\s*&(?:'\w+\s+)?str\b[^{;]*\{(?:(?!\bfn\b)[\s\S]){0,400}?"
    r"\bvar(?:_os)?\(\s*&?\2\b"
)
_BINDS = re.compile("(?i)bind|listen")
# Where a name is set to an address or a port; where it is set to anything, or is a parameter; and where it is read.
_IS = re.compile(
    r"\b(?:const|static|let)\s+(\w+)\s*(?::[^=]{1,40}?)?=\s*&?"
    r'(\d[\d_]{1,5}|\[[\d, ]+\]|"[\w.:\[\]]+"|\(\s*(?:\[[\d, ]+\]|"[\w.:]+")\s*,\s*\d{2,5}\s*\))(?:_?u16)?'
    r'(?:\.parse(?:::<[^>]*>)?\(\)(?:\.unwrap\(\)|\.expect\("[^"]*"\)|\?)?)?\s*;'
)
# A constant, or a default, that is of another server than the program's own.
_OF_OTHERS = re.compile(
    r"\b(?:const|static)\s+\w*(?:METRICS|PROMETHEUS|ADMIN|DEBUG)\w*\s*:[^;]*;"
    r"|\b\w*(?:metrics|prometheus|admin|debug)\w*(?:\s*\.\w+)*\s*\.unwrap_or\w*\([^;]*;"
)
_SET = re.compile(r"(?:\b(?:const|static|let|mut)\s+|[(,|{]\s*(?:pub\s+)?)(\w+)\s*(?:[:=](?![:=])|\)\s*=(?!=)|\|)")
_READ = re.compile(r'(?<![.\w"])(?:\w+::)*(\w+)\b(?!["(!]|\s*[:=](?![:=]))')
# An address that nothing outside a container reaches, and its port.
_LOOPBACK = rf'(?:"{LOOPBACK_HOST}(?::(\d{{2,5}}))?"|\[127, 0, 0, 1\](?:,\s*(\d{{2,5}}))?)'
_DEFAULT = re.compile(rf"\bDEFAULT_(\w+)\b[^=;]*=\s*&?{_LOOPBACK}")
_SUBCOMMAND = re.compile(
    r"\bSubcommand\b|#\[derive\([^\]]*\b(?:Parser|StructOpt)\b[^\]]*\]\s*(?:#\[[^\]]*\]\s*)*(?:pub\s+)?enum\b"
    r"|\.subcommands?\(|\((?:[^()\]]*,\s*)?subcommand\b"
)


@functools.cache
def is_server(crate: Crate) -> bool:
    """Return whether the program listens, as its sources or its crates tell."""
    serves = crate.found(_SERVES) and crate.uses().isdisjoint(KNOWN["by_standard_input"]["names"])
    return bool(crate.found(_SERVER) or serves or _crates(crate))


@functools.cache
def _crates(crate: Crate) -> set[str]:
    """The crates by which the program is a server; tonic may be there for a client alone."""
    names = crate.uses() & {*KNOWN["server_crates"]["names"]}
    return names if "tonic" not in names or crate.found(_OF_GRPC) else names - {"tonic"}


def _draws(crate: Crate) -> list[str]:
    """The crates by which a program is for a screen, in whose sources a listener may only wait for a browser."""
    return sorted(crate.uses() & {*KNOWN["screen_crates"]["names"]})


def serve(crate: Crate, settings: list[tuple[Path, str, str]]) -> dict[str, Any]:
    """Return how a server gets its address, by variables or else by flags that its sources name, or which port it
    always has, and what it is asked; empty for no server, and when they name none. The port may be named by the
    `settings` that the program reads (`crate_settings.read`)."""
    if not is_server(crate) or _draws(crate):
        return {}
    uses, flags = crate.uses(), _flags(crate)
    bound = [port for text in _addresses(crate) for found in SOURCES["bound"].findall(text) for port in found]
    ports = {int(port) for port in bound if port}
    by_itself = next((name for name in KNOWN["server_variables"] if name in uses), "")
    environment, opened = KNOWN["server_variables"].get(by_itself, {}), KNOWN["server_opened"].get(by_itself, {})
    is_set = not environment or not crate.found(SOURCES["by_itself"]) or crate.found(SOURCES["set_otherwise"])
    if is_set and (own := _told(crate, _variables(crate), ports)):
        environment, opened = own, _opened(crate, own)
    arguments = {} if environment else _told(crate, list(flags), ports)
    is_told = bool(environment or arguments)
    ports = ports if is_told or len(ports) == 1 else crate_settings.ports(settings)
    if not is_told and len(ports) != 1:
        return {}
    asked = {"path": paths[0]} if (paths := crate.found(SOURCES["path"])) else {}
    # axum can have gRPC and its own routes on one port; beside other crates gRPC has a port of its own.
    if "tonic" in (named := _crates(crate)) and named <= {"axum", "tonic"}:
        asked = {"grpc": ""} if "tonic-health" in uses else {"http": 2}
    if crate.found(SOURCES["closes"]):
        asked["keep_alive"] = False
    passed, to_open = (
        [text for flag, value in each.items() for text in (flags[flag], value)]
        for each in (arguments, _opened(crate, arguments))
    )
    fixed = [] if is_told else sorted(ports)
    found = {"environment": environment, "arguments": passed, "ports": fixed, **asked}
    found |= {"closed": crate_settings.first(settings, HOST_NAME, LOOPBACK), "opened": opened}
    certificate = crate_settings.first(settings, SOURCES["certificate"], re.compile(r"\S+"))
    return found | {"to_open": " ".join(to_open), "certificate": certificate}


def notes(crate: Crate, found: dict[str, Any]) -> dict[str, object]:
    """Return what to know of how a program is asked that is addressed so (`serve`), and whether it holds."""
    if not is_server(crate):
        said = "it listens, and not by TCP, which [serve] does not ask: take a [check] that ends"
        return {said: crate.found(_OTHER)}
    if drawn := ", ".join(_draws(crate)):
        return {f"it draws on a screen ({drawn}) and listens too: where it serves without one, fill in [serve]": True}
    speaks_http = crate.found(SOURCES["http"]) or _crates(crate)
    others = sorted(crate.uses() & {*KNOWN["other_protocols"]["names"]})
    others += [f"port {each}" for each in found.get("ports", ()) if each in KNOWN["other_protocols"]["ports"]]
    tls = ", ".join(filter(None, [*crate.found(SOURCES["tls"]), found.get("certificate")]))
    is_told = "{host}" in f"{found.get('environment')}{found.get('arguments')}"
    return {
        "it looks like a server: fill in [serve]; until then its check shows only a start": not found,
        "its sources name no HTTP server: if it speaks something else, take a [check] in place of [serve]": found
        and not speaks_http,
        f"it may answer another protocol there ({', '.join(others)}): then take a [check] in place of [serve], which "
        "asks HTTP": found and speaks_http and others,
        "its sources bind 127.0.0.1, or ::1, which nothing outside its container reaches: let a variable or a flag "
        "name the address": not is_told and any(map(SOURCES["loopback"].search, _addresses(crate))),
        "it listens on 127.0.0.1 by default, which nothing outside its container reaches: whoever starts its image "
        f"gives it `{found.get('to_open')}`": found.get("to_open"),
        f"its configuration has it listen on 127.0.0.1 ({found.get('closed')}), which nothing outside its container "
        "reaches: its image needs another file, or a variable": found.get("closed") and not found["opened"],
        f"it can answer over TLS ({tls}): where it does, `tls = true` stands in [serve]": found and tls,
        "it has no crate tonic-health: that it answers is checked, and not its health": found.get("http") == 2,
        "it has subcommands: where one of them serves, that one stands first in `arguments` of [serve]": found
        and crate.found(_SUBCOMMAND),
    }


@functools.cache
def _addresses(crate: Crate) -> list[str]:
    """The sources with their addresses in one form, and the values of constants in the place of their names; but for
    those of defaults and of other programs."""
    texts = [_in_one_form(_OF_OTHERS.sub("", text)) for text in crate.program()]
    often = Counter(name for text in texts for name in _SET.findall(text))
    values = {
        name: value.replace("_", "")
        for text in texts
        for name, value in _IS.findall(text)
        if often[name] == 1 and not any(SOURCES[each].search(name) for each in ("others", "services", "default"))
    }
    return [
        _in_one_form(_READ.sub(lambda read: values.get(read[1], read[0]), text))
        if any(name in text for name in values)
        else text
        for text in texts
    ]


def _in_one_form(text: str) -> str:
    for form, plain in KNOWN["addresses"].items() if SOURCES["formed"].search(text) else ():
        text = re.sub(form, plain, text)
    return text


def _variables(crate: Crate) -> list[str]:
    """The variables that the sources read: by their names, by a constant, or by a function of the crate."""
    names, constants = ["".join(each) for each in crate.found(_VARIABLE)], dict(crate.found(SOURCES["constant"]))
    names += [constants[each] for each in crate.found(_BY_NAME) if each in constants]
    names += [field.upper() for field in crate.found(SOURCES["by_field"])] + crate_settings.variables(crate)
    if readers := {name for name, _ in crate.found(_READS)}:
        names += crate.found(re.compile(rf'(?<![.\w])(?:{"|".join(sorted(readers))})\(\s*"([A-Z]\w*)"'))
    return list(dict.fromkeys(names))


def _flags(crate: Crate) -> dict[str, str]:
    """The flags that the sources name, as they are called, by their names and those of their fields; by a letter where
    they have no other name."""
    fields = [(named, field.replace("_", "-")) for named, field in crate.found(SOURCES["field"])]
    names = [*crate.found(SOURCES["flag"]), *(named or field for named, field in fields)]
    letters = crate.found(SOURCES["short"]) + crate.found(SOURCES["short_by_call"])
    flags = {name: f"-{letter or name[0]}" for letter, name in letters} | {name: f"--{name}" for name in names}
    return {field: f"--{named}" for named, field in fields if named} | flags


def _told(crate: Crate, names: list[str], ports: set[int]) -> dict[str, str]:
    """What a server's variables or flags are set to: one for its port and those for its host, or one for both. Beside
    one port that the sources name, only those that are a server's by their names. A name of another program counts for
    nothing, unless this one has it."""
    of_grpc = _crates(crate) == {"tonic"}
    begin = f"{crate.target['name']}_".replace("-", "_")
    rest = {name: _without_own(name, begin) for name in names}
    own = [name for name in names if OWN.search(name) or name.replace("-", "_").lower().startswith(begin)]
    port, address, host = (
        [
            name
            for name in (own if len(ports) == 1 else names)
            if SOURCES[part].search(name)
            and not SOURCES["others"].search(re.sub("(?i)grpc", "", rest[name]) if of_grpc else rest[name])
            and not SOURCES["services"].search(rest[name])
        ]
        for part in ("port", "address", "host")
    )
    whole = [name for name in dict.fromkeys([*address, *host]) if _is_whole(crate, name)]
    if whole or not port:
        ordered = sorted(whole or address, key=lambda name: "http" not in name.lower())
        return {name: "{host}:{port}" for name in ordered[:1]}
    chosen = min(port, key=lambda name: (name.upper() not in ("PORT", "HTTP_PORT"), name not in own, len(name)))
    fitting = sorted(
        (name for name in host if name not in port),
        key=lambda each: (not _BINDS.search(each), re.split("[_-]", each)[0] != re.split("[_-]", chosen)[0], len(each)),
    )
    return {chosen: "{port}"} | {name: "{host}" for name in fitting[:1]}


def _without_own(name: str, begin: str) -> str:
    """A name without what is of the program's own, by which it is of no other: `MEILI_` too, of meilisearch."""
    word, mark = re.match(r"([^_-]*)([_-]?)", name.lower()).groups()
    is_short = mark and begin.startswith(word) and begin[len(word)].isalnum()
    return name[len(word) + 1 :] if is_short else re.sub(f"(?i)^{begin}", "", name)


def _is_whole(crate: Crate, name: str) -> bool:
    """Whether the field of a variable or a flag is an address with its port, or is one by default."""
    whole = r'"[\w.\[\]:]*:\d{2,5}"'
    by_default = rf'"{name}"\)?[^"\];]{{0,80}}{whole}|{whole}[^"\]]{{0,60}}(?:"{name}"|{_field(name)})'
    return bool(crate.found(re.compile(rf"{_field(name)}\s*(?:\w+<)*(?:\w+::)*SocketAddr\b|{by_default}")))


def _field(name: str) -> str:
    """The pattern of the field of a flag, behind its attribute."""
    return rf"\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))?\s+)?(?i:{name.replace('-', '_')})\s*:"


def _opened(crate: Crate, told: dict[str, str]) -> dict[str, str]:
    """What those of a server's variables or flags that are a loopback address by default have to be in an image."""
    ports = {name: _port_by_default(crate, name) for name, value in told.items() if "{host}" in value}
    return {
        name: told[name].format(host="0.0.0.0", port=port)
        for name, port in ports.items()
        if port is not None and (port or "{port}" not in told[name])
    }


def _port_by_default(crate: Crate, name: str) -> str | None:
    """The port beside the loopback address that a variable or a flag is by default, "" for none; None where it is
    another address by default, or where the sources do not tell."""
    defaults = (
        rf'"(?:--)?{name}"[^";]{{0,120}}{_LOOPBACK}',  # also of an attribute: `env = "NAME", default_value = "..."`
        rf'\bdefault_value\w*\s*=[^"\]]{{0,60}}{_LOOPBACK}(?:[^"\]]{{0,60}}"{name}"|[^\]]{{0,120}}{_field(name)})',
        rf'"{name}"\)(?:(?!Arg::|;)[\s\S]){{0,300}}?\.default_value\w*\(\s*{_LOOPBACK}',
    )
    texts, fields = _addresses(crate), [name.replace("-", "_").lower()]
    fields += crate.found(re.compile(rf'"{name}"[^\]]*\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))?\s+)?(\w+)\s*:'))
    defaults += (rf"\b(?:{'|'.join(fields)})\s*\.unwrap_or\w*\(\s*(?:\|\|\s*)?[\w:(]*?{_LOOPBACK}",)
    found = [match.groups() for text in texts for each in defaults if (match := re.search(each, text))]
    constants = [each for text in texts for each in _DEFAULT.findall(text)]
    found += [ports for tail, *ports in constants if name.upper().replace("-", "_").endswith(tail)]
    return next(filter(None, found[0]), "") if found else None
