"""Variables for the agent and every mount-s3: AWS settings and proxies, and where they come from.

/etc/s3mount-agent/environment is the administrator's. systemd reads it for the units, as
EnvironmentFile= in systemd.exec(5) says; this reads it the same way, and a little more: lines that
begin with ``export``. What systemd would not read there, and ParallelCluster's proxy, is written
for the units to /var/lib/s3mount-agent/environment, and what the configuration says to mounts.env
beside it; both are for root alone, since passwords may stand in them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.filesystem import files, paths
from s3mount_agent.state import machine, secrets
from s3mount_agent.system import node

PATH = paths.CONFIGURATION / "environment"
NODE = paths.STATE / "environment"
MOUNTS = paths.STATE / "mounts.env"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KINDS = ("http_proxy", "https_proxy", "no_proxy")
# Never through a proxy: this node, who gives it its role, and endpoints within its own network.
_DIRECT = ("localhost", "127.0.0.1", "169.254.169.254", "169.254.170.2", ".vpce.amazonaws.com")


@dataclass(frozen=True)
class Assignment:
    """A line as it stands: ``name`` may be none, ``value`` is None where there is no ``=``;
    ``fault`` says what is wrong with it."""

    name: str
    value: str | None
    line: int
    fault: str | None = None

    @property
    def own_name(self) -> str:
        """The name without ``export``, which shells understand and systemd does not."""
        words = self.name.split()
        return words[1] if len(words) == 2 and words[0] == "export" else self.name


def parse(text: str) -> dict[str, str]:
    """The variables of an environment file; what cannot be understood is left out."""
    return {
        each.own_name: each.value
        for each in read(text)
        if each.value is not None and _NAME.fullmatch(each.own_name)
    }


def read(text: str) -> Iterator[Assignment]:
    """The assignments in their order, as systemd's parse_env_file() takes them apart."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    at, line = 0, 1
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        here = text[at:end].strip(" \t")
        if not here or here[0] in "#;":
            at, line = end + 1, line + 1
            continue
        name, equals, _ = text[at:end].partition("=")
        if not equals:
            bare = bool(re.fullmatch(r"export(\s+[A-Za-z_][A-Za-z0-9_]*)+", here))
            fault = None if bare else "this is not NAME=value"
            yield Assignment(here, None, line, fault)
            at, line = end + 1, line + 1
            continue
        began, at = at, at + len(name) + 1
        value, at, fault = _value(text, at)
        found = Assignment(name.strip(" \t"), value, line, fault)
        if fault is None and not _NAME.fullmatch(found.own_name):
            fault = "what stands before '=' is not the name of a variable"
        elif fault is None and not all(c.isprintable() or c == "\t" for c in value):
            fault = "the value holds a character that cannot be shown, or is not UTF-8"
        yield Assignment(found.name, value, line, fault)
        line += text.count("\n", began, at)


def _value(text: str, at: int) -> tuple[str, int, str | None]:
    """A value from its first character on, where the next line begins, and what is wrong."""
    value, kept, fault = "", 0, None
    quoted = True  # until something stands outside of quotes
    while at < len(text):
        c = text[at]
        if c == "\n":
            return value[:kept], at + 1, fault
        if c in "'\"" and quoted:
            inner, at, closed = _quoted(text, at + 1, c)
            value += inner
            kept = len(value)
            if not closed or "\n" in inner:
                fault = "the quote that is opened here is not closed on the same line"
            continue
        if c in " \t":
            if not quoted:
                value += c
        elif c == "\\":
            following = text[at + 1 : at + 2]
            value += following.strip("\n")
            kept, quoted, at = len(value), False, at + 1
        else:
            if c == "#" and at and text[at - 1] in " \t":
                fault = "a comment needs a line of its own: here it is a part of the value"
            value += c
            kept, quoted = len(value), False
        at += 1
    return value[:kept], at, fault


def _quoted(text: str, at: int, quote: str) -> tuple[str, int, bool]:
    """What stands up to the closing quote, the place behind it, and whether there is one."""
    inner = ""
    while at < len(text):
        c = text[at]
        if c == quote:
            return inner, at + 1, True
        if c == "\\" and quote == '"' and at + 1 < len(text):
            at += 1
            # Only these are escaped; before any other character the backslash stays.
            inner += {"\n": ""}.get(text[at], text[at] if text[at] in '"\\`$' else c + text[at])
        else:
            inner += c
        at += 1
    return inner, at, False


def require_understood() -> None:
    """Refuses a file with a line that says nothing to systemd or to us (``environment-invalid``).

    Unread, it would be found out by what fails without it, a minute later and somewhere else.
    """
    seen: dict[str, str] = {}
    for each in read(_readable()):
        fault = each.fault
        if fault is None and seen.setdefault(each.own_name, each.name) != each.name:
            fault = f"{each.own_name} is given twice, once with and once without export"
        if fault is not None:
            raise AgentError(Problem.ENVIRONMENT_INVALID, f"{PATH}:{each.line}: {fault}")


def load() -> None:
    """Puts what the node's files say into this process's environment; proxies in both cases."""
    own = parse(_readable())
    proxies = _proxies(own, os.environ, _of_parallelcluster(), _kept())
    os.environ.update({**own, **proxies})


def keep_given() -> None:
    """Keeps the proxies that this process was started with: ParallelCluster's script has them,
    the units that it leaves behind have not.

    Started with none, which is what sudo makes of it, it keeps what is known; one that is given
    empty is forgotten, and what was kept on another machine, too.
    """
    given = {name: _of(name, os.environ) for name in _KINDS}
    named = given["http_proxy"] is not None or given["https_proxy"] is not None
    if named or machine.is_foreign():
        secrets.keep(**{name: value or None for name, value in given.items()})


def _kept() -> dict[str, str]:
    """What a bootstrap of this machine was started with; an image has what another one was."""
    return {} if machine.is_foreign() else secrets.load()


def settle_node() -> dict[str, str]:
    """Writes for the units what systemd does not read in the administrator's file, which may be
    newer than the configuration, and returns what that file says. Raises ``file-failed``."""
    text = _readable()
    by_systemd = {each.name for each in read(text) if each.value is not None}
    own = parse(text)
    proxies = _proxies(own, {}, _of_parallelcluster(), _kept())
    wanted = {**{n: v for n, v in own.items() if n not in by_systemd}, **proxies}
    _write(NODE, {n: v for n, v in wanted.items() if n not in by_systemd})
    return own


def settle(of_mounts: Mapping[str, str]) -> None:
    """Writes for the units what they cannot read by themselves; ``of_mounts`` is what the
    configuration says."""
    own = settle_node()
    configured = dict(of_mounts)
    for kind in _KINDS:  # in both spellings, or else programs would differ in whom they believe
        value = None if _of(kind, own) is not None else _of(kind, configured)
        for name in (kind, kind.upper()):
            configured.pop(name, None)
            if value is not None:
                configured[name] = value
    _write(MOUNTS, configured)


def of_mounts() -> dict[str, str]:
    """What the units' files give to mount-s3, for where there is no systemd to read them."""
    base = parse(files.read(NODE) or "")
    configured = parse(files.read(MOUNTS) or "")
    own = {n: v for n, v in configured.items() if os.environ.get(n, base.get(n)) == base.get(n)}
    return {**{n: v for n, v in base.items() if n not in os.environ}, **own}


def _write(path: Path, values: Mapping[str, str]) -> None:
    lines = [f"{name}={_quote(value)}\n" for name, value in sorted(values.items())]
    if lines:
        text = "# Written by s3mount-agent for its units.\n" + "".join(lines)
        files.write(path, text, exactly=0o600)
    else:
        files.remove(path)


def _quote(value: str) -> str:
    return '"' + re.sub(r'(["\\`$])', r"\\\1", value) + '"'


def _readable() -> str:
    """The administrator's file as far as we may read it."""
    try:
        return files.read(PATH) or ""
    except AgentError:
        return ""


def _of_parallelcluster() -> dict[str, str]:
    try:
        proxy = node.read().proxy
    except AgentError:  # told by who needs to know what this node is
        return {}
    return {"http_proxy": proxy, "https_proxy": proxy} if proxy else {}


def _proxies(*layers: Mapping[str, str]) -> dict[str, str]:
    """The proxies by both spellings of their names, the first layer that has one wins; nothing
    where there is none."""
    found = {}
    for kind in _KINDS:
        given = (_of(kind, layer) for layer in layers)
        value = next((each for each in given if each is not None), None)
        if value is not None:
            found[kind] = value
    if not (found.get("http_proxy") or found.get("https_proxy")):
        return {}
    direct = [each.strip() for each in found.get("no_proxy", "").split(",") if each.strip()]
    direct += [each for each in _DIRECT if each not in direct]
    found["no_proxy"] = ",".join(direct)
    return {name: value for kind, value in found.items() for name in (kind, kind.upper())}


def _of(kind: str, values: Mapping[str, str]) -> str | None:
    return values.get(kind, values.get(kind.upper()))
