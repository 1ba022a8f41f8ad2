"""Pages of one file that open from disk, ask no network for anything, and run only the script and style whose hashes their policy names.

    formation verify --page verify.html     the verify page
    formation explore run.ofb               the explorer, with a bundle in it: view.py
    formation explore run.ofb --serve       the explorer, which asks the server that gave it for the bundle, and nobody else: cli/serve.py

static/verify/ and static/explore/ hold ES modules, which a page opened from disk may not import. So each becomes a function that returns its
exports, in the order they need each other. What the ledger and the verifier define in tables, fields and checks, is written into tables.js
from here.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from formation.evidence import checks, container, documents, report
from formation.ledger import fields

STATIC = Path(__file__).parent / "static"
ENTRY, TABLES = "page.js", "tables.js"
EXPLORE = "explore.js"  # the explorer's entry
IMPORT = re.compile(r'^import (\{[^}]*\}|\* as \w+) from "(?:\./|\.\./(?:verify|explore)/)([\w-]+\.js)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?:async )?(?:const|class|function\*?) (\{[^}]*\}|\w+)", re.MULTILINE)
POLICY = "default-src 'none'; script-src '{script}'; style-src '{style}'; base-uri 'none'; form-action 'none'"
WORKER, SERVER = "; worker-src blob:", "; connect-src 'self'"  # a worker runs the page's own script; a page that was served asks its own server
PARTLY = f"what this page does not hold was not checked: nothing is said of it; {report.NEITHER}"
WORDS = (
    "LEVELS KINDS TAGS COMPONENTS NOT_A_STEP DENSE NO_BIAS NO_SHARED NO_RUNNER_UP ALL_CHOSEN ZERO_NORM NEVER NO_EXPERTS GREEDY FORCED "
    "DELTA_LAYER ATTENTION_LAYER NO_DELTA UNGATED LAYER_KINDS"
).split()  # fmt: skip


def verify_page() -> bytes:
    """verify.html. The same bytes from the same sources."""
    return assembled("verify.html", bundle(modules("verify")), styles("verify.css"), {})


def explorer_page(data: str, files: str = "", *, served: bool = False) -> bytes:
    """explorer.html around `data` and, behind the script, `files`: elements that run nothing, made by view.py. The same bytes from the same."""
    script = bundle(modules("verify", "explore"), EXPLORE)
    return assembled(
        "explorer.html", script, styles("verify.css", "explorer.css"), {"DATA": data, "FILES": files}, WORKER + (SERVER if served else "")
    )


def assembled(template: str, script: str, style: str, more: Mapping[str, str], allowed: str = "") -> bytes:
    """`allowed`: what the policy grants beyond the page's own script and style"""
    policy = POLICY.format(script=source_hash(script), style=source_hash(style)) + allowed
    parts = {"POLICY": policy, "STYLE": style, "SCRIPT": script, **more}
    whole = (STATIC / template).read_text("utf-8").replace("{{HEAD}}", (STATIC / "head.html").read_text("utf-8"))
    pieces = re.split(r"\{\{([A-Z]+)\}\}", whole)  # what is put in is not searched for marks
    return "".join(parts[piece] if n % 2 else piece for n, piece in enumerate(pieces)).encode()


def styles(*names: str) -> str:
    return "".join((STATIC / name).read_text("utf-8") for name in names)


def source_hash(text: str) -> str:
    """As a Content-Security-Policy names an inline script or style"""
    return "sha256-" + base64.b64encode(sha256(text.encode()).digest()).decode()


# ---- the script


def modules(*folders: str) -> dict[str, str]:
    """Name -> source of every module of these folders, tables.js among them. Raises ValueError if two have one name."""
    paths = [path for folder in folders for path in sorted((STATIC / folder).glob("*.js"))]
    found = {path.name: path.read_text("utf-8") for path in paths}
    if len(found) < len(paths):
        raise ValueError(f"modules: expected a name of its own for each, got one twice in {' and '.join(folders)}")
    return found | {TABLES: tables_source()}


def tables_source() -> str:
    words = {name: getattr(fields, name) for name in WORDS}
    return "".join(constants({"FIELD_TABLE": fields.table(), "FIELD_WORDS": words, **verifier_tables()}))


def verifier_tables() -> dict[str, Any]:
    name, digest = documents.known_contract()
    sentences = {"HONESTY": report.HONESTY, "REFUSED": report.REFUSED, "NEITHER": report.NEITHER, "KIND": report.KIND, "PARTLY": PARTLY}
    return {
        "CHECKS": [asdict(check) for check in checks.CHECKS],
        "VERDICT_LEVELS": checks.LEVELS,
        "CONTRACT": {"name": name, "digest": digest},
        "CONTAINER": container_table(),
        "SENTENCES": sentences,
    }


def container_table() -> dict[str, Any]:
    return {
        "required": container.REQUIRED, "seal": container.SEAL, "folders": container.FOLDERS, "untrusted": container.UNTRUSTED,
        "part": container.PART, "progress": container.PROGRESS, "mostFiles": container.MOST_FILES, "limits": container.LIMITS,
        "sidecarLimit": container.SIDECAR_LIMIT,
    }  # fmt: skip


def constants(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
        yield f"export const {name} = {text};\n".replace("</", "<\\/").replace("<!--", "<\\!--")


def bundle(sources: Mapping[str, str], entry: str = ENTRY) -> str:
    """One script: every module that `entry` needs, each a function of its own; `formation` is what a console or a test finds them by."""
    parts = [module_text(name, sources[name]) for name in ordered(sources, entry)]
    script = '"use strict";\nconst modules = {};\n' + "".join(parts) + "globalThis.formation = modules;\n"
    if re.search("</script|<!--", script, re.IGNORECASE):
        raise ValueError("modules: expected no text that would end the script element, got one")
    return script


def ordered(sources: Mapping[str, str], entry: str) -> list[str]:
    """`entry` and what it needs, each once, behind what it imports itself"""
    found: dict[str, None] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise ValueError(f"modules: expected imports without a circle, got {' -> '.join((*path, name))}")
        if name not in found:
            for _, other in IMPORT.findall(sources[name]):
                visit(other, (*path, name))
            found[name] = None

    visit(entry, ())
    return list(found)


def module_text(name: str, source: str) -> str:
    body = IMPORT.sub(lambda found: f"const {bound(found[1])} = modules[{json.dumps(found[2])}];\n", source)
    names = [each for found in EXPORT.findall(body) for each in re.findall(r"\w+", found)]
    body = EXPORT.sub(lambda found: found[0].removeprefix("export "), body)
    if left := re.search(r"^(?:import|export)\b.*", body, re.MULTILINE):
        raise ValueError(f"{name}: expected imports and exports in one of the forms known here, got {left[0]}")
    return f"modules[{json.dumps(name)}] = (() => {{\n{body}return {{ {', '.join(names)} }};\n}})();\n"


def bound(clause: str) -> str:
    """`{ a, b as c }` as destructuring, `* as x` as a name"""
    return clause.removeprefix("* as ") if clause.startswith("*") else clause.replace(" as ", ": ")
