"""A crate -> the files that its program reads in its image, and the folders that it writes to, by its sources."""

import functools
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from rustimg_lab.build import crate_settings, sources
from rustimg_lab.build.crate import Crate, folder_of
from rustimg_lab.errors import LabError
from rustimg_lab.host import process

IN_IMAGE = "/src/"  # where builds have the sources: what is named by the folder of the build is there in the image too
# What only the compiler reads. Then a text that a call or a constant has, which no table of known names has; a bare
# word where something is opened, which is no name of a flag; and what is joined to the folder of the build.
INCLUDED = re.compile(r"\binclude\w*!\s*[({]\s*(?:concat|env)!\s*\((?:[^()]|\([^()]*\))*\)")
_COMPILED = re.compile(r'#!?\[(?![^\]]*default_value)[^\]]*\]|\b(?:include\w*|\w*env|migrate|embed\w*)!\s*\(\s*"[^"]*"')
_TEXT = r'(?:r#*)?"(?:\./)?'
_NAMED = re.compile(
    rf'(?:[\w!>]\(|[>\[,:{{]|=(?<!\bsrc=)(?<!\bhref=)(?<!\baction=)|\|\w*\|)\s*{_TEXT}(\w[^"\\\n]*)"(?!\s*=>)'
)
_OPENED = re.compile(
    r"(?:(?:(?<!cache_)(?<!config_)(?<!data_)(?<!home_)dir|directory|open|read_to_string|loader|push|(?<!Arg)(?<!App)(?<!Command)::new|::from|with_name|\.join|unwrap_or\w*)\([&\[]*"
    rf'\s*(?:"[^"]*",\s*|\|\w*\|\s*)?|default_value\s*=\s*|&(?:\'static )?str\s*=\s*){_TEXT}(\w[\w -]*)"'
)
_OF_PROJECT = r"pyproject\.toml|package\.json"  # what tools read in the folder of a project, beside cargo's files
# What is read by its name, whatever that is; but for what tools read in the folder of another's project.
_READ = re.compile(
    rf"(?:\bread(?:_to_string|_dir)?|\bFile::open|\.open)\(\s*&?(?:(?:\w+::)*(?:Utf8)?Path(?:Buf)?::\w+\(\s*&?)?{_TEXT}"
    rf'((?!Cargo|target\b|{_OF_PROJECT}|\.(?:git|cargo)|[^"]*\.rs"|(?:src|tests|benches|examples)(?:/?"|(?<=src)/[^/"]*"))\.?\w[^"\\\n]*)"'
)
_ONLY_OPENED = re.compile(
    r'\b(?:OpenOptions::new|File::options)\(\)(?:\s*\.(?!create)\w+\([^()]*\)){1,5}?\s*\.open\(\s*&?"(?:\./)?([^"]*)"'
)
# What a server answers with: a folder or a file of these is to be in the image.
_SERVED = re.compile(
    r"(?:\b(?:Serve(?:Dir|File)|StaticDir|StaticFilesEndpoint|FileServer|fs::(?:dir|file))(?:::\w+)?\(\s*\[?\s*"
    rf'|\bFiles::new\(\s*"[^"]*",\s*){_TEXT}(\w[^"\\\n]*?)/?"'
)
# The folder that the program starts in; what is joined to one, and where a variable is that one.
_START = re.compile(r'current_dir|(?:PathBuf::from|Path::new)\(\s*"\.?/?"\s*\)$')
_TO_FOLDER = re.compile(r'(?<=[\w)?!])\s*\.(?:join|push(?:_str)?)\(\s*&?"[^"]*"')
_STARTS_IN = re.compile(
    r"\blet\s+(?:mut\s+)?(\w+)[^;=]*=(?:(?:(?!\blet\b)[^;])*\b(?:current_dir|PathBuf::new)\(\)"
    r'|\s*(?:\w+::)*(?:PathBuf::from|Path::new)\(\s*"\.?/?"\s*\))'
)
_DOTTED = re.compile(r'[\w>]\(\s*&?"\./(\w[\w-]*)/?"')
_FOLDER = re.compile(r'"(\w[\w-]*)"\s*\.(?:into|to_string|to_owned)\(\)')
_NAME_OF_BUILD_FOLDER = re.compile(
    r"\b(?:let(?:\s+mut)?|const|static)\s+(\w+)(?:\s*:[^=;]+)?\s*=\s*&?(?:(?:\w+::)*Path(?:Buf)?::\w+\(\s*)?"
    r'env!\(\s*"CARGO_MANIFEST_DIR"\s*\)\s*\)?(?:\.to_\w+\(\))?\s*;'
)
_JOINED = re.compile(
    r'format!\(\s*"\{\}/([\w./-]+)[^"]*",\s*env!\(\s*"CARGO_MANIFEST_DIR"\s*\)'
    r'|env!\(\s*"CARGO_MANIFEST_DIR"\s*,?\s*\)\s*(?:\)?(?:\s*\.clone\(\))?\s*\.join\(|,)\s*"/?([\w./-]+?)(?:/[^"/]*[*{][^"]*)?"'
    r'|\brelative!\(\s*"/?([\w./-]+)"'  # Rocket's
)
# What is read in the folder of the program itself.
_BESIDE = re.compile(
    r'\bcurrent_exe\([^;{}]{1,200}?\.join\(\s*"(\w[\w./-]*)"'
    r'|\blet\s+mut\s+(\w+)\s*=[^;]*\bcurrent_exe\(\)[^;]*;\s*(?:\2\.pop\(\);\s*)?\2\.(?:set_file_name|push)\(\s*"(\w[\w./-]*)"'
)
_PART = re.compile(r"[\w.@+ -]+")
NOT_READ = re.compile(
    rf"docs?|(?:src|target|tests|benches|examples|Cargo[^/]*|{_OF_PROJECT}|[A-Z_-]+(?:\.\w+)?)(?:/.*)?"
)
_ENDINGS = ("", ".toml", ".yaml", ".yml", ".json", ".json5", ".ron", ".ini")
# A folder that is made, and a file, by a text, its begin, a constant, or a variable or a field; of that, a path below.
_MADE = (
    r'\((?:(?<=DB::open\()\s*&\w+,)?\s*&?(?:(?:\w+::)*(?:Utf8)?Path(?:Buf)?::\w+\(\s*&?)?(?:(?:format!\(\s*)?"(?:\./)?([\w/][\w./-]*(?:\{|(?=")))'
    r"|(?:\w+::)*([A-Z_]{2,})\b(?!\.\w+\b(?!\())(\)?\s*\.join\()?"
    r"|((?:\w+\.)*[a-z_]\w*)(?:\.(?:as_\w+|to_\w+|clone)\(\))?(?:\)?\s*\.(join)\(|\s*[,)?]))"
)
_CALLS = r"\(\)(?:\s*\.\w+\([^()]*\)){1,5}?\s*\."
_FOLDERS = re.compile(
    rf"(?:\bcreate_dir(?:_all)?|\brolling::\w+|\bsled::open|\bDB::open(?:_default)?|\bDirBuilder::new{_CALLS}create){_MADE}"
)
_FILES = re.compile(
    r"(?:\bFile::create(?:_new)?|\bfs::write|\bUnixListener::bind|\bConnection::open|ConnectionManager::file|\bDatabase::create|\.filename"
    r"|\bWriter::from_path"
    rf"|\b(?:OpenOptions::new|File::options){_CALLS}open){_MADE}"
    + r'|"sqlite:(?://)?([\w/][\w./-]*)()|"(/\w[\w./-]*\.(?:sqlite3?|db))"'
)
_TO_SECOND = re.compile(r"\b(?:fs::(?:copy|rename|hard_link)|symlink)\((?:[^(),;]|\([^()]*\))*,(?=\s*[^\s)])")
_CONSTANT = re.compile(r'\b(?:const|static)\s+([A-Z_]{2,})\s*:\s*&(?:\'static )?str\s*=\s*"(?:\./)?([\w/][\w./-]*)"')
_BELOW = re.compile(r'\bformat!\(\s*"\{(\w*)\}/[^"]*"(?:\s*,\s*((?:\w+\.)*[a-z_]\w*))?')  # a path below a variable
_WHOLE = re.compile(r'(\bPath(?:Buf)?::\w+\(\s*"\w[^"]*)"\s*\)\s*\.join\(\s*"([^"/][^"]*)"\s*\)')
# What a variable is, or is by default, and what a field of a program's arguments or of its configuration is by default.
_PATH = (
    r'(?:(?:\w+::)*(?:\w*Path(?:Buf)?|String)::\w+\(\s*)*"(?:\./)?([\w/][\w./-]*)"'
    r"(?!\)*\s*\.(?:join|with_file_name|parent)\()"
)
_VARIABLE = re.compile(
    rf"\blet\s+(?:mut\s+)?(\w+)\s*(?::[^=;]+)?=\s*(?:[^;]{{0,200}}?\bunwrap_or\w*\(\s*(?:\|\w*\|\s*)?)?{_PATH}"
)
_FIELD = re.compile(
    rf"\bdefault_value\w*\s*=\s*{_PATH}[^\]]*\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))?\s+)?(\w+)\s*:"
)
_DEFAULT = re.compile(rf"\bfn\s+default_(\w+)\(\)[^{{;]*\{{\s*{_PATH}")
_DEFAULTS = re.compile(r"\bimpl\s+Default\s+for\s+\w+\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
_OF_DEFAULTS = re.compile(rf"\b(\w+)\s*:\s*{_PATH}")
_NOT_OWN = re.compile(r"/(?:$|run/?$|(?:tmp|dev|proc|sys|etc|bin|sbin|lib\w*|usr|var/run|var/lock)(?:/|$))")
_NO_REPOSITORY = 128  # git's exit code, also for that of another user
_LONGEST = 240  # bytes of a file's name, before its ending
SHOWN = 3  # of names that are not there


def placed_files(crate: Crate) -> tuple[dict[str, str], list[str]]:
    """Return the files and folders that the sources name by a relative path, and notes on those that are missing or not
    sent to builds. The first result has places in the image by path from the crate's folder; a file in a folder counts
    as the folder. Names are looked up in the crate's folder and its workspace's; build scripts are left out."""
    paths, missing = {}, []
    for name, place in _names(crate):
        matches = places(crate, name)
        if not matches and "/" in name and places(crate, name.split("/")[0]):
            missing.append(name)
        for path in matches:
            is_nested = path.is_file() and "/" in name and not _is_crate(path.parent)
            target = f"{place.rpartition('/')[0]}/{path.name}".lstrip("/") if not place.startswith("/") else place
            # The folder of the build comes first, and stays the place of what a message names too.
            paths.setdefault(path.parent if is_nested else path, str(Path(target).parent) if is_nested else target)
    outputs = {path for path, _ in _created_paths(crate)}
    missing += [
        name for name in crate.find_matches(_SERVED) if not places(crate, name) and name not in {*outputs, *missing}
    ]
    paths = {path: place for path, place in paths.items() if not any(parent in paths for parent in path.parents)}
    reasons = {path: sources.why_missing(crate.root, path) for path in paths}
    notes = [f"its sources name {paths[path]}: {reason}" for path, reason in reasons.items() if reason]
    # Files of whoever works on the crate, keys and databases among them.
    candidates = [str(path) for path, reason in reasons.items() if not reason]
    ignored = _git(crate.root, ["check-ignore", *candidates]) if candidates else []
    notes += [
        f"its sources name {place}, which git ignores: `files` there takes it if each image is to have it"
        for path, place in paths.items()
        if str(path) in ignored
    ]
    notes += [
        f"its sources name {name}, which is not there: `build_commands` can make it before the build, `writable` "
        "makes a folder that the program fills"
        for name in [path for path in missing if not {*map(str, Path(path).parents)} & {*missing}][:SHOWN]
    ]
    files = {path: place for path, place in paths.items() if not reasons[path] and str(path) not in ignored}
    folders = [path for path in files if path.is_dir()]
    notes += [line for path in folders for line in _ignored_notes(crate.root, path)] + lost_files(
        crate, folders, "image"
    )
    return {name: files[path] for path, name in sorted((p, os.path.relpath(p, crate.directory)) for p in files)}, notes


def configuration_files(crate: Crate, placed: Iterable[str]) -> list[Path]:
    """Return the paths of what is placed (`placed_files`), for `crate_settings.read`. A folder of which the sources
    name files is replaced by these, since others there may be of other programs."""
    paths = [Path(os.path.normpath(crate.directory / name)) for name in placed]
    files = {path for name, _ in _names(crate) for path in places(crate, name) if path.is_file()}
    return [file for path in paths for file in sorted(file for file in files if file.parent == path) or [path]]


@functools.cache
def _names(crate: Crate) -> list[tuple[str, str]]:
    """Return the relative paths that the sources name, up to the first part that is none, with their places in the
    image. Those that the program reads below the folder of the build are in that folder there."""
    crates, folder = crate.dependency_names(), place_of(crate)
    candidates = {name for crate_name, names in _BY_CRATE.items() if crate_name in crates for name in names}
    read_names: set[str] = set()
    names: list[tuple[str, str]] = []
    for text in _texts(crate):
        code = _with_build_folder(INCLUDED.sub("", text))
        for groups in _JOINED.findall(code):
            name = next(filter(None, groups)).strip("/")
            names.append((name, f"{IN_IMAGE}{folder}{name}"))
        for joined, _, name in _BESIDE.findall(code):
            names.append((joined or name, f"/{crate.target['name']}/{joined or name}"))
        for pattern in (_JOINED, _BESIDE, _COMPILED, _FOLDERS, _FILES):
            code = pattern.sub("", code)
        code = _in_folder_of_start(code)
        candidates |= {*_OPENED.findall(code)}
        read_names |= {name.rstrip("/") for name in _READ.findall(code) if places(crate, name)}
        folders = [*_FOLDER.findall(code), *_DOTTED.findall(code)]
        candidates |= {name for name in folders if any(path.is_dir() for path in places(crate, name))}
        for literal in _NAMED.findall(code):
            parts = literal.split("/")
            count = next((n for n, part in enumerate(parts) if not _PART.fullmatch(part)), len(parts))
            if count and (len(parts) > 1 or re.search(r"\.\w+$", literal)):
                name = "/".join(parts[:count])
                candidates |= {name} if " " not in name or places(crate, name) else set()  # else it is words
    outputs = [path for path, _ in _created_paths(crate) if not path.startswith("/")]
    for name in sorted(candidates | read_names):
        is_made = any(f"{name}/".startswith(f"{path}/") for path in outputs)
        # What is there although the program makes it is a default, or what it begins with.
        if (not is_made or places(crate, name)) and (name in read_names or not NOT_READ.fullmatch(name)):
            names.append((name, name))
    return names


def _with_build_folder(text: str) -> str:
    """The text with the folder of the build in the place of the names that it gives to that."""
    for name in {*_NAME_OF_BUILD_FOLDER.findall(text)}:
        text = re.sub(rf'(?<=format!\()\s*"\{{{name}\}}/', 'env!("CARGO_MANIFEST_DIR"), "/', text)
        is_used = rf"(?:\bPath(?:Buf)?::\w+\(\s*&?{name}\s*\)|\b{name}\b)(?=\s*[).,])"
        text = re.sub(is_used, 'env!("CARGO_MANIFEST_DIR")', text)
    return text


@functools.cache
def _texts(crate: Crate) -> list[str]:
    """The texts of the program, in which a file that is there and that its call does not create is opened alone."""

    def opened(call: re.Match) -> str:
        return f'File::open("{call[1]}"' if places(crate, call[1]) else call[0]

    return [_ONLY_OPENED.sub(opened, text) for text in crate.program_texts()]


def _in_folder_of_start(text: str) -> str:
    """Return the text without what is joined to a folder that only the running program knows. That is what a call
    returns, a field, or a variable for another folder than the one that the program starts in."""
    start_names = _STARTS_IN.findall(text)

    def kept(match: re.Match) -> str:
        receiver = re.split(r"[;{}=,(]\s*(?=\w[\w.:?()]*$)", text[max(match.start() - 120, 0) : match.start()])[-1]
        receiver = re.sub(r"(?:\.(?:clone|unwrap|to_owned|as_path)\(\)|\?)+$", "", receiver).strip()
        if not receiver.isidentifier():
            return match[0] if _START.search(receiver) else ""
        is_bound = re.search(
            rf"\b(?:let\s+(?:mut\s+)?|for\s+|Some\(|Ok\(){receiver}\b|\b{receiver}\s*:\s*(?:&|impl|P\b|Path)"
            rf"|\|\s*{receiver}\s*\|",
            text,
        )
        return match[0] if receiver in start_names or not is_bound else ""

    return _TO_FOLDER.sub(kept, text)


# What a crate reads by itself, as its documentation has it (rocket.rs/guide, loco.rs/docs).
_BY_CRATE = {"loco-rs": ("config",), "rocket": ("Rocket.toml",), "rocket_dyn_templates": ("templates",)}


def place_of(crate: Crate) -> str:
    """Return the package's folder relative to what builds get, with a slash at its end; "" for the root."""
    folder = os.path.relpath(folder_of(crate.package), crate.root)
    return "" if folder == "." else f"{folder}/"


def places(crate: Crate, name: str) -> list[Path]:
    """Return the paths at which a file or folder of that name is; a configuration file may be named without its ending.
    Another crate, or a folder of the program's sources, does not count."""
    folders = dict.fromkeys([crate.root, crate.directory, folder_of(crate.package)])
    if any(len(os.fsencode(part)) > _LONGEST for part in name.split("/")):  # a key, or what is compressed
        return []
    for ending in _ENDINGS:
        if paths := [path for folder in folders if (path := folder / f"{name}{ending}").exists()]:
            ancestors = {parent for folder in folders for parent in (folder, *folder.parents)}
            paths = [path for path in paths if path not in {*ancestors, *crate.folders}]
            return [path for path in paths if not any(map(_is_crate, {path, *path.parents} - ancestors))]
    return []


def _is_crate(folder: Path) -> bool:
    return bool({*folder.glob("Cargo.toml"), *folder.glob("*/Cargo.toml")})


def _ignored_notes(root: Path, folder: Path) -> list[str]:
    """A line on what git ignores below a folder that is placed."""
    arguments = ["ls-files", "--others", "--ignored", "--exclude-standard", "--directory", "--", str(folder)]
    name, ignored = os.path.relpath(folder, root), _git(root, arguments)
    note = f"`files` takes what git ignores in {name} too ({', '.join(ignored[:SHOWN])})"
    return [f"{note}: name in .dockerignore what no image is to have"] if ignored else []


def lost_files(crate: Crate, folders: list[Path], artifact: str) -> list[str]:
    """Return a line on each folder of which builds do not get a file, so that the `artifact` (image or program) lacks
    it."""
    sent = {crate.root / path for path in sources.walk(crate.root)} if folders else set()
    notes = []
    for folder in folders:
        files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file not in sent]
        if reason := files and sources.why_missing(crate.root, files[0]):
            count = f"{len(files)} files" if len(files) > 1 else "a file"
            notes.append(f"the {artifact} lacks {count} of {os.path.relpath(folder, crate.root)}: {reason}")
    return notes


def _git(root: Path, arguments: list[str]) -> list[str]:
    """Return git's output by line, by the folder's repository, or by its .gitignore alone if git reads no repository
    there. Without git the output is empty."""
    lines = _run_git(root, arguments)
    if lines is None:
        with tempfile.TemporaryDirectory() as repository:
            process.run(["git", "init", "--quiet", "--bare", repository])
            lines = _run_git(root, [f"--git-dir={repository}", f"--work-tree={root}", *arguments])
    return lines or []


def _run_git(root: Path, arguments: list[str]) -> list[str] | None:
    """What git says, by line; None where it reads no repository."""
    try:
        return process.run(["git", *arguments], cwd=root).splitlines()
    except process.CommandError as error:
        return None if error.code == _NO_REPOSITORY else []
    except LabError:
        return []


def writable_folders(crate: Crate, settings: list[tuple[Path, str, str]]) -> list[str]:
    """Return the folders that the sources make or make a file in, and those that `settings` name
    (`crate_settings.read`). The folder "." is the one that the program starts in."""
    folders = [path if is_folder else str(Path(path).parent) for path, is_folder in _created_paths(crate)]
    folders += crate_settings.folders(settings, crate.directory)
    return [name for name in dict.fromkeys(folders) if not _NOT_OWN.match(name)]


@functools.cache
def _created_paths(crate: Crate) -> list[tuple[str, bool]]:
    """The paths that the sources make, and whether each is of a folder."""
    constants, fields = dict(crate.find_matches(_CONSTANT)), {name: path for path, name in crate.find_matches(_FIELD)}
    fields |= dict(pair for text in crate.find_matches(_DEFAULTS) for pair in _OF_DEFAULTS.findall(text))
    fields |= dict(crate.find_matches(_DEFAULT))
    paths = []
    for text in _texts(crate):
        text = _TO_SECOND.sub("fs::write(", text)
        text = _BELOW.sub(lambda match: f"{match[1] or match[2]}.join(", text)
        text = _WHOLE.sub(r'\1/\2")', text)
        for pattern, is_folder in ((_FOLDERS, True), (_FILES, False)):
            for match in pattern.finditer(text):
                literal, constant, is_below, variable, is_joined, *sqlite = (group or "" for group in match.groups())
                value = _value(text[: match.start()], variable, fields) if variable else constants.get(constant, "")
                path = literal or value or "".join(sqlite)
                if path.endswith("{"):
                    paths.append((str(Path(path).parent), True))
                elif path:
                    paths.append((path.rstrip("/") or "/", is_folder or bool(is_below or is_joined)))
    return paths


def _value(head: str, variable: str, fields: dict[str, str]) -> str:
    """What a variable is, or is by default, by what stands before its use in that function; or a field."""
    function = head[max(head.rfind("\nfn "), head.rfind(" fn "), 0) :]
    name = re.escape(variable)
    is_bound = rf"\blet\s+(?:mut\s+)?{name}\b|[({{,|]\s*{name}\s*[)}},|][^;{{=]*(?:=>|[|=])"
    *_, binding = [None, *re.finditer(is_bound, function)]
    if not binding:
        return fields.get(variable.rpartition(".")[2], "")
    match = _VARIABLE.match(function, binding.start())
    return match[2] if match else ""
