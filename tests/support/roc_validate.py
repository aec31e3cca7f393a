"""Validate RO-Crates with roc-validator, in an environment of its own: `python roc_validate.py CONTEXT ARCHIVE...`.

The validator fetches the JSON-LD context of RO-Crate 1.3. There is no network in the tests: CONTEXT is the copy of it
that the library `rocrate` brings; nothing else is answered."""

import sys
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from rocrate_validator import services
from rocrate_validator.models import Severity, ValidationSettings

CONTEXT_URL = "https://w3id.org/ro/crate/1.3/context"


def send(adapter, request, **options):
    if request.url != CONTEXT_URL:
        raise requests.ConnectionError(f"{request.url}: no network in tests")
    response = requests.Response()
    response.status_code, response.url, response.request = 200, request.url, request
    response.headers["Content-Type"] = "application/ld+json"
    response._content = Path(sys.argv[1]).read_bytes()
    return response


HTTPAdapter.send = send
for archive in sys.argv[2:]:
    found = services.validate(
        ValidationSettings(rocrate_uri=archive, requirement_severity=Severity.REQUIRED, no_cache=True)
    )
    for issue in found.get_issues():
        print(f"{archive}: {issue.severity.name}: {issue.check.identifier}: {issue.message}")
    print(f"{archive}: {'valid' if found.passed() else 'INVALID'}")
