"""Is an engine's text plain decoding's own: a judge for any engine, with its controls built in.

`verify` asks an engine and a plain one the same questions: greedy text token for token, sampled
text by sequential tests with a stated error rate, long texts by how they repeat, and what else an
engine promises. Beside every verdict stands a planted fault that the same questions must catch;
where they do not, the verdict is "not enough samples".

Public surface: `verify`, `Trial`, `Engine`, `Function`, `Said`, `Report`;
`adapters` and `endpoint` for what there is.
"""

from mspeckv_study.verification.engine import Engine, Function, NotOffered, Said
from mspeckv_study.verification.findings import Finding, Report
from mspeckv_study.verification.judge import verify
from mspeckv_study.verification.trial import Trial

__all__ = ["Engine", "Finding", "Function", "NotOffered", "Report", "Said", "Trial", "verify"]
