"""A verdict as JUnit XML: a test suite a task (and one for the mechanism), a test case a rule."""

from __future__ import annotations

import re
from collections.abc import Iterable
from xml.etree import ElementTree

from diffharness.regression.outcome import RuleResult, Verdict
from diffharness.regression.words import LOST, carried, cost, settles
from diffharness.report.numbers import interval, plain, signed
from diffharness.report.text import brief, clean, shorten

_NOT_XML = re.compile("[\ufffe\uffff]")
_LONGEST_NAME, _LONGEST_MESSAGE, _LONGEST_TEXT = 200, 900, 2000
MECHANISM = "mechanism"


def to_junit(verdict: Verdict) -> bytes:
    """The file: failures for losses, errors for what could not be decided, skipped for what is inconclusive.

    An inconclusive rule is a failure where the policy fails the check for it, so that file and exit code agree.
    """
    fails = verdict.verdict == "inconclusive" and verdict.exit_code == 1
    suites: dict[str, list[ElementTree.Element]] = {}
    for rule in verdict.rules:
        suites.setdefault(_suite(rule), []).append(_case(rule, fails))
    if verdict.exit_code and not any(rule.verdict == verdict.verdict for rule in verdict.rules):
        suites.setdefault("check", []).append(_whole(verdict))
    root = ElementTree.Element("testsuites", {"name": "diffharness check"})
    for name, cases in suites.items():
        suite = ElementTree.SubElement(
            root, "testsuite", {"name": name, **_counts(cases), "skipped": _n(cases, "skipped")}
        )
        suite.extend(cases)
    root.attrib.update(_counts([case for cases in suites.values() for case in cases]))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _suite(rule: RuleResult) -> str:
    return _name(f"scores: {rule.task}" if rule.kind == "score" and rule.task else MECHANISM)


def _case(rule: RuleResult, inconclusive_fails: bool) -> ElementTree.Element:
    case = ElementTree.Element("testcase", {"name": _name(rule.rule), "classname": f"diffharness.{_suite(rule)}"})
    message = _line(rule.sentence)
    if rule.verdict in LOST or (rule.verdict == "inconclusive" and inconclusive_fails):
        _outcome(case, "failure", rule.verdict, message, _details(rule))
    elif rule.verdict == "error":
        _outcome(case, "error", rule.verdict, message, _details(rule))
    elif rule.verdict == "inconclusive":
        settled = settles(rule)
        ElementTree.SubElement(case, "skipped", {"message": message if settled is None else f"{message}; {settled}"})
    else:
        ElementTree.SubElement(case, "system-out").text = f"{rule.verdict}: {message}"
    return case


def _whole(verdict: Verdict) -> ElementTree.Element:
    """A test case for what no rule says: the check itself went wrong."""
    case = ElementTree.Element("testcase", {"name": "verdict", "classname": "diffharness.check"})
    kind = "failure" if verdict.exit_code == 1 else "error"
    _outcome(case, kind, verdict.verdict, _line("; ".join(verdict.notes) or verdict.line), map(_line, verdict.notes))
    return case


def _outcome(case: ElementTree.Element, kind: str, verdict: str, message: str, details: Iterable[str]) -> None:
    element = ElementTree.SubElement(case, kind, {"type": verdict, "message": message})
    element.text = "\n".join(details)


def _details(rule: RuleResult) -> list[str]:
    """The numbers, and why, a line each."""
    lines = [
        f"baseline {plain(rule.baseline)}, candidate {plain(rule.candidate)}, difference {signed(rule.difference)} "
        f"{interval(rule.interval)}, margin {plain(rule.margin)}"
    ]
    settled = settles(rule)
    lines += [settled] if settled is not None else []
    if rule.why is not None:
        lines += [f"costs most: {cost(found)}" for found in rule.why.costs]
        lines += [carried(rule.why.carried)] if rule.why.carried is not None else []
        for found in rule.why.flipped:
            was = f"was {shorten(found.baseline_answer, 200)}, " if found.baseline_answer is not None else ""
            wanted = f"wanted {shorten(found.target, 200)}, {was}now {shorten(found.candidate_answer, 200)}"
            lines.append(f"document {found.doc_id}: {shorten(found.prompt, 300)}; {wanted}")
        lines += [rule.why.reason] if rule.why.reason is not None else []
    return [_xml(shorten(line, _LONGEST_TEXT)) for line in lines]


def _counts(cases: list[ElementTree.Element]) -> dict[str, str]:
    return {"tests": str(len(cases)), "failures": _n(cases, "failure"), "errors": _n(cases, "error")}


def _n(cases: list[ElementTree.Element], kind: str) -> str:
    return str(sum(case.find(kind) is not None for case in cases))


def _name(text: str) -> str:
    return _xml(brief(text, _LONGEST_NAME))


def _line(text: str) -> str:
    return _xml(brief(text, _LONGEST_MESSAGE))


def _xml(text: str) -> str:
    """The text with what XML 1.0 does not have written out or replaced; ElementTree escapes the rest."""
    return _NOT_XML.sub("\ufffd", clean(text))
