"""Words of the lab's own that a first reader stumbles over, with what to write."""

import re

WORDS = {
    r"h[au]ngs?( \w+)? on": "depends on",
    r"h[eo]lds? against": "compared with, checked against",
    r"told|said|asked": "passed, reported, requested",
    r"whose bytes": "what takes up the space",
    r"knobs?|bought|turned to": "factor, saved, set to",
    r"(the|its|each|knob's|base's|app's|an?|no) shares?( of)?|shares (sum|in)": "contribution, fraction",
    r"wish(es)?|picked": "constraints and objective, selected",
    r"stand-ins?|stands? in for": "substitute",
    r"survives?|survival|mend(s|ed)?|remed(y|ies)": "pass the robustness checks, fix",
    r"lost trials?|(was|were) lost": "failed trial",
    r"(?<!minimum )(?<!min\. )(?<!no difference )detectable": "minimum detectable effect",
    r"all at once": "simultaneous 95% CI",
    r"twins?|again \(A/A": "A/A control",
    r"of it the": "app layer",
    r"transfer": "compressed (pull) size",
    r"unit-1": "codegen-units=1",
    r"then and now": "article vs. measured",
    r"ladders?": "profile sweep",
    r"go(es|ing)? on": "resumes",
    r"over what it held|holds? already": "incremental",
    r"says? nothing to": "does not apply to",
    r"a line of \d+|the line takes": "a link",
    r"what measures": "benchmark tools image",
}
# Names are no words. Commands of users and recorded runs have them, so they stay.
NAMES = {
    r"--[a-z][a-z-]*": "options",
    r"transfer(?=[=,])|transfer-encoding": "the criterion, as in `--weights transfer=1`; the header of HTTP",
    r"unit-1|ladder|survival": "a profile, a grid, a run",
    r"recorded/[\w-]+|\d\d_\w+": "recorded runs and notebooks",
}


def not_plain(text: str, names: bool = False) -> list[str]:
    """Return what a text has of `WORDS`, each with what to write; code between backticks is left out, and with `names`
    what of `NAMES` is in it."""
    text = re.sub(r"`[^`]*`", "X", text)
    text = re.sub(rf"(?<!\w)({'|'.join(NAMES)})(?!\w)", "X", text, flags=re.IGNORECASE) if names else text
    return [
        f"{match[0]!r} in {text[max(0, match.start() - 40) : match.end() + 40]!r}: write {instead}"
        for word, instead in WORDS.items()
        for match in re.finditer(rf"(?<!\w)({word})(?!\w)", text, re.IGNORECASE)
    ]
