"""A crate -> what its program looks for in its image, or in the folder of its build, and what an image lacks of it."""

import re

from rustimg_lab.build import crate_files
from rustimg_lab.build.crate import Crate
from rustimg_lab.build.known import KNOWN

# The folder of the build, however a program names it; a variable of that kind, and whether a script knows the folder.
_BUILD_FOLDER = re.compile(r'env!\(\s*"CARGO_MANIFEST_DIR"|\brelative!\(')
_OF_SOURCE = re.compile(r"\bPath(?:Buf)?::\w+\(\s*file!\(\)")
_FOLDER_SET = re.compile(r"rustc-env=(\w*(?:DIR|PATH|ROOT|FOLDER)\w*)=\{")
_KNOWS_FOLDER = re.compile(r"\bcurrent_dir\(|CARGO_MANIFEST_DIR|OUT_DIR")
_BESIDE = re.compile(r"\bcurrent_exe\((?s:.){1,300}?\.(?:parent|with_file_name|pop|set_file_name)\(")
_HOME = re.compile(r'\bhome_dir\(|\b(?:dirs|dirs_next|directories|etcetera|xdg)::|\b(?:Project|Base)Dirs\b|"HOME"')
_TEMPORARY = re.compile(r'\btemp_dir\(|\btempfile::|\btempdir\(|"/tmp\b')
_LOCAL_TIME = re.compile(
    r"\bLocal::now\(|&Local\b|\bLocal\.|\bnow_local\(|\bcurrent_local_offset\(|\blocaltime_r\(|\bZoned::now\(|\bin_tz\("
    r'|\bTimeZone::(?:system|get)\(|"/usr/share/zoneinfo\b|"/etc/localtime"'
)
_CERTIFICATES = re.compile(r'"/etc/ssl/(?:certs\b|cert\.pem")')
# What a system has and no image, where it is read or a constant.
_OF_SYSTEM = re.compile(
    r"(?:\b(?:open|read\w*|load\w*|from_path)\(\s*&?(?:[\w:]+\(\s*)?|&(?:\'static )?str\s*=\s*)"
    r'"(/usr/share/(?!zoneinfo|ca-certificates)[\w.-]+/[\w./-]*\w|/etc/(?:mime\.types|magic|services|protocols))"'
)


def build_folder_notes(crate: Crate, placed: dict[str, str]) -> dict[str, object]:
    """Return notes on a program that reads in the folder of its build, each with a value that is true if it holds.
    `placed` has places in the image by source."""
    folder = f"{crate_files.IN_IMAGE}{crate_files.place_of(crate)}"
    is_placed = any(place.startswith(crate_files.IN_IMAGE) for place in placed.values())
    texts = [crate_files.INCLUDED.sub("", text) for text in crate.program_texts()]
    variables = [
        name for text in crate.script_texts() if _KNOWS_FOLDER.search(text) for name in _FOLDER_SET.findall(text)
    ]
    forms = {"CARGO_MANIFEST_DIR": _BUILD_FOLDER, "file!()": _OF_SOURCE}
    forms |= {name: re.compile(rf'env!\(\s*"{name}"') for name in ("OUT_DIR", *variables)}
    is_named = {name: any(map(form.search, texts)) for name, form in forms.items()}
    return {
        f"its sources name {name}, a folder of the build, which no image has: "
        + (
            "`include_bytes!` puts a file of it into the program"
            if name == "OUT_DIR"
            else f'`files = {{ "assets" = "{folder}assets" }}` there places what the program reads in it'
        ): is_named[name] and (name == "OUT_DIR" or not is_placed)
        for name in forms
    }


def lookup_notes(crate: Crate, is_served: bool) -> dict[str, object]:
    """Return notes on what a program looks for in its image, each with a value that is true if it holds. `is_served` is
    true for an app with [serve]."""
    callees, program, siblings = crate.called_in_use(), crate.target["name"], crate.sibling_programs()
    roots = sorted(crate.locked.keys() & set(KNOWN["system_roots"]["names"]))
    brings_roots = "webpki-roots" in crate.locked and not roots
    asks_tls = bool(crate.dependency_names() & set(KNOWN["tls_client_crates"]["names"])) and not brings_roots
    asks_tls |= bool(crate.find_matches(_CERTIFICATES))
    own_names = {program, crate.package.get("name")}
    files = [path for path in crate.find_matches(_OF_SYSTEM) if own_names.isdisjoint(path.split("/"))]
    return {
        f"it asks over TLS: take `--with ca-certificates`{'' if is_served else ', and a check that fetches'}": asks_tls,
        f"it may ask over TLS, since its lockfile has {', '.join(roots)}: then take `--with ca-certificates`": roots
        and not asks_tls,
        f"its sources name {', '.join(files[:3])}, which no image has: `files` there places a copy": files,
        "it tells local time: take `--with tzdata`; without that all times are UTC": crate.find_matches(_LOCAL_TIME),
        "it writes temporary files: take `--with tmp`; scratch has no folder /tmp": crate.find_matches(_TEMPORARY),
        'it looks for a home folder, which its user in the image lacks: `environment = { HOME = "/home/app" }` and '
        '`writable = ["/home/app"]` there give it one': crate.find_matches(_HOME),
        f"it looks for files beside itself: places in `files` then begin with /{program}/": crate.find_matches(_BESIDE)
        and not siblings,
        f"it calls {', '.join(siblings)} of the same package, and its image has one binary alone": siblings,
        f"its sources call {', '.join(callees)} when it runs, which the lab's images lack: `--base debian=IMAGE` takes "
        "one that has it; let the check call it": callees,
    }
