"""`robolearn real check`: the preflight of a stack."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from robolearn import real_settings, settings
from robolearn.errors import RobolearnError
from robolearn.files import json_line
from robolearn.real_settings import NOT_SAFE
from robolearn.settings import MISSING

if TYPE_CHECKING:
    from real.findings import Finding
    from real.stack import Stack

SUMMARY = "look whether a stack could run: topics, types, rates, names, units, cameras, time-outs"
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@dataclass
class Options:
    """Settings of `robolearn real check`; dotted ones are keys of the stack."""

    stack: str = MISSING
    """Name of a stack, or the path of its YAML."""
    bundle: str = ""
    """Folder of the policy's bundle; default: the stack's."""
    transport: str = "auto"
    """auto, dds or ros."""
    domain: int | None = None
    """DDS domain; null: the stack's, ROS_DOMAIN_ID, or that of `robolearn real up`."""
    listen_s: float = 3.0
    """How long to listen to the driver; 0: look at the files alone."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``key=value`` settings and ``--json``."""
    settings.add_arguments(parser, Options)


def main(args: argparse.Namespace) -> int:
    """The verb: 0 where nothing fails, else 1; 2 for a stack that cannot be read."""
    options, dotted = real_settings.parse(Options, args.settings)
    given = real_settings.overrides(options, dotted, ("bundle", "transport", "domain"))
    findings = examine(real_settings.load_stack(options.stack, given), options.listen_s)
    failed = sum(finding.state == "fail" for finding in findings)
    if args.json:
        print(json_line({"ok": not failed, "failed": failed, "findings": [asdict(finding) for finding in findings]}))
    else:
        _table(findings)
        print(f"{failed} of {len(findings)} fail" if failed else "nothing fails", NOT_SAFE, sep="\n")
    return 1 if failed else 0


def examine(stack: Stack, listen_s: float) -> list[Finding]:
    """Everything; what cannot be looked at is a finding, not an exception."""
    from real.findings import Finding
    from real.launcher import environment
    from real.preflight import check_domain, check_files, check_graph, check_ros
    from real.transport.open import open_node

    os.environ.update(environment(stack))
    findings = [
        Finding("stack", "ok", str(stack.path)),
        check_ros(stack.transport),
        check_domain(stack),
        *check_files(stack),
    ]
    if listen_s <= 0:
        return findings
    try:
        handle = open_node("preflight", namespace=stack.namespace, transport=stack.transport, domain=stack.domain)
        try:
            findings += check_graph(stack, handle, listen_s)
        finally:
            handle.close()
    except RobolearnError as error:
        findings.append(Finding("graph", "fail", str(error), "see above"))
    return findings


def _table(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("", "what", "found", "what to change"):
        table.add_column(title, overflow="fold")
    for f in findings:
        table.add_row(Text(f.state, _COLOURS[f.state]), Text(f.name), Text(f.detail), Text(f.advice))
    Console(width=None if sys.stdout.isatty() else 160).print(table)
