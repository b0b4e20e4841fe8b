"""What came of a check, and the report of all of them."""

from __future__ import annotations

import html
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Outcome = Literal["lossless", "fault", "not enough samples", "not offered"]


@dataclass(frozen=True)
class Finding:
    """One check's verdict, and the control beside it.

    Attributes:
        check: what was judged.
        outcome: ``lossless`` only where the control was caught.
        told: what was seen, in a line.
        control: the planted fault, and whether the same check caught it.
        numbers: what ``told`` rounds.
    """

    check: str
    outcome: Outcome
    told: str
    control: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, check: str, faulty: bool | None, told: str, caught: bool, control: str, **numbers: Any
    ) -> Finding:
        """A fault needs no control; what seems honest is only as good as its control.

        ``faulty`` is None where nobody can say.
        """
        outcome: Outcome = "not enough samples"
        if faulty is not None and (faulty or caught):
            outcome = "fault" if faulty else "lossless"
        said = f"planted: {control or 'nothing'}: {'caught' if caught else 'not caught'}"
        return cls(check, outcome, told, "" if faulty else said, numbers)


@dataclass(frozen=True)
class Report:
    """The verdict on an engine; not ``complete`` where it was interrupted or ran out of time."""

    engine: str
    against: str
    findings: tuple[Finding, ...]
    setting: dict[str, Any]
    versions: dict[str, str]
    seconds: float
    complete: bool = True

    @property
    def verdict(self) -> Outcome:
        """The worst of the findings'."""
        seen = {one.outcome for one in self.findings}
        if "fault" in seen:
            return "fault"
        if not self.complete or "not enough samples" in seen or "lossless" not in seen:
            return "not enough samples"
        return "lossless"

    @property
    def exit_code(self) -> int:
        """0 where the verdict is lossless, else 1."""
        return 0 if self.verdict == "lossless" else 1

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {"verdict": self.verdict, **asdict(self)}

    def to_text(self) -> str:
        """The report for a terminal."""
        lines = [f"{self.engine}, against {self.against}: {self.verdict}"]
        for one in self.findings:
            lines.append(f"  {one.check}: {one.outcome}")
            more = one.numbers.get("plan", "")
            lines += [f"      {part}" for part in (more, one.told, one.control) if part]
        asked = ", ".join(f"{name} {value}" for name, value in self.setting.items())
        lines += [f"  setting: {asked}", f"  on: {', '.join(self.versions.values())}"]
        return "\n".join([*lines, f"  {self.seconds:.0f} s (measured)"])

    def to_html(self) -> str:
        """The report as a page by itself."""
        rows = "".join(
            f"<tr class='{one.outcome.split()[0]}'>"
            + "".join(f"<td>{html.escape(part)}</td>" for part in parts)
            + "</tr>"
            for one in self.findings
            for seen in ["; ".join(filter(None, (one.numbers.get("plan"), one.told)))]
            for parts in [(one.check, one.outcome, seen, one.control)]
        )
        title = f"{self.engine}, against {self.against}: {self.verdict}"
        facts = html.escape(json.dumps({**self.setting, **self.versions}))
        return _PAGE.format(title=html.escape(title), rows=rows, facts=facts)


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse }} td, th {{ border: 1px solid #999; padding: .3rem .6rem;
text-align: left; vertical-align: top }} .fault td:nth-child(2) {{ background: #f5c6a5;
font-weight: bold }} .lossless td:nth-child(2) {{ background: #cfe8dc }}</style>
<h1>{title}</h1><table><tr><th>check<th>verdict<th>seen<th>control</tr>{rows}</table>
<p>{facts}</p></html>
"""
