"""Points 1 to 7: constructs that some page of the reference calls impossible.

API Management refuses a document with one when it is saved, so it is enough that the live gateway holds it and that a
call went through it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable

from scripts.azure.verify.probe import Point, Probe, Verdict, as_assumed, differs, not_measured
from scripts.azure.verify.seen import Seen

_MOST_32_BITS = 2_147_483_647
_CALLS = ("whole",)


def holds(what: str, **patterns: str) -> Callable[[Seen], Verdict]:
    """Whether the fragments, and the document `policy`, as saved have what their patterns describe."""

    def judge(seen: Seen) -> Verdict:
        if seen.documents.problem:
            return not_measured(f"the saved policies cannot be read: {seen.documents.problem}")
        for name, pattern in patterns.items():
            fragment = name.replace("_", "-")
            document = seen.documents.policy if name == "policy" else seen.documents.fragments.get(fragment, "")
            if not document:
                return differs(f"API Management holds no {fragment}")
            if not re.search(pattern, html.unescape(document), re.DOTALL):
                return differs(f"{fragment} is saved without {what}: somebody had to change it")
        return _passed(seen, f"saved with {what}")

    return judge


def judge_quota(seen: Seen) -> Verdict:
    """Whether the quota in force needs more than 32 bits."""
    if seen.documents.problem:
        return not_measured(f"the named values cannot be read: {seen.documents.problem}")
    quota = seen.documents.named_values.get("tk-token-quota", "")
    if not quota.isdigit():
        return differs(f"tk-token-quota is {quota!r}")
    if int(quota) <= _MOST_32_BITS:
        return not_measured(f"tk-token-quota is {quota}, which 32 bits hold")
    return _passed(seen, f"tk-token-quota is {quota}")


def _passed(seen: Seen, what: str) -> Verdict:
    answer = seen.answers.get("whole")
    if answer is None or answer.status != 200:
        return not_measured(f"{what}, but no call went through it: {answer.told() if answer else 'none was made'}")
    return as_assumed(f"{what}, and a call went through it")


def _saved(number: int, title: str, assumption: str, judge: Callable[[Seen], Verdict]) -> Probe:
    return Probe(Point(str(number), title, assumption), judge, _CALLS, ("documents",))


PROBES = (
    _saved(
        1,
        "two forward-request in one document",
        "a document with two is saved and runs",
        holds("two forward-request", policy=r"<forward-request\b.*<forward-request\b"),
    ),
    _saved(
        2,
        "cache-lookup-value in fragments",
        "fragments with it are saved, and two run in inbound",
        holds("cache-lookup-value", tk_limit_rate="<cache-lookup-value ", tk_check_budget="<cache-lookup-value "),
    ),
    _saved(
        3,
        "named values inside C# and in numeric attributes",
        "they are filled in before the expression is compiled",
        holds(
            "named values", tk_limit_size=r"\{\{tk-buffer-bytes\}\}L", tk_limit_rate=r'calls="\{\{tk-rate-calls\}\}"'
        ),
    ),
    _saved(
        4,
        "using, catch (Exception) and lambdas",
        "the compiler of expressions takes them",
        holds("using, catch and lambdas", tk_identify=r"using \(.*=>", tk_read_usage=r"catch \(Exception\)"),
    ),
    _saved(
        5,
        "set-query-parameter to delete, without a value",
        "it is saved",
        holds("it", tk_use_backend=r"<set-query-parameter [^>]*exists-action=.delete.\s*/>"),
    ),
    _saved(
        6,
        "client-id and ignore-error inside send-request",
        "authentication-managed-identity takes them there",
        holds("both", tk_check_budget=r"<authentication-managed-identity [^>]*client-id=[^>]*ignore-error="),
    ),
    _saved(7, "a token quota above 32 bits", "64 bits are taken", judge_quota),
)
