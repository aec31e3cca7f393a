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
_OF_HOST = re.compile(  # the name of any server's host, in plain words alone
    "(?i)(?:(?:host(?:name)?|ip|addr(?:ess)?|interfaces?|inet|service|node|main|http|v4)[_-]?)+"
)
# Two listeners, one for HTTP and one for gRPC; and where both are on one port.
_HTTP, _GRPC = re.compile(r"\baxum::serve\("), re.compile(r"\bServer::builder\(")
_TOGETHER = re.compile(r"\binto_(?:service|router|axum_router)\(|\bRoutes::|\bprepare\(")
# Where a name is set to an address or a port; where it is set to anything, or is a parameter; and where it is read.
_IS = re.compile(
    r"\b(?:const|static|let)\s+(\w+)\s*(?::[^=]{1,40}?)?=\s*&?"
    r'(\d[\d_]{1,5}|\[[\d, ]+\]|"[\w.:\[\]]+"|\(\s*(?:\[[\d, ]+\]|"[\w.:]+")\s*,\s*\d{2,5}\s*\))(?:_?u16)?'
    r'(?:\.parse(?:::<[^>]*>)?\(\)(?:\.unwrap\(\)|\.expect\("[^"]*"\)|\?)?)?\s*;'
)
# A constant, or a default, that is of another server than the program's own.
_OF_OTHERS = re.compile(
    r"\b(?:const|static)\s+\w*(?:METRICS|PROMETHEUS|ADMIN|DEBUG|HEALTH)\w*\s*:[^;]*;"
    r"|\bfn\s+default_\w*(?:metrics|prometheus|admin|debug|health)\w*\(\)[^{;]*\{[^{}]*\}"
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
# The subcommands of an enum; one that is not named as its variant; what is in brackets; and those that serve.
_SUBCOMMANDS = re.compile(
    r"#\[derive\([^\]]*\b(?:Subcommand|Parser|StructOpt)\b[^\]]*\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))?\s+)?enum\s+\w+"
    r"\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
)
_RENAMED = re.compile(r'#\[[^\]]*\bname\s*=\s*"?(\w*)\b[^\]]*\](?!\s*(?:#\[[^\]]*\]\s*)*(?i:\1)\b)')
_IN_BRACKETS = re.compile(r"\([^()]*\)|\{[^{}]*\}")
_SERVING = re.compile(r"(?:^|,)\s*(?:#\[[^\]]*\]\s*)*(Serve|Server|Start|Daemon|Run)\s*(?=,|$)")
_FIELDS_OF_OTHERS = re.compile(r"\b(?!(?:Serve|Server|Start|Daemon|Run)\b)[A-Z]\w*\s*\{[^{}]*\}")
_SERVING_BY_CALL = re.compile(
    r'\.subcommands?\(\s*(?:\w+::)*(?:App|Command|SubCommand)::(?:new|with_name)\(\s*"(serve|server|start|daemon|run)"'
)


@functools.cache
def is_server(crate: Crate) -> bool:
    """Return whether the program listens, by its sources or its crates."""
    serves = crate.find_matches(_SERVES) and crate.dependency_names().isdisjoint(KNOWN["by_standard_input"]["names"])
    return bool(crate.find_matches(_SERVER) or serves or _crates(crate) or crate.find_matches(SOURCES["everywhere"]))


@functools.cache
def _crates(crate: Crate) -> set[str]:
    """The crates by which the program is a server; tonic may be there for a client alone."""
    names = crate.dependency_names() & {*KNOWN["server_crates"]["names"]}
    return names if "tonic" not in names or crate.find_matches(_OF_GRPC) else names - {"tonic"}


def _screen_crates(crate: Crate) -> list[str]:
    """The crates by which a program is for a screen, in whose sources a listener may only wait for a browser."""
    return sorted(crate.dependency_names() & {*KNOWN["screen_crates"]["names"]})


def serve(crate: Crate, settings: list[tuple[Path, str, str]]) -> dict[str, Any]:
    """Return how a server gets its address, and the request that it answers; empty for no server, or without a known
    address. The address is set by variables, else by flags that the sources name; or the server has a fixed port. The
    `settings` that the program reads (`crate_settings.read`) may name the port."""
    if not is_server(crate) or _screen_crates(crate):
        return {}
    uses, flags = crate.dependency_names(), _flags(crate)
    numbers = [port for text in _addresses(crate) for groups in SOURCES["bound"].findall(text) for port in groups]
    numbers += [port for text in _addresses(crate) for port in SOURCES["everywhere"].findall(text)]
    ports = {int(port) for port in numbers if port}
    by_itself = next((name for name in KNOWN["server_variables"] if name in uses), "")
    environment, opened = KNOWN["server_variables"].get(by_itself, {}), KNOWN["server_opened"].get(by_itself, {})
    is_set = (
        not environment or not crate.find_matches(SOURCES["by_itself"]) or crate.find_matches(SOURCES["set_otherwise"])
    )
    if is_set and (variables := _address_settings(crate, _variables(crate), ports)):
        is_host_by_itself = "{host}" not in str(variables)
        environment = variables
        opened = (opened if is_host_by_itself else {}) | _reachable_addresses(crate, variables)
    arguments = {} if environment else _address_settings(crate, list(flags), ports)
    is_configurable = bool(environment or arguments)
    ports = ports if is_configurable or len(ports) == 1 else crate_settings.ports(settings)
    if not is_configurable and len(ports) != 1:
        return {}
    request = {"path": paths[0]} if (paths := crate.find_matches(SOURCES["path"])) else {}
    # axum can have gRPC and its own routes on one port; beside other crates gRPC has a port of its own.
    is_apart = all(map(crate.find_matches, (_HTTP, _GRPC))) and not crate.find_matches(_TOGETHER)
    if "tonic" in (crates := _crates(crate)) and crates <= {"axum", "tonic"} and not is_apart:
        request = {"grpc": ""} if "tonic-health" in uses else {"http": 2}
    if crate.find_matches(SOURCES["closes"]):
        request["keep_alive"] = False
    passed, to_open = (
        [text for flag, value in values.items() for text in (flags[flag], value)]
        for values in (arguments, _reachable_addresses(crate, arguments))
    )
    fixed_ports = [] if is_configurable else sorted(ports)
    table = {
        "environment": environment,
        "arguments": [*_serving_subcommand(crate), *passed],
        "ports": fixed_ports,
        **request,
    }
    table |= {"closed": crate_settings.first_setting(settings, HOST_NAME, LOOPBACK), "opened": opened}
    certificate = crate_settings.first_setting(settings, SOURCES["certificate"], re.compile(r"\S+"))
    return table | {"to_open": " ".join(to_open), "certificate": certificate}


def _serving_subcommand(crate: Crate) -> list[str]:
    """The name of the subcommand that serves; empty where none does by its name, or several may."""
    bodies = [_IN_BRACKETS.sub("", _RENAMED.sub("renamed ", body)) for body in crate.find_matches(_SUBCOMMANDS)]
    names = {name.lower() for body in bodies for name in _SERVING.findall(body)} | {
        *crate.find_matches(_SERVING_BY_CALL)
    }
    names = names - {"run"} or names
    return [*names] if len(names) == 1 else []


def notes(crate: Crate, table: dict[str, Any]) -> dict[str, object]:
    """Return notes on the requests to a program with the table of `serve`, each with a value that is true if it
    holds."""
    if not is_server(crate):
        note = "it listens, and not by TCP, which [serve] does not ask: take a [check] that ends"
        return {note: crate.find_matches(_OTHER)}
    if screens := ", ".join(_screen_crates(crate)):
        return {f"it draws on a screen ({screens}) and listens too: where it serves without one, fill in [serve]": True}
    speaks_http = crate.find_matches(SOURCES["http"]) or _crates(crate)
    others = sorted(crate.dependency_names() & {*KNOWN["other_protocols"]["names"]})
    others += [f"port {port}" for port in table.get("ports", ()) if port in KNOWN["other_protocols"]["ports"]]
    tls = ", ".join(filter(None, [*crate.find_matches(SOURCES["tls"]), table.get("certificate")]))
    takes_host = "{host}" in f"{table.get('environment')}{table.get('arguments')}"
    return {
        "it looks like a server: fill in [serve]; until then its check shows only a start": not table,
        "its sources name no HTTP server: if it speaks something else, take a [check] in place of [serve]": table
        and not speaks_http,
        f"it may answer another protocol there ({', '.join(others)}): then take a [check] in place of [serve], which "
        "asks HTTP": table and speaks_http and others,
        "its sources bind 127.0.0.1, or ::1, which nothing outside its container reaches: let a variable or a flag "
        "name the address": not takes_host and any(map(SOURCES["loopback"].search, _addresses(crate))),
        "it listens on 127.0.0.1 by default, which nothing outside its container reaches: whoever starts its image "
        f"gives it `{table.get('to_open')}`": table.get("to_open"),
        f"its configuration has it listen on 127.0.0.1 ({table.get('closed')}), which nothing outside its container "
        "reaches: its image needs another file, or a variable": table.get("closed") and not table["opened"],
        f"it can answer over TLS ({tls}): where it does, `tls = true` stands in [serve]": table and tls,
        "it has no crate tonic-health: that it answers is checked, and not its health": table.get("http") == 2,
        "it has subcommands: where one of them serves, that one stands first in `arguments` of [serve]": table
        and crate.find_matches(_SUBCOMMAND),
    }


@functools.cache
def _addresses(crate: Crate) -> list[str]:
    """Return the sources with their addresses in one form, and with values in the place of the names of constants.
    Constants of defaults and of other programs stay."""
    texts = [_normalize_addresses(_OF_OTHERS.sub("", text)) for text in crate.program_texts()]
    counts = Counter(name for text in texts for name in _SET.findall(text))
    values = {
        name: value.replace("_", "")
        for text in texts
        for name, value in _IS.findall(text)
        if counts[name] == 1 and not any(SOURCES[kind].search(name) for kind in ("others", "services", "default"))
    }
    return [
        _normalize_addresses(_READ.sub(lambda match: values.get(match[1], match[0]), text))
        if any(name in text for name in values)
        else text
        for text in texts
    ]


def _normalize_addresses(text: str) -> str:
    for form, plain in KNOWN["addresses"].items() if SOURCES["formed"].search(text) else ():
        text = re.sub(form, plain, text)
    return text


def _variables(crate: Crate) -> list[str]:
    """The variables that the sources read: by their names, by a constant, or by a function of the crate."""
    names = ["".join(groups) for groups in crate.find_matches(_VARIABLE)]
    constants = dict(crate.find_matches(SOURCES["constant"]))
    names += [constants[name] for name in crate.find_matches(_BY_NAME) if name in constants]
    names += [field.upper() for field in crate.find_matches(SOURCES["by_field"])] + crate_settings.variables(crate)
    if readers := {name for name, _ in crate.find_matches(_READS)}:
        names += crate.find_matches(re.compile(rf'(?<![.\w])(?:{"|".join(sorted(readers))})\(\s*"([A-Z]\w*)"'))
    return list(dict.fromkeys(names))


def _flags(crate: Crate) -> dict[str, str]:
    """Return the flags that the sources name, as they are called, by name and by field. A flag that has only a letter
    is called by that. Beside a subcommand that serves, the flags of others are left out."""
    texts = crate.program_texts()
    if _serving_subcommand(crate):
        texts = [_SUBCOMMANDS.sub(lambda match: _FIELDS_OF_OTHERS.sub("", match[0]), text) for text in texts]

    def find(kind: str) -> list:
        return list(dict.fromkeys(match for text in texts for match in SOURCES[kind].findall(text)))

    fields = [(flag, field.replace("_", "-")) for flag, field in find("field")]
    names = [*find("flag"), *(flag or field for flag, field in fields)]
    letters = find("short") + find("short_by_call")
    flags = {name: f"-{letter or name[0]}" for letter, name in letters} | {name: f"--{name}" for name in names}
    return {field: f"--{flag}" for flag, field in fields if flag} | flags


def _address_settings(crate: Crate, names: list[str], ports: set[int]) -> dict[str, str]:
    """What a server's variables or flags are set to: one for its port and those for its host, or one for both. Beside
    one port that the sources name, only those that are a server's by their names. A name of another program counts for
    nothing, unless this one has it."""
    is_grpc = _crates(crate) == {"tonic"}
    prefix = f"{crate.target['name']}_".replace("-", "_")
    stems = {name: _strip_program_name(name, prefix) for name in names}
    own_names = [name for name in names if OWN.search(name) or name.replace("-", "_").lower().startswith(prefix)]
    port, address, host = (
        [
            name
            for name in (own_names if len(ports) == 1 else names)
            if SOURCES[part].search(name)
            and not SOURCES["others"].search(re.sub("(?i)grpc", "", stems[name]) if is_grpc else stems[name])
            and not SOURCES["services"].search(stems[name])
        ]
        for part in ("port", "address", "host")
    )
    full_names = [name for name in dict.fromkeys([*address, *host]) if _is_socket_address(crate, name)]
    if full_names or not port:
        ordered = sorted(full_names or address, key=lambda name: ("http" not in name.lower(), name not in own_names))
        return {name: "{host}:{port}" for name in ordered[:1]}
    chosen = min(port, key=lambda name: (name.upper() not in ("PORT", "HTTP_PORT"), name not in own_names, len(name)))

    def is_relative(name: str) -> bool:
        return re.split("[_-]", name)[0] == re.split("[_-]", chosen)[0]

    hosts = sorted(
        # Another name is that of a server that this one asks.
        (
            name
            for name in host
            if name not in port
            and (name in own_names or _BINDS.search(name) or _OF_HOST.fullmatch(name) or is_relative(name))
        ),
        key=lambda name: (not _BINDS.search(name), not is_relative(name), len(name)),
    )
    return {chosen: "{port}"} | {name: "{host}" for name in hosts[:1]}


def _strip_program_name(name: str, prefix: str) -> str:
    """A name without what is of the program's own, by which it is of no other: `MEILI_` too, of meilisearch."""
    word, mark = re.match(r"([^_-]*)([_-]?)", name.lower()).groups()
    is_short = mark and prefix.startswith(word) and prefix[len(word)].isalnum()
    return name[len(word) + 1 :] if is_short else re.sub(f"(?i)^{prefix}", "", name)


def _is_socket_address(crate: Crate, name: str) -> bool:
    """Whether the field of a variable or a flag is an address with its port, or is one by default."""
    address = r'"[\w.\[\]:]*:\d{2,5}"'
    field = _field_pattern(name)
    default = rf'"{name}"\)?[^"\];]{{0,80}}{address}|{address}[^"\]]{{0,60}}(?:"{name}"|{field})'
    return bool(crate.find_matches(re.compile(rf"{field}\s*(?:\w+<)*(?:\w+::)*SocketAddr\b|{default}")))


def _field_pattern(name: str) -> str:
    """The pattern of the field of a flag, behind its attribute."""
    return rf"\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))?\s+)?(?i:{name.replace('-', '_')})\s*:"


def _reachable_addresses(crate: Crate, values: dict[str, str]) -> dict[str, str]:
    """What those of a server's variables or flags that are a loopback address by default have to be in an image."""
    ports = {name: _port_by_default(crate, name) for name, value in values.items() if "{host}" in value}
    return {
        name: values[name].format(host="0.0.0.0", port=port)
        for name, port in ports.items()
        if port is not None and (port or "{port}" not in values[name])
    }


def _port_by_default(crate: Crate, name: str) -> str | None:
    """The port beside the loopback address that a variable or a flag is by default, "" for none; None where it is
    another address by default, or where the sources do not tell."""
    patterns = (
        rf'"(?:--)?{name}"[^";#]{{0,120}}{_LOOPBACK}',  # also of an attribute: `env = "NAME", default_value = "..."`
        rf'\bdefault_value\w*\s*=[^"\]]{{0,60}}{_LOOPBACK}(?:[^"\]]{{0,60}}"{name}"|[^\]]{{0,120}}{_field_pattern(name)})',
        rf'"{name}"\)(?:(?!Arg::|;)[\s\S]){{0,300}}?\.default_value\w*\(\s*{_LOOPBACK}',
    )
    texts, fields = _addresses(crate), [name.replace("-", "_").lower()]
    fields += crate.find_matches(
        re.compile(rf'"{name}"[^\]]*\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))?\s+)?(\w+)\s*:')
    )
    patterns += (
        rf"\b(?:{'|'.join(fields)})\s*\.unwrap_or\w*\(\s*(?:\|\|\s*)?[\w:(]*?{_LOOPBACK}",
        *_default_patterns(crate, fields),
    )
    candidates = [match.groups() for text in texts for pattern in patterns if (match := re.search(pattern, text))]
    constants = [groups for text in texts for groups in _DEFAULT.findall(text)]
    candidates += [ports for tail, *ports in constants if name.upper().replace("-", "_").endswith(tail)]
    return next(filter(None, candidates[0]), "") if candidates else None


def _default_patterns(crate: Crate, fields: list[str]) -> list[str]:
    """The patterns of a loopback address that a field is by default: by a call, by a function, or by `Default`."""
    prefixes = [prefix.lower() for prefix, _ in crate_settings.prefixes(crate)]
    names = {field for name in fields for field in (name, re.sub(".*__", "", name), *map(name.removeprefix, prefixes))}
    words = f"(?:{'|'.join(map(re.escape, sorted(names)))})"
    calls = crate.find_matches(re.compile(rf"\b{words}\s*\.unwrap_or_else\(\s*(?:\w+::)*(\w+)\s*\)"))
    return [
        rf'\bset_default\(\s*"{words}"\s*,\s*[\w:(]*{_LOOPBACK}',
        rf"\bimpl\s+Default\s+for\s+(?!\w*(?:Metric|Prometheus|Admin|Health))\w+\s*\{{(?:(?!\bimpl\b)[\s\S])*?\b{words}"
        rf"\s*:\s*[\w:(]*{_LOOPBACK}",
        *(rf"\bfn\s+{call}\(\)[^{{;]*\{{[^{{}}]{{0,60}}?{_LOOPBACK}" for call in (f"default_{words}", *calls)),
    ]
